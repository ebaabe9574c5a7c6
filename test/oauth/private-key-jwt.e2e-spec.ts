import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { SingleUses } from '../../src/changes/single-use.js';
import { Unavailable } from '../../src/kernel/problem.js';
import { ClientAuthentication } from '../../src/oauth/client-authentication.js';
import {
  ALGORITHMS,
  claimsOf,
  JWT_BEARER,
  jwt,
  makeKey,
  now,
  present,
  register,
  type TestKey,
} from '../support/assertions.js';
import { eventsOf, expectOAuthError, expectToken, GRANT, issuedTo, PATIENT } from '../support/oauth.js';
import { at } from '../support/people.js';
import { basic, bearer, ISSUER, type Session, type TestAccount, TestService } from '../support/service.js';

const REFUSED = 'Client authentication failed';
const REPLAYED = 'The client assertion was used before: sign a new one, with a new jti, for each request';
const SCOPE = 'companies:read';

let service: TestService;
let other: TestService;
let admin: Session;
let account: TestAccount;
let keys: Record<(typeof ALGORITHMS)[number], TestKey>;
let key: TestKey;

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  other = await TestService.start(PATIENT, service.database);
  admin = await service.signIn();
  await admin.createOrganization('Assertions');
  account = await admin.createAccount('Ledger', [SCOPE]);
  keys = Object.fromEntries(ALGORITHMS.map((alg) => [alg, makeKey(alg)])) as typeof keys;
  for (const alg of ALGORITHMS) await register(admin, account, keys[alg], { alg });
  key = keys.EdDSA;
});
afterAll(async () => {
  await other?.stop();
  await service?.stop();
});

describe('what is accepted', () => {
  it.each(ALGORITHMS)(
    'PJ-01 %s, for the issuer, as client-authentication+jwt; PJ-02 without typ and as JWT',
    async (alg) => {
      for (const typ of [
        'client-authentication+jwt',
        undefined,
        'JWT',
        'jwt',
        'application/client-authentication+jwt',
      ]) {
        const header = typ === undefined ? {} : { typ };
        expectToken(await present(service, jwt(keys[alg], header, claimsOf(account))), SCOPE);
      }
      const body = JSON.stringify({
        ...GRANT,
        client_assertion_type: JWT_BEARER,
        client_assertion: jwt(keys[alg], {}, claimsOf(account)),
      });
      const asJson = { headers: { 'content-type': 'application/json' }, body };
      expectToken(await service.request('POST', '/oauth/token', asJson), SCOPE);
    },
  );

  it('CLIENTS: Ed25519 by its own name; client_id given or left out; nbf; an array of one audience', async () => {
    const { client_id } = account;
    expectToken(await present(service, jwt(key, { alg: 'Ed25519' }, claimsOf(account))), SCOPE);
    expectToken(await present(service, jwt(key, {}, claimsOf(account)), { client_id }), SCOPE);
    expectToken(await present(service, jwt(key, {}, claimsOf(account, { nbf: now(), exp: now() + 60 }))), SCOPE);
    expectToken(await present(service, jwt(key, {}, claimsOf(account, { aud: [ISSUER], iat: undefined }))), SCOPE);
  });

  it('CLIENTS: a kid is the thumbprint, the credential’s id, or the one that the key came with', async () => {
    const named = await admin.createAccount('Named', [SCOPE]);
    const own = makeKey('ES256');
    const made = await register(admin, named, own, { jwk: { ...own.jwk, kid: 'my key/1' } });
    await register(admin, named, makeKey('ES256'));
    for (const kid of [made.kid, made.id, 'my key/1', undefined])
      expectToken(await present(service, jwt(own, kid ? { kid } : {}, claimsOf(named))), SCOPE);
    for (const kid of ['my key/2', 'MY KEY/1', `${made.kid} `])
      expectOAuthError(await present(service, jwt(own, { kid }, claimsOf(named))), 401, 'invalid_client', REFUSED);
  });

  it('J3 issuance is recorded with the key that proved it, and the jti as a hash alone', async () => {
    const claims = claimsOf(account);
    const token = expectToken(await present(service, jwt(key, {}, claims)), SCOPE);
    const [event] = await eventsOf(service, 'token.issued');
    const { data } = (await admin.get(`/service-accounts/${account.id}/keys`)).json;
    expect(event.credential_id).toBe(data.find(({ alg }: { alg: string }) => alg === 'EdDSA').id);
    expect(event.changes).toMatchObject({ jti_sha256: { to: expect.stringMatching(/^[0-9a-f]{64}$/) } });
    expect(JSON.stringify(event)).not.toContain(claims.jti);
    expect((await service.request('GET', '/companies', { headers: bearer(token) })).status).toBe(200);
  });
});

