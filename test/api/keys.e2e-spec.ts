import { createPublicKey, generateKeyPairSync, verify } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { calculateJwkThumbprint } from 'jose';
import { ALGORITHMS, claimsOf, jwt, makeKey, present, register, type TestKey } from '../support/assertions.js';
import { at, join, MINUTE, startPatient } from '../support/people.js';
import { type Answer, bearer, type Session, type TestAccount, TestService } from '../support/service.js';

/** Self-signed, for a P-256 key, and valid for one day that has passed or not: only the key counts. */
const CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBdzCCAR2gAwIBAgIUbJy5B77SuFC28OW7CQIgK3Lj14owCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbGVkZ2VyMB4XDTI2MTEyMTE1MzcwOFoXDTI2MTEyMjE1Mzcw
OFowETEPMA0GA1UEAwwGbGVkZ2VyMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
rR22jYhShceRo3vgaWZH7n2ao/5EYK8e6QL69FlY4Ra57QJU/OtZAADEsvVcJIB6
+rPgLZf708KQGmfg2lHyiKNTMFEwHQYDVR0OBBYEFFdxcxNJZz/h5ZarEqfzDt3E
Zk7DMB8GA1UdIwQYMBaAFFdxcxNJZz/h5ZarEqfzDt3EZk7DMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAMBPC3GibMzBpxaDmGkgxl6KiaFMb4gW
isOd0BCKdovUAiAIM3E3/llgqpu9ldeY1+h/k97q1LubpXyiKCD0rvihDQ==
-----END CERTIFICATE-----
`;

let service: TestService;
let other: TestService;
let platform: Session;
let admin: Session & { userId: string };

beforeAll(async () => {
  service = await startPatient({ MAX_KEYS_PER_ACCOUNT: '3' });
  other = await TestService.start({ REVOCATION_BOUND_MS: '10000' }, service.database);
  platform = await service.signIn();
  await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
});
afterAll(async () => {
  await other?.stop();
  await service?.stop();
});

const path = (account: Pick<TestAccount, 'id'>, keyId = '') =>
  `/service-accounts/${account.id}/keys${keyId && `/${keyId}/revoke`}`;
const add = (account: TestAccount, body: Record<string, unknown>) => admin.post(path(account), body);
const list = async (account: TestAccount) => (await admin.get(path(account))).json.data;
const code = ({ status, json }: Answer) => [status, json?.code];
const issue = (account: TestAccount, key: TestKey, instance = service) =>
  present(instance, jwt(key, {}, claimsOf(account)));
const use = async (token: string, instance = service) =>
  (await instance.request('GET', '/companies', { headers: bearer(token) })).status;
const inMs = (ms: number) => new Date(Date.now() + ms).toISOString();

/** A refusal that names the field and says why, and repeats nothing of what was sent. */
async function refused(account: TestAccount, body: Record<string, unknown>, field: string, message?: RegExp) {
  const answer = await add(account, body);
  expect([answer.status, answer.json?.code, answer.json?.errors]).toEqual([
    400,
    'validation_failed',
    [{ field, message: message ? expect.stringMatching(message) : expect.any(String) }],
  ]);
}

describe('registering', () => {
  it.each(ALGORITHMS)(
    'J4 %s as JWK and as PEM: answered and listed with thumbprint, algorithm and public members',
    async (alg) => {
      const account = await admin.createAccount(`Key ${alg}`);
      const [asJwk, asPem] = [makeKey(alg), makeKey(alg)];
      const expires_at = inMs(86_400_000);
      const made = await add(account, { label: 'blue', jwk: asJwk.jwk, alg, expires_at });
      const kid = await calculateJwkThumbprint(asJwk.jwk);
      expect([made.status, made.json]).toEqual([
        201,
        {
          id: expect.any(String),
          label: 'blue',
          kid,
          alg,
          jwk: { ...asJwk.jwk, kid, use: 'sig', alg },
          created_by: { type: 'user', id: admin.userId, name: 'admin' },
          created_at: expect.any(String),
          expires_at,
          revoked_at: null,
          last_token_issued_at: null,
        },
      ]);
      const second = await add(account, { pem: asPem.pem, alg });
      expect([second.status, second.json.kid]).toEqual([201, await calculateJwkThumbprint(asPem.jwk)]);
      expect(await list(account)).toEqual([made.json, second.json]);
      expect((await issue(account, asPem)).status).toBe(200);
      const [, used] = await list(account);
      expect(used.last_token_issued_at).toEqual(expect.any(String));
      const [event] = (await admin.get(`/audit-events?target_id=${made.json.id}`)).json.data;
      expect(event).toMatchObject({
        action: 'service_account.key.created',
        targets: [
          { id: account.id },
          { type: 'public_key', id: made.json.id, name: `blue (${alg} ${kid.slice(0, 8)}…)` },
        ],
      });
    },
  );

  it('J4 the algorithm: named by the request or by the key, else that of the type, and PS256 for RSA; a kid is kept', async () => {
    const account = await admin.createAccount('Algorithms');
    const rsa = () => makeKey('PS256');
    const cases: [Record<string, unknown>, string][] = [
      [{ jwk: rsa().jwk }, 'PS256'],
      [{ jwk: { ...rsa().jwk, alg: 'RS256', use: 'sig', key_ops: ['verify'], x5t: 'x', ext: true } }, 'RS256'],
      [{ pem: `\n${rsa().pem}\n`, alg: 'RS256' }, 'RS256'],
      [{ jwk: { ...makeKey('EdDSA').jwk, alg: 'Ed25519', kid: 'mine' }, alg: 'EdDSA' }, 'EdDSA'],
      [{ jwk: makeKey('EdDSA').jwk, alg: 'Ed25519' }, 'EdDSA'],
      [{ jwk: makeKey('ES256').jwk }, 'ES256'],
      [{ pem: CERTIFICATE }, 'ES256'],
    ];
    for (const [body, alg] of cases) {
      const made = await add(account, body);
      expect([made.status, made.json.alg, made.json.jwk?.kid]).toEqual([
        201,
        alg,
        (body.jwk as { kid?: string })?.kid ?? made.json.kid,
      ]);
      await admin.post(path(account, made.json.id));
    }
  });

  it('PJ-10 what is refused: no key, two keys, other types, other uses, weak ones, another algorithm', async () => {
    const account = await admin.createAccount('Refused');
    const { jwk, pem } = makeKey('ES256');
    const rsa = makeKey('RS256').jwk;
    const pairOf = (curve: string) =>
      generateKeyPairSync('ec', { namedCurve: curve }).publicKey.export({ format: 'jwk' });
    const spki = { type: 'spki', format: 'pem' } as const;
    await refused(account, {}, 'jwk', /one of the two/);
    await refused(account, { jwk, pem }, 'jwk', /one of the two/);
    for (const odd of [null, [], 'text', 7]) await refused(account, { jwk: odd }, 'jwk');
    for (const odd of [{}, { kty: 'EC' }, { ...jwk, x: 'AA' }, { ...jwk, y: jwk.x }, { ...jwk, x: 7 }, { kty: 'x' }])
      await refused(account, { jwk: odd }, 'jwk', /no public key/);
    for (const odd of ['', 'text', `${pem}${pem}`, pem.replace('PUBLIC', 'EC PUBLIC'), `x${pem}`, 7])
      await refused(account, { pem: odd }, 'pem');
    await refused(account, { pem: pem.replace(/\n[A-Za-z0-9+/=]+/, '\nAAAA') }, 'pem', /no public key/);
    for (const curve of ['P-384', 'P-521', 'secp256k1']) await refused(account, { jwk: pairOf(curve) }, 'jwk', /P-256/);
    for (const type of ['x25519', 'ed448', 'x448'] as const)
      await refused(account, { pem: generateKeyPairSync(type as 'x25519').publicKey.export(spki) }, 'pem', /Ed25519/);
    const pss = generateKeyPairSync('rsa-pss', { modulusLength: 2048 });
    await refused(account, { pem: pss.publicKey.export(spki) as string }, 'pem', /not confined to PSS/);
    for (const use of ['enc', '', null, 7]) await refused(account, { jwk: { ...jwk, use } }, 'jwk.use', /sig/);
    for (const key_ops of [[], ['sign'], 'verify', null])
      await refused(account, { jwk: { ...jwk, key_ops } }, 'jwk.key_ops', /verify/);
    for (const kid of ['', 7, null, 'x'.repeat(257)]) await refused(account, { jwk: { ...jwk, kid } }, 'jwk.kid');
    for (const bits of [1024, 2040]) await refused(account, { jwk: makeKey('RS256', bits).jwk }, 'jwk', /2048/);
    for (const e of ['AQ', 'Ag', 'AQAA', 'AgAB', '_____w', 'AQAAAAE'])
      await refused(account, { jwk: { ...rsa, e } }, 'jwk', /exponent/);
    await refused(account, { jwk: { ...rsa, n: Buffer.alloc(513, 0xff).toString('base64url') } }, 'jwk', /4096/);
    for (const alg of ['none', 'HS256', 'ES384', 'RS512', '', null, ['ES256']])
      await refused(account, { jwk, alg }, 'alg');
    for (const alg of ['EdDSA', 'PS256']) await refused(account, { jwk, alg }, 'alg', /must be ES256/);
    for (const alg of ['none', 'RS512', 'ES256', 7])
      await refused(account, { jwk: { ...rsa, alg } }, 'jwk.alg', /PS256 or RS256/);
    await refused(account, { jwk: { ...rsa, alg: 'PS256' }, alg: 'RS256' }, 'alg', /itself names/);
    for (const label of ['x'.repeat(129), 7, null]) await refused(account, { jwk, label }, 'label');
    for (const expires_at of [inMs(-1000), 'tomorrow', null]) await refused(account, { jwk, expires_at }, 'expires_at');
    expect(await list(account)).toEqual([]);
  });

  it('MD-07 a private or symmetric key is refused as what it is, and nowhere kept', async () => {
    const account = await admin.createAccount('Private');
    for (const alg of ALGORITHMS) {
      const { privateKey } = makeKey(alg);
      const jwk = privateKey.export({ format: 'jwk' });
      const pems = (
        alg === 'RS256' ? ['pkcs1', 'pkcs8'] : alg === 'ES256' ? ['sec1', 'pkcs8'] : ['pkcs8']
      ) as 'pkcs8'[];
      await refused(account, { jwk: { ...jwk } }, 'jwk', /private/);
      for (const type of pems)
        await refused(account, { pem: privateKey.export({ type, format: 'pem' }) }, 'pem', /private/);
      const both = `${privateKey.export({ type: 'pkcs8', format: 'pem' })}${makeKey(alg).pem}`;
      await refused(account, { pem: both }, 'pem', /private/);
    }
    await refused(account, { jwk: { kty: 'oct', k: 'AAAA' } }, 'jwk', /symmetric/);
    for (const member of ['p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'])
      await refused(account, { jwk: { ...makeKey('RS256').jwk, [member]: 'AA' } }, 'jwk', /private/);
  });

  it('PJ-25 an Ed25519 point of small order, for which anybody can sign', async () => {
    const account = await admin.createAccount('Small order');
    // The identity: R the identity, S zero is its signature of every message. OpenSSL itself says so.
    const identity = Buffer.from(`01${'00'.repeat(31)}`, 'hex');
    const jwk = { kty: 'OKP', crv: 'Ed25519', x: identity.toString('base64url') };
    const forged = Buffer.concat([identity, Buffer.alloc(32)]);
    expect(verify(null, Buffer.from('anything'), createPublicKey({ key: jwk, format: 'jwk' }), forged)).toBe(true);
    const points = [
      identity.toString('hex'),
      '00'.repeat(32),
      `${'00'.repeat(31)}80`,
      '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
      'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
      'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
      `ec${'ff'.repeat(30)}7f`,
      `ed${'ff'.repeat(31)}`,
      `ee${'ff'.repeat(30)}7f`,
    ];
    for (const point of points)
      await refused(
        account,
        { jwk: { ...jwk, x: Buffer.from(point, 'hex').toString('base64url') } },
        'jwk',
        /small order/,
      );
  });

  it('IN-05 nested names that are no members; IN-04 fields that are none; SS-05 jwks_uri', async () => {
    const account = await admin.createAccount('Hostile');
    const { jwk } = makeKey('EdDSA');
    for (const name of ['__proto__', 'constructor', 'toString']) {
      const body = `{"jwk":${JSON.stringify(jwk).replace('{', `{"${name}":{"kty":"oct"},`)}}`;
      const answer = await service.request('POST', `/api/v1${path(account)}`, {
        body,
        headers: { cookie: admin.cookie, 'content-type': 'application/json' },
      });
      expect(code(answer)).toEqual([400, 'malformed_request']);
    }
    expect(({} as { kty?: string }).kty).toBeUndefined();
    const odd = { prototype: { kty: 'oct' }, nested: { deep: [{ a: 1 }] }, 'x5t#S256': 'x' };
    const made = await add(account, { jwk: { ...odd, ...jwk } });
    expect([made.status, made.json.errors, Object.keys(made.json.jwk ?? {}).sort()]).toEqual([
      201,
      undefined,
      ['alg', 'crv', 'kid', 'kty', 'use', 'x'],
    ]);
    for (const field of ['jwks_uri', 'jwks', 'kid', 'public_jwk', 'id', 'organization_id', 'revoked_at'])
      await refused(account, { jwk: makeKey('EdDSA').jwk, [field]: 'https://example.com/jwks' }, field, /not a field/);
    for (const body of [
      { name: 'x', scopes: [], jwks_uri: 'https://example.com/jwks' },
      { name: 'x', scopes: [], jwks: { keys: [] } },
    ])
      expect(code(await admin.post('/service-accounts', body))).toEqual([400, 'validation_failed']);
  });

  it('J4 so many keys an account; the same key once, also when it was revoked; at another account it is another', async () => {
    const account = await admin.createAccount('Full');
    const key = makeKey('EdDSA');
    const { id } = await register(admin, account, key);
    expect(code(await add(account, { jwk: key.jwk }))).toEqual([409, 'key_exists']);
    expect(code(await add(account, { pem: key.pem, label: 'again' }))).toEqual([409, 'key_exists']);
    const answers = await Promise.all([1, 2, 3, 4].map(() => add(account, { jwk: makeKey('EdDSA').jwk })));
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 201, 422, 422]);
    expect(code(await add(account, { jwk: makeKey('EdDSA').jwk }))).toEqual([422, 'limit_reached']);
    await admin.createSecret(account.id); // each kind has its own limit
    await admin.post(path(account, id));
    expect(code(await add(account, { jwk: key.jwk }))).toEqual([409, 'key_exists']);
    expect((await add(account, { jwk: makeKey('EdDSA').jwk })).status).toBe(201);
    await register(admin, await admin.createAccount('Full too'), key);
  });

  it('SC-02 repeated under one Idempotency-Key: one key', async () => {
    const account = await admin.createAccount('Repeated');
    const { jwk } = makeKey('EdDSA');
    const headers = { 'idempotency-key': 'once' };
    const [first, second] = [
      await admin.post(path(account), { jwk }, headers),
      await admin.post(path(account), { jwk }, headers),
    ];
    expect([second.status, second.headers['idempotent-replayed'], second.json]).toEqual([201, 'true', first.json]);
    expect(await list(account)).toHaveLength(1);
  });

  it('E5 nobody registers a key for an account that holds more than they do', async () => {
    const account = await admin.createAccount('Strong', ['admin:access', 'companies:read']);
    const weak = await admin.createAccount('Weak', ['admin:access']);
    const token = (await service.token({ grant_type: 'client_credentials' }, weak.credentials)).json.access_token;
    const answer = await service.request('POST', `/api/v1${path(account)}`, {
      body: { jwk: makeKey('EdDSA').jwk },
      headers: bearer(token),
    });
    expect(code(answer)).toEqual([403, 'scope_not_held']);
  });
});

describe('ending', () => {
  it.each(['opaque', 'jwt'])(
    'Y5 a revoked key’s tokens (%s) are dead on every instance, its siblings’ alive; the receipt',
    async (token_format) => {
      const account = await admin.createAccount(`Cascade ${token_format}`, undefined, { token_format });
      const [key, sibling] = [makeKey('EdDSA'), makeKey('ES256')];
      const { id } = await register(admin, account, key);
      await register(admin, account, sibling);
      const tokens = async (of: TestKey) => [
        (await issue(account, of)).json.access_token,
        (await issue(account, of, other)).json.access_token,
      ];
      const [dead, alive] = [await tokens(key), await tokens(sibling)];
      const bySecret = (await service.token({ grant_type: 'client_credentials' }, account.credentials)).json
        .access_token;
      const first = await admin.post(path(account, id), { reason: 'laptop lost' });
      expect([first.status, first.json]).toEqual([
        200,
        {
          revocation_id: expect.stringMatching(/^\d+$/),
          revoked_at: expect.any(String),
          credential_id: id,
          tokens_expire_by: expect.any(String),
          instances: { live: 2, confirmed: 2 },
          waited_ms: expect.any(Number),
          bound_ms: 10_000,
        },
      ]);
      for (const instance of [service, other]) {
        for (const token of dead) expect(await use(token, instance)).toBe(401);
        for (const token of [...alive, bySecret]) expect(await use(token, instance)).toBe(200);
        expect((await issue(account, key, instance)).status).toBe(401);
        expect((await issue(account, sibling, instance)).status).toBe(200);
      }
      const [refusal] = (await admin.get(`/audit-events?action=client.authenticated&credential_id=${id}`)).json.data;
      expect(refusal).toMatchObject({ reason: 'revoked_public_key', targets: [{ id: account.id }] });
      const [published] = (await admin.get('/revocations?limit=1')).json.data;
      expect(published).toMatchObject({ kind: 'public_key', subject_id: id, reason: 'laptop lost' });
      const { waited_ms: _1, ...receipt } = first.json;
      const { waited_ms: _2, ...again } = (await admin.post(path(account, id), { reason: 'another' })).json;
      expect(again).toEqual(receipt);
      expect((await list(account))[0].revoked_at).toEqual(expect.any(String));
    },
  );

  it('CONTRACT §7: a key ends by itself, and no token of it lives longer', async () => {
    const account = await admin.createAccount('Short');
    const key = makeKey('EdDSA');
    await register(admin, account, key, { expires_at: inMs(10 * MINUTE) });
    const answer = await issue(account, key);
    expect(answer.json.expires_in).toBeGreaterThan(590);
    expect(answer.json.expires_in).toBeLessThanOrEqual(600);
    await at(service, 10 * MINUTE + 1000, async () => {
      expect(await use(answer.json.access_token)).toBe(401);
      const late = jwt(key, {}, claimsOf(account, { iat: undefined, exp: Math.floor(Date.now() / 1000) + 700 }));
      expect((await present(service, late)).json.error_description).toBe('Client authentication failed');
    });
    const [event] = (await admin.get(`/audit-events?action=client.authenticated&target_id=${account.id}`)).json.data;
    expect(event.reason).toBe('expired_public_key');
  });

  it('a secret is no key, and a key no secret: each is revoked at its own route', async () => {
    const account = await admin.createAccount('Kinds');
    const { id } = await register(admin, account, makeKey('EdDSA'));
    expect(code(await admin.post(path(account, account.secret.id)))).toEqual([404, 'not_found']);
    for (const verb of ['revoke', 'rotate'])
      expect(code(await admin.post(`/service-accounts/${account.id}/secrets/${id}/${verb}`))).toEqual([
        404,
        'not_found',
      ]);
    expect((await admin.get(`/service-accounts/${account.id}/secrets`)).json.data).toHaveLength(1);
    expect(await list(account)).toHaveLength(1);
  });

  it('lists page by page', async () => {
    const account = await admin.createAccount('Paged');
    const ids = [];
    for (let i = 0; i < 3; i++) ids.push((await register(admin, account, makeKey('EdDSA'))).id);
    const first = (await admin.get(`${path(account)}?limit=2`)).json;
    const next = (await admin.get(`${path(account)}?limit=2&cursor=${first.next_cursor}`)).json;
    expect([...first.data, ...next.data].map(({ id }: { id: string }) => id)).toEqual(ids);
    expect(next.next_cursor).toBeNull();
    expect((await admin.get(`/service-accounts/${account.id}/secrets?cursor=${first.next_cursor}`)).status).toBe(400);
  });
});
