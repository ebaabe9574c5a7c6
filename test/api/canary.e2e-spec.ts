import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Keyring } from '../../src/keyring/keyring.js';
import { claimsOf, jwt, makeKey, present, register } from '../support/assertions.js';
import { join, PASSWORD, startPatient, tokenOf } from '../support/people.js';
import { call, makeFor, makeOwn } from '../support/personal-access-tokens.js';
import { ADMIN, basic, bearer, type Session, TestService } from '../support/service.js';

let service: TestService;
let admin: Session;
/** Everything that must be nowhere, by what it is. */
const secrets = new Map<string, string>();
const keep = (what: string, value: string) => {
  secrets.set(what, value);
  return value;
};
/** Shaped as what it stands for, and unlike anything else. */
const CANARY = 'cAnArYcAnArYcAnArYcAnArYcAnArYcAnArYcAnArY7';

beforeAll(async () => {
  service = await startPatient({ LOG_LEVEL: 'trace' });
  const platform = await service.signIn();
  await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
});
afterAll(() => service.stop());

/** Each place where a caller can put a secret, right or wrong. */
async function useEverySecret(): Promise<void> {
  keep('bootstrap password', ADMIN.password);
  keep('password', PASSWORD);
  const post = (path: string, body: Record<string, unknown> | string, headers: Record<string, string> = {}) =>
    service.request('POST', path, { body, headers });
  await post('/api/v1/session', {
    email: 'admin@acme.example',
    password: keep('wrong password', `${CANARY}-wrong-password`),
  });
  await post('/api/v1/session', {
    email: 'nobody@acme.example',
    password: keep('unknown person’s password', `${CANARY}-unknown`),
  });
  await admin.post('/session/reauthenticate', { password: keep('step-up password', `${CANARY}-step-up`) });
  await admin.post('/users', {
    email: 'new@acme.example',
    name: 'New',
    role: 'auditor',
    password: keep('new password', `${CANARY}-new`),
  });
  await admin.post('/users', {
    email: 'x',
    name: 1,
    role: 'king',
    password: keep('password of a refused request', `${CANARY}-refused`),
  });
  await admin.patch('/users/me', { password: keep('changed password', `${CANARY}-changed`) });
  keep('session cookie', admin.cookie.split('=')[1]);
  await service.request('GET', '/api/v1/session', { headers: { cookie: `session=${keep('wrong cookie', CANARY)}` } });

  for (const token_format of ['opaque', 'jwt']) {
    const account = await admin.createAccount(`Canary ${token_format}`, undefined, { token_format });
    keep(`secret (${token_format})`, account.secret.secret);
    const token = keep(`token (${token_format})`, await tokenOf(service, account.credentials));
    await service.request('POST', '/companies', { body: { name: 'Company' }, headers: bearer(token) });
    await service.request('GET', `/companies?access_token=${token}`, {});
    await service.request('GET', `/nowhere/${'x'.repeat(10)}`, { headers: bearer(token) });
    await service.request('GET', '/companies', {
      headers: bearer(keep(`spoiled token (${token_format})`, `${token}X`)),
    });
    const wrong = keep(`wrong secret (${token_format})`, `${account.secret.secret.slice(0, -8)}cAnArY78`);
    await service.token({ grant_type: 'client_credentials' }, { id: account.client_id, secret: wrong });
    await service.token({ grant_type: 'client_credentials', client_id: account.client_id, client_secret: wrong });
    await service.token({ grant_type: 'password', client_id: account.client_id, client_secret: wrong });
    await post('/oauth/token', `{"client_secret":"${wrong}"`, { 'content-type': 'application/json' });
    await post('/oauth/token', `client_secret=${wrong}&client_secret=${wrong}`, {
      'content-type': 'application/x-www-form-urlencoded',
    });
    await service.token({
      grant_type: 'client_credentials',
      client_assertion: keep('assertion', `ey.${CANARY}.sig`),
      client_assertion_type: 'x',
    });
    keep(`Basic header (${token_format})`, basic({ id: account.client_id, secret: wrong }).slice(6));
    const rotated = await admin.post(
      `/service-accounts/${account.id}/secrets/${account.secret.id}/rotate`,
      {},
      { 'idempotency-key': token_format },
    );
    keep(`rotated secret (${token_format})`, rotated.json.secret);
    await admin.post(
      `/service-accounts/${account.id}/secrets/${account.secret.id}/rotate`,
      {},
      { 'idempotency-key': token_format },
    );
    await admin.post(`/service-accounts/${account.id}/secrets/${account.secret.id}/revoke`, {});
    await service.request('GET', '/companies', { headers: bearer(token) });
  }
  await useAssertions();
  const { id: principal } = (await admin.get('/developer/service-principals')).json.data[0];
  for (const made of [await makeOwn(admin, ['companies:read']), await makeFor(admin, principal, ['companies:read'])]) {
    keep(`personal access token ${made.id}`, made.token);
    await call(service, made);
    await call(service, { token: keep(`spoiled personal access token ${made.id}`, `${made.token}X`) });
    await service.request('GET', `/companies?access_token=${made.token}`, { headers: { referer: made.token } });
    await service.token({ grant_type: 'client_credentials', client_id: 'sa_none', client_secret: made.token });
  }

  // A fault of the database at the worst moment: what it complains about must not be what it was given.
  await service.database.query(`ALTER TABLE credential ADD CONSTRAINT refuse CHECK (label <> 'boom')`);
  const { id } = (await admin.get('/service-accounts')).json.data[0];
  expect((await admin.post(`/service-accounts/${id}/secrets`, { label: 'boom' })).status).toBeGreaterThanOrEqual(500);
  await service.database.query('ALTER TABLE credential DROP CONSTRAINT refuse');

  const keyring = service.app.get(Keyring);
  const key = keyring.active('credential-hash').secret;
  keep(
    'hash key',
    Buffer.from((key as unknown as { export?: () => Buffer }).export?.() ?? (key as unknown as Buffer)).toString('hex'),
  );
}