describe('one use', () => {
  it('PJ-19 a second time: 401, on this instance and on another, though the first was refused its scope', async () => {
    const assertion = jwt(key, {}, claimsOf(account));
    expectToken(await present(service, assertion), SCOPE);
    for (const instance of [service, other])
      expectOAuthError(await present(instance, assertion), 401, 'invalid_client', REPLAYED);
    const [event] = await eventsOf(service, 'client.authenticated');
    expect(event).toMatchObject({
      reason: 'replayed_assertion',
      actor_type: 'anonymous',
      targets: [{ id: account.id }],
      changes: { jti_sha256: { to: expect.any(String) } },
    });
    expect(event.credential_id).not.toBeNull();
    // The jti counts, not the text: signed anew, with other claims, it is the same one.
    const claims = claimsOf(account);
    const beyond = await present(service, jwt(key, {}, claims), { scope: 'companies:write' });
    expectOAuthError(beyond, 400, 'invalid_scope');
    const again = jwt(keys.ES256, {}, { ...claims, exp: claims.exp - 7 });
    expectOAuthError(await present(other, again), 401, 'invalid_client', REPLAYED);
    // And what was refused, refuses no less when it is refused again.
    const twice = await present(service, jwt(key, {}, claims), { scope: 'companies:write' });
    expectOAuthError(twice, 401, 'invalid_client', REPLAYED);
  });

  it('PJ-19 I5 many at once, on two instances: one token, among secrets that are none the worse', async () => {
    for (let round = 0; round < 5; round++) {
      const before = await issuedTo(service, account);
      const assertions = [1, 2, 3].map(() => jwt(key, {}, claimsOf(account)));
      const asked = Array.from({ length: 48 }, (_, i) =>
        i % 4 === 3
          ? (i % 8 === 3 ? service : other).token(GRANT, account.credentials)
          : present(i % 8 < 4 ? service : other, assertions[i % 4]),
      );
      const statuses = (await Promise.all(asked)).map(({ status }) => status);
      expect(statuses.filter((_, i) => i % 4 === 3)).toEqual(Array(12).fill(200));
      for (const nth of [0, 1, 2]) {
        const mine = statuses.filter((_, i) => i % 4 === nth);
        expect(mine.sort()).toEqual([200, ...Array(11).fill(401)]);
      }
      expect(await issuedTo(service, account)).toBe(before + 12 + 3);
    }
  });

  it('CA-19 I5 where nothing is issued, authenticating uses it up by itself: one of many, on two instances', async () => {
    const request = (client_assertion: string) => ({
      resources: [],
      parameters: { client_assertion_type: JWT_BEARER, client_assertion },
      http: {
        headers: {},
        raw: { rawHeaders: [] },
        url: '/oauth/elsewhere',
        id: randomUUID(),
        ip: '127.0.0.1',
      } as never,
    });
    const authenticate = (instance: TestService, assertion: string) =>
      instance.app
        .get(ClientAuthentication)
        .authenticate(request(assertion))
        .then(
          ({ client }) => client.id,
          (error) => (error instanceof Unavailable ? 'unavailable' : error.description),
        );
    for (let round = 0; round < 5; round++) {
      const assertion = jwt(key, {}, claimsOf(account, { aud: `${ISSUER}/oauth/elsewhere` }));
      const asked = Array.from({ length: 12 }, (_, i) => authenticate(i % 2 ? service : other, assertion));
      expect((await Promise.all(asked)).sort()).toEqual([account.id, ...Array(11).fill(REPLAYED)].sort());
    }
    const spent = jwt(key, {}, claimsOf(account));
    expect(await authenticate(other, spent)).toBe(account.id);
    expectOAuthError(await present(service, spent), 401, 'invalid_client', REPLAYED);
    const issued = jwt(key, {}, claimsOf(account));
    expectToken(await present(service, issued), SCOPE);
    expect(await authenticate(other, issued)).toBe(REPLAYED);
    await service.database.query('ALTER TABLE assertion_jti ADD CONSTRAINT full_check CHECK (false) NOT VALID');
    try {
      expect(await authenticate(service, jwt(key, {}, claimsOf(account)))).toBe('unavailable'); // PJ-23
    } finally {
      await service.database.query('ALTER TABLE assertion_jti DROP CONSTRAINT full_check');
    }
  });

  it('PJ-22 the same jti of two accounts, in two organizations', async () => {
    const platform = await service.signIn();
    await platform.createOrganization('Another');
    const foreign = await platform.createAccount('Foreign', [SCOPE]);
    const sibling = await admin.createAccount('Sibling', [SCOPE]);
    await register(platform, foreign, key); // a key may stand at two accounts: whoever holds it is both
    await register(admin, sibling, key);
    const jti = 'counter-1';
    for (const one of [account, foreign, sibling]) {
      expectToken(await present(service, jwt(key, {}, claimsOf(one, { jti }))), SCOPE);
      expectOAuthError(await present(other, jwt(key, {}, claimsOf(one, { jti }))), 401, 'invalid_client', REPLAYED);
    }
  });

  it('PJ-23 the store cannot be written: 503 and no token; afterwards the same assertion is good', async () => {
    const assertion = jwt(key, {}, claimsOf(account));
    const before = await issuedTo(service, account);
    await service.database.query('ALTER TABLE assertion_jti ADD CONSTRAINT full_check CHECK (false) NOT VALID');
    try {
      const answer = await present(service, assertion);
      expect(answer.headers['retry-after']).toBe('1');
      expectOAuthError(answer, 503, 'temporarily_unavailable');
      expectToken(await service.token(GRANT, account.credentials), SCOPE); // secrets use nothing up
    } finally {
      await service.database.query('ALTER TABLE assertion_jti DROP CONSTRAINT full_check');
    }
    expect(await issuedTo(service, account)).toBe(before + 1);
    expectToken(await present(service, assertion), SCOPE);
  });

  it('RL-08 a row lasts until no instance could take its assertion any more, and no longer', async () => {
    const rows = () =>
      service.database.query<{ id: string; left: string }>(
        `SELECT service_account_id AS id, extract(epoch FROM expires_at - now()) AS left FROM assertion_jti`,
      );
    await service.database.query('DELETE FROM assertion_jti');
    expectToken(await present(service, jwt(key, {}, claimsOf(account))), SCOPE);
    const [row] = await rows();
    expect(row.id).toBe(account.id);
    expect(Math.abs(Number(row.left) - 330)).toBeLessThan(5); // exp, and the skew allowed
    await service.app.get(SingleUses).prune();
    expect(await rows()).toHaveLength(1);
    const age = (seconds: number) =>
      service.database.query(`UPDATE assertion_jti SET expires_at = now() - make_interval(secs => $1)`, [seconds]);
    await age(30);
    await service.app.get(SingleUses).prune();
    expect(await rows()).toHaveLength(1);
    await age(90);
    await service.database.query(
      `INSERT INTO assertion_jti SELECT $1, int4send(n), now() - interval '1 hour' FROM generate_series(1, 12000) n`,
      [account.id],
    );
    await service.app.get(SingleUses).prune();
    expect(await rows()).toEqual([]);
  });
});

