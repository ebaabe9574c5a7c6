import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { decodeProtectedHeader } from 'jose';
import { loadConfig } from '../../src/config/config.js';
import { Clock } from '../../src/kernel/clock.js';
import { Keyring } from '../../src/keyring/keyring.js';
import { Keys } from '../../src/tokens/keys.service.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { accessToken, PATIENT } from '../support/oauth.js';
import {
  bearer,
  freePort,
  ISSUER,
  ROOT,
  ServiceProcess,
  type Session,
  serviceEnvironment,
  type TestAccount,
  TestService,
} from '../support/service.js';

const DAY_MS = 86_400_000;
const MAX_AGE_S = 300;
const METADATA = [
  '/.well-known/oauth-authorization-server',
  '/.well-known/openid-configuration',
  '/realms/gatehouse/.well-known/openid-configuration',
];

const METHODS = ['client_secret_basic', 'client_secret_post', 'private_key_jwt'];
const ALGORITHMS = ['EdDSA', 'Ed25519', 'ES256', 'PS256', 'RS256'];

let service: TestService;
let other: TestService;
let admin: Session;
let jwtAccount: TestAccount;
let opaqueAccount: TestAccount;

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  other = await TestService.start(PATIENT, service.database);
  admin = await service.signIn();
  await admin.createOrganization('Metadata');
  jwtAccount = await admin.createAccount('JWT', ['companies:read'], { token_format: 'jwt' });
  opaqueAccount = await admin.createAccount('Opaque', ['companies:read']);
});
afterAll(async () => {
  await other?.stop();
  await service?.stop();
});
afterEach(() => {
  jest.restoreAllMocks();
});

const jwks = async (of = service) => (await of.request('GET', '/.well-known/jwks.json')).json.keys;
const kids = async (of = service): Promise<string[]> => (await jwks(of)).map(({ kid }: { kid: string }) => kid);
const kidOf = (jwt: string) => decodeProtectedHeader(jwt).kid!;
const statusOf = async (token: string, of = service) =>
  (await of.request('GET', '/companies', { headers: bearer(token) })).status;

describe('the documents', () => {
  it('MD-02 nothing in them comes from a request', async () => {
    for (const url of [...METADATA, '/.well-known/jwks.json']) {
      const plain = await service.request('GET', url);
      const spoofed = await service.request('GET', url, {
        headers: {
          host: 'evil.example',
          'x-forwarded-host': 'evil.example',
          'x-forwarded-proto': 'https',
          'x-forwarded-port': '444',
          forwarded: 'host=evil.example;proto=https',
        },
      });
      expect([plain.status, spoofed.status]).toEqual([200, 200]);
      expect(spoofed.text).toBe(plain.text);
      expect(plain.text).not.toContain('evil');
    }
  });

  it('D21 RFC 8414 and the OpenID configuration are one document, with what either requires, and with no ID token', async () => {
    const [first, ...others] = await Promise.all(METADATA.map((url) => service.request('GET', url)));
    expect(first.json).toEqual({
      issuer: ISSUER,
      token_endpoint: `${ISSUER}/oauth/token`,
      jwks_uri: `${ISSUER}/.well-known/jwks.json`,
      authorization_endpoint: `${ISSUER}/oauth/authorize`,
      grant_types_supported: ['client_credentials'],
      response_types_supported: [],
      token_endpoint_auth_methods_supported: METHODS,
      token_endpoint_auth_signing_alg_values_supported: ALGORITHMS,
      introspection_endpoint: `${ISSUER}/oauth/introspect`,
      introspection_endpoint_auth_methods_supported: [...METHODS, 'Bearer'],
      introspection_endpoint_auth_signing_alg_values_supported: ALGORITHMS,
      revocation_endpoint: `${ISSUER}/oauth/revoke`,
      revocation_endpoint_auth_methods_supported: METHODS,
      revocation_endpoint_auth_signing_alg_values_supported: ALGORITHMS,
      scopes_supported: expect.arrayContaining(['companies:read', 'platform:admin']),
      service_documentation: `${ISSUER}/docs`,
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['ES256'],
    });
    for (const { text } of others) expect(text).toBe(first.text);
    expect(first.headers).toMatchObject({
      'content-type': 'application/json; charset=utf-8',
      'cache-control': 'public, max-age=300',
    });
    const answer = await service.token({ grant_type: 'client_credentials', scope: 'openid' }, jwtAccount.credentials);
    expect(answer.json).not.toHaveProperty('id_token');
  });

  it('D9 a realm that is not configured is no path', async () => {
    for (const url of [
      '/realms/other/.well-known/openid-configuration',
      '/realms/other/protocol/openid-connect/certs',
    ]) {
      expect((await service.request('GET', url)).status).toBe(404);
    }
  });

  it('MD-04 the key set has public members only, a kid of its own each, use and alg; its aliases are the same', async () => {
    const keys = await jwks();
    for (const key of keys) {
      expect(Object.keys(key).sort()).toEqual(['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y']);
      expect(key).toMatchObject({ use: 'sig', alg: 'ES256', kty: 'EC', crv: 'P-256' });
    }
    const names = await kids();
    expect(new Set(names).size).toBe(names.length);
    const certs = await service.request('GET', '/realms/gatehouse/protocol/openid-connect/certs');
    expect(certs.json.keys).toEqual(keys);
    expect(certs.headers).toMatchObject({
      'content-type': 'application/json; charset=utf-8',
      'cache-control': `public, max-age=${MAX_AGE_S}`,
    });
    expect(names).toContain(kidOf(await accessToken(service, jwtAccount)));
  });

  it('MD-04 RSA keys too, when JWT_ALG asks for them', async () => {
    const database = await createDatabase();
    const rsa = await TestService.start({ ...PATIENT, JWT_ALG: 'PS256' }, database);
    try {
      const keys = await jwks(rsa);
      expect(keys.map((key: object) => Object.keys(key).sort())).toEqual([['alg', 'e', 'kid', 'kty', 'n', 'use']]);
      expect(keys[0].alg).toBe('PS256');
    } finally {
      await rsa.stop();
      await database.drop();
    }
  });
});