/** Assertions good and bad, and private keys where public ones belong. */
async function useAssertions(): Promise<void> {
  const account = await admin.createAccount('Canary assertions');
  const key = makeKey('EdDSA');
  await register(admin, account, key);
  const good = keep('assertion that was used', jwt(key, {}, claimsOf(account, { jti: keep('jti', `${CANARY}-jti`) })));
  const stranger = keep('assertion of a stranger', jwt(makeKey('ES256'), {}, claimsOf(account)));
  const late = keep('assertion that expired', jwt(key, {}, claimsOf(account, { exp: 1, iat: 0 })));
  for (const assertion of [good, good, stranger, late, keep('assertion cut short', good.slice(0, -20))]) {
    await present(service, assertion);
    for (const part of assertion.split('.').slice(1)) keep(`part ${part.slice(0, 8)} of an assertion`, part);
  }
  await service.request('POST', `/oauth/token?client_assertion=${good}`, {});
  for (const alg of ['EdDSA', 'ES256', 'RS256'] as const) {
    const { privateKey } = makeKey(alg);
    const jwk = privateKey.export({ format: 'jwk' });
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
    keep(`private JWK (${alg})`, jwk.d!);
    keep(`private PEM (${alg})`, pem.split('\n')[1]);
    for (const body of [
      { jwk },
      { pem },
      { jwk: { ...jwk, kty: undefined } },
      { jwk: pem },
      { pem: jwk },
      { label: pem },
    ]) {
      const answer = await admin.post(`/service-accounts/${account.id}/keys`, body as never, {
        'idempotency-key': alg,
      });
      expect([answer.status, answer.text.includes(jwk.d!), answer.text.includes(pem.split('\n')[1])]).toEqual([
        400,
        false,
        false,
      ]);
    }
  }
}

/** A secret as itself and as what a column or a log line may have made of it. */
const spellings = (value: string) => [
  value,
  Buffer.from(value).toString('hex'),
  Buffer.from(value).toString('base64').replace(/=+$/, ''),
  encodeURIComponent(value),
];

describe('no secret anywhere', () => {
  it('AU-14 MD-07 I12 SC-01 canaries in every secret field: none in any table, none in the log at trace', async () => {
    await useEverySecret();
    expect(secrets.size).toBeGreaterThan(20);
    const tables = await service.database.query<{ name: string }>(
      `SELECT quote_ident(relname) AS name FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname = 'public' AND relkind IN ('r', 'p') AND NOT relispartition`,
    );
    let dump = '';
    for (const { name } of tables) {
      const rows = await service.database.query<{ row: string }>(`SELECT t::text AS row FROM ${name} t`);
      dump += `${name}\n${rows.map(({ row }) => row).join('\n')}\n`;
    }
    expect(dump).toContain('service_account.secret.created'); // the dump is one
    const logs = service.logs.join('');
    expect(logs).toContain('"status":401');
    for (const [what, value] of secrets) {
      for (const spelling of spellings(value)) {
        expect([what, dump.includes(spelling)]).toEqual([what, false]);
        expect([what, logs.includes(spelling)]).toEqual([what, false]);
      }
    }
    for (const [place, text] of Object.entries({ dump, logs })) {
      expect([place, text.match(/PRIVATE KEY|"d":|Bearer ey|Basic [A-Za-z0-9+/]{8}/)]).toEqual([place, null]);
      expect([place, text.match(/[a-z]+_(sec|oa2|pat)_live_[0-9A-Za-z]{20}/)]).toEqual([place, null]);
    }
  });

  it('MD-07 a wrapped key is bound to its row: swapped with another, it does not open', async () => {
    const rows = await service.database.query<{ id: string; purpose: string }>(
      `SELECT id, purpose FROM keyring_key WHERE wrapped IS NOT NULL ORDER BY purpose`,
    );
    expect(rows.length).toBeGreaterThanOrEqual(3);
    const swap = ([a, b]: { id: string }[]) =>
      service.database.query(
        `UPDATE keyring_key k SET wrapped = other.wrapped FROM keyring_key other
          WHERE (k.id, other.id) IN (($1::uuid, $2::uuid), ($2::uuid, $1::uuid))`,
        [a.id, b.id],
      );
    await swap(rows);
    await expect(TestService.start({}, service.database)).rejects.toThrow();
    await swap(rows);
    const second = await TestService.start({}, service.database);
    await second.stop();
  });
});