describe('time', () => {
  it('CK-01 clocks may be apart by 25 s and not by 35 s; exp is never extended by more', async () => {
    const within = async (ahead: number, own: Record<string, unknown> = {}) =>
      at(service, ahead * 1000, async () => (await present(service, jwt(key, {}, claimsOf(account, own)))).status);
    expect(await within(25)).toBe(200);
    expect(await within(35)).toBe(200); // its five minutes are shorter there, and not over
    expect(await within(-25)).toBe(200);
    expect(await within(-35)).toBe(401); // iat lies 35 s ahead
    expect(await within(-35, { iat: undefined })).toBe(401); // and exp five minutes and 35 s
    expect(await within(325)).toBe(200);
    expect(await within(335)).toBe(401);
  });
});

describe('the policy of an account', () => {
  it('CA-08 held to private_key_jwt: judged on what was verified, whatever else stands in the request', async () => {
    const held = await admin.createAccount('Held', [SCOPE], { client_auth_methods: ['private_key_jwt'] });
    await register(admin, held, key);
    expectToken(await present(service, jwt(key, {}, claimsOf(held))), SCOPE);
    const assertion = jwt(makeKey('EdDSA'), {}, claimsOf(held));
    const { id, secret } = held.credentials;
    const tries: [Record<string, string>, Record<string, string>, number][] = [
      [{}, { authorization: basic(held.credentials) }, 401],
      [{ client_id: id, client_secret: secret }, {}, 401],
      [{ assertion }, { authorization: basic(held.credentials) }, 401],
      [{}, { authorization: basic(held.credentials), 'client-assertion': assertion }, 401],
      [
        { client_assertion: assertion, client_assertion_type: JWT_BEARER },
        { authorization: basic(held.credentials) },
        400,
      ],
      [{ client_assertion: jwt(key, {}, claimsOf(held)) }, { authorization: basic(held.credentials) }, 400],
    ];
    for (const [parameters, headers, status] of tries)
      expect((await service.token({ ...GRANT, ...parameters }, undefined, headers)).status).toBe(status);
    const never = await admin.createAccount('Never', [SCOPE], { client_auth_methods: ['client_secret_basic'] });
    await register(admin, never, key);
    expectOAuthError(await present(service, jwt(key, {}, claimsOf(never))), 401, 'invalid_client', REFUSED);
  });
});