/** Moves what the service takes for the time, which its keys age by. */
function travel(of: TestService, ms: number): void {
  const clock = of.app.get(Clock);
  const now = clock.now.bind(clock);
  jest.spyOn(clock, 'now').mockImplementation(() => now() + ms);
}

async function gatehouse(...args: string[]): Promise<string> {
  const { DATA_DIR, ...environment } = serviceEnvironment(service.database, { ISSUER_URL: ISSUER });
  const child = spawn(process.execPath, [path.join(ROOT, 'dist/src/cli/main.js'), ...args], {
    env: { PATH: process.env.PATH, DATA_DIR, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk;
    });
  }
  const [code] = await once(child, 'close');
  return `${code} ${output.trim()}`;
}

const keyStates = async (purpose: string) =>
  (
    await service.database.query<{ state: string; destroyed: boolean }>(
      'SELECT state, wrapped IS NULL AS destroyed FROM keyring_key WHERE purpose = $1 ORDER BY activated_at',
      [purpose],
    )
  ).map(({ state, destroyed }) => (destroyed ? `${state}, destroyed` : state));

describe('keys over time', () => {
  it('MD-05 CK-04 a command publishes the next key beside the running service; it signs after twice max-age; the old one stays until its last token has ended', async () => {
    const [first] = await kids();
    const old = await accessToken(service, jwtAccount);
    const unseen = await accessToken(service, jwtAccount); // nobody has verified it, so nobody remembers its signature
    expect(await gatehouse('keys', 'rotate', 'signing')).toMatch(
      /^0 The next signing key is published, and signs from /,
    );
    // The command came back, so every instance shows the next key (it is a change on the feed); none signs with it.
    const published = await kids();
    expect(published).toEqual([first, expect.any(String)]);
    expect(await kids(other)).toEqual(published);
    for (const instance of [service, other]) {
      await instance.app.get(Keys).maintain();
      expect(kidOf(await accessToken(instance, jwtAccount))).toBe(first);
    }
    // Begun twice, it is one rotation.
    expect(await gatehouse('keys', 'rotate', 'signing')).toMatch(/^0 The next signing key is published/);
    expect(await kids()).toEqual(published);

    // A minute before, since the commands took some of the time themselves.
    travel(service, (2 * MAX_AGE_S - 60) * 1000);
    await service.app.get(Keys).maintain();
    expect(kidOf(await accessToken(service, jwtAccount))).toBe(first);
    jest.restoreAllMocks();
    travel(service, (2 * MAX_AGE_S + 5) * 1000);
    await service.app.get(Keys).maintain();
    jest.restoreAllMocks();
    for (const instance of [service, other]) {
      expect(kidOf(await accessToken(instance, jwtAccount))).toBe(published[1]);
      expect(await kids(instance)).toEqual(published);
      expect(await statusOf(old, instance)).toBe(200);
    }
    expect(await keyStates('token-sign')).toEqual(['retiring', 'active']);

    travel(service, DAY_MS + 660_000);
    await service.app.get(Keys).maintain();
    jest.restoreAllMocks();
    expect(await keyStates('token-sign')).toEqual(['retired, destroyed', 'active']);
    for (const instance of [service, other]) {
      await instance.app.get(Keyring).load();
      expect(await kids(instance)).toEqual([published[1]]);
      expect(await statusOf(unseen, instance)).toBe(401); // BR-11: a retired key verifies nothing
    }
  });

  it('MD-05 the sealing key changes daily by itself, and tokens under the one before go on', async () => {
    const before = await accessToken(service, opaqueAccount);
    const states = await keyStates('token-seal');
    await service.app.get(Keys).maintain();
    expect(await keyStates('token-seal')).toEqual(states);
    travel(service, DAY_MS + 1000);
    await service.app.get(Keys).maintain();
    jest.restoreAllMocks();
    expect(await keyStates('token-seal')).toEqual([...states.slice(0, -1), 'retiring', 'active']);
    const after = await accessToken(other, opaqueAccount);
    const kid = (token: string) => token.slice('client_oa2_live_'.length, 'client_oa2_live_'.length + 22);
    expect(kid(after)).not.toBe(kid(before));
    for (const instance of [service, other]) {
      expect([await statusOf(before, instance), await statusOf(after, instance)]).toEqual([200, 200]);
    }
    // The operator may do so at any time.
    expect(await gatehouse('keys', 'rotate', 'sealing')).toBe('0 The next key is in use.');
    expect(kid(await accessToken(other, opaqueAccount))).not.toBe(kid(after));
    expect(await statusOf(before)).toBe(200);
  });
});

describe('keys at rest', () => {
  it('MD-07 the database holds no key, secret or token in the clear; a ciphertext in another row does not open', async () => {
    const token = await accessToken(service, opaqueAccount);
    const tables = await service.database.query<{ name: string }>(
      `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`,
    );
    const dump: string[] = [];
    for (const { name } of tables) {
      dump.push(
        ...(await service.database.query<{ row: string }>(`SELECT t::text AS row FROM ${name} AS t`)).map(
          ({ row }) => row,
        ),
      );
    }
    const text = dump.join('\n');
    const keyring = service.app.get(Keyring);
    const secrets = (['credential-hash', 'cursor', 'token-seal', 'token-sign'] as const).flatMap((purpose) =>
      keyring
        .all(purpose)
        .flatMap(({ secret }) =>
          secret.type === 'secret'
            ? [secret.export().toString('hex'), secret.export().toString('base64')]
            : [
                secret.export({ format: 'der', type: 'pkcs8' }).toString('hex'),
                Buffer.from(secret.export({ format: 'jwk' }).d!, 'base64url').toString('hex'),
                secret.export({ format: 'jwk' }).d!,
              ],
        ),
    );
    expect(secrets.length).toBeGreaterThanOrEqual(9);
    expect(text).toContain(opaqueAccount.id); // the dump is one
    for (const canary of [...secrets, token, opaqueAccount.credentials.secret]) expect(text).not.toContain(canary);
    expect(text).not.toContain(opaqueAccount.credentials.secret.slice(-49, -6));
  });

  it('MD-07 swapped ciphertexts: the service does not start', async () => {
    const database = await createDatabase();
    try {
      await (await TestService.start(PATIENT, database)).stop();
      await database.query(
        `UPDATE keyring_key AS k SET wrapped = o.wrapped FROM keyring_key AS o
          WHERE (k.purpose, o.purpose) IN (('cursor', 'credential-hash'), ('credential-hash', 'cursor'))`,
      );
      await expect(TestService.start(PATIENT, database)).rejects.toThrow(/was altered: restore it from a backup/);
    } finally {
      await database.drop();
    }
  });

  it('MD-08 a wrong MASTER_KEY ends the process with a sentence, a missing one too, and no key is made', async () => {
    const keys = () =>
      service.database.query('SELECT id, state, md5(wrapped) AS wrapped, master_key_id FROM keyring_key ORDER BY id');
    const before = await keys();
    const wrong = await end({ MASTER_KEY: Buffer.alloc(32, 1).toString('base64') });
    expect(wrong).toEqual([
      78,
      'MASTER_KEY is not the one that this database was set up with: start with the right one. Nothing was changed.',
    ]);
    const missing = await end({ MASTER_KEY: '' });
    expect(missing[0]).toBe(78);
    expect(missing[1]).toContain('MASTER_KEY is required with DATABASE_URL');
    expect(await keys()).toEqual(before);
    expect(() => loadConfig({ DATABASE_URL: 'postgres://x/y', MASTER_KEY: 'short' })).toThrow(/32 bytes in base64/);
  });

  async function end(settings: Record<string, string>): Promise<[number | null, string]> {
    const environment = serviceEnvironment(service.database, { PORT: await freePort(), ...settings });
    const started = ServiceProcess.spawn(environment);
    const code = await started.exit;
    return [code, started.stderr.trim()];
  }

  it('MD-10 instances that race for the first keys agree on them', async () => {
    const database: TestDatabase = await createDatabase();
    const instances = await Promise.all([1, 2, 3].map(() => TestService.start(PATIENT, database)));
    try {
      const sets = await Promise.all(instances.map((instance) => kids(instance)));
      expect(sets[0]).toHaveLength(1);
      expect(sets[1]).toEqual(sets[0]);
      expect(sets[2]).toEqual(sets[0]);
      const active = await database.query(
        `SELECT purpose, count(*)::int AS keys FROM keyring_key GROUP BY purpose ORDER BY purpose`,
      );
      expect(active).toEqual(
        ['credential-hash', 'cursor', 'token-seal', 'token-sign'].map((purpose) => ({ purpose, keys: 1 })),
      );
    } finally {
      await Promise.all(instances.map((instance) => instance.stop()));
      await database.drop();
    }
  });
});
