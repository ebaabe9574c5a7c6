import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { claimsOf, expectNoToken, jwt, makeKey, now, present, REFUSED, register } from '../support/assertions.js';
import { eventsOf, expectToken, PATIENT } from '../support/oauth.js';
import { ISSUER, type TestAccount, TestService } from '../support/service.js';

const AUDIENCE =
  'aud of the client assertion must be one value: the issuer, or where this server accepts it the URL of this endpoint';
const LIFETIME = 'A client assertion may live five minutes at most: exp lies too far ahead';
const INCOMPLETE = 'The client assertion needs exp and jti, and its times in whole seconds';
const EXPIRED = 'The client assertion expired';
const FUTURE = 'The client assertion is not valid yet: iat or nbf lies in the future';

let service: TestService;
let account: TestAccount;
const key = makeKey('EdDSA');
const stranger = makeKey('EdDSA');

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  const admin = await service.signIn();
  await admin.createOrganization('Claims of assertions');
  account = await admin.createAccount('Ledger', ['companies:read']);
  await register(admin, account, key);
});
afterAll(() => service?.stop());

const refused = (assertions: readonly string[], description?: string, reason?: string) =>
  expectNoToken(service, account, assertions, description, reason);
const signed = (own: Record<string, unknown>, header: Record<string, unknown> = {}, by = key) =>
  jwt(by, header, claimsOf(account, own));

describe('the claims', () => {
  it('PJ-05 D13 other audiences, however near', async () => {
    const url = new URL(ISSUER);
    const near = [
      `${ISSUER}/`,
      ISSUER.toUpperCase(),
      `${url.protocol}//${url.hostname.toUpperCase()}:${url.port}`,
      `${ISSUER}.evil`,
      ISSUER.slice(0, -1),
      `https://${url.host}`,
      `${url.protocol}//${url.hostname}`,
      `${ISSUER}/oauth/token/`,
      `${ISSUER}/oauth/tokens`,
      `${ISSUER}/oauth/token?x=1`,
      `${ISSUER}/oauth/token#`,
      `${ISSUER}/api/oauth2/token`,
      `${ISSUER}/oauth/introspect`,
      account.client_id,
      '',
    ];
    const odd = [undefined, null, 7, {}, [], [ISSUER, ISSUER], [ISSUER, 'https://other.example'], [[ISSUER, 'x']], [7]];
    await refused(
      [...near, ...odd].map((aud) => signed({ aud })),
      AUDIENCE,
      'wrong_audience',
    );
    await refused([signed({ aud: 'x' }, {}, stranger)], REFUSED); // told to those alone who hold a key
  });

  it('PJ-16 exp missing, past, too far ahead, or no time', async () => {
    await refused(
      [undefined, null, 'string', `${now() + 60}`, true, [], -1, -now(), now() + 60.5].map((exp) => signed({ exp })),
      INCOMPLETE,
    );
    const raw = JSON.stringify(claimsOf(account, { exp: undefined })).slice(1);
    await refused([jwt(key, {}, `{"exp":1e308,${raw}`), jwt(key, {}, `{"exp":1e999,${raw}`)], INCOMPLETE);
    await refused(
      [0, now() - 31, now() - 3600].map((exp) => signed({ exp, iat: undefined })),
      EXPIRED,
    );
    const far = [now() + 335, now() + 3600, now() * 1000, 2 ** 31, Number.MAX_SAFE_INTEGER];
    await refused(
      far.map((exp) => signed({ exp, iat: undefined })),
      LIFETIME,
      'assertion_lives_too_long',
    );
    expectToken(await present(service, signed({ exp: now() - 20, iat: now() - 300 })), 'companies:read');
  });

  it('PJ-17 J4 iat and nbf in the future or too long ago; five minutes at most, as Authlib’s hour is told', async () => {
    await refused([signed({ iat: now() + 35 }), signed({ nbf: now() + 35 }), signed({ nbf: now() + 3600 })], FUTURE);
    await refused([signed({ iat: now() - 335 }), signed({ iat: now() - 30 }), signed({ iat: 0 })], LIFETIME);
    await refused([signed({ iat: now() - 3300, exp: now() + 300 }), signed({ exp: now() + 3600 })], LIFETIME);
    await refused(
      ['now', -1, 1.5, null].flatMap((odd) => [signed({ iat: odd }), signed({ nbf: odd })]),
      INCOMPLETE,
    );
    const at = now(); // once: a second that ends in between would be one more than rounding excuses
    const edge = { iat: at - 1, exp: at + 300 };
    for (const own of [{ iat: now() + 25, exp: now() + 60 }, { nbf: now() + 25 }, edge, { nbf: 0 }])
      expectToken(await present(service, signed(own)), 'companies:read');
  });

  it('RFC 7523 jti missing, or none that can be kept', async () => {
    await refused(
      [undefined, null, '', 7, ['a'], 'x'.repeat(257), 'a\u0000'].map((jti) => signed({ jti })),
      INCOMPLETE,
    );
    expectToken(await present(service, signed({ jti: 'é'.repeat(256) })), 'companies:read');
  });
});

it('PJ-32 AU-04 the log holds reason, algorithm, kid and hashes; no part of an assertion', async () => {
  const claims = claimsOf(account);
  const assertion = jwt(key, { kid: 'a-kid' }, claims);
  await present(service, assertion);
  const [event] = await eventsOf(service, 'client.authenticated');
  expect([event.reason, event.changes]).toEqual(['unknown_key', { alg: { to: 'EdDSA' }, kid: { to: 'a-kid' } }]);
  await refused([jwt(key, { kid: 'line\nbreak' }, claims)]);
  expect((await eventsOf(service, 'client.authenticated'))[0].changes).toEqual({ alg: { to: 'EdDSA' } });
  const rows = await service.database.query<{ row: string }>(
    'SELECT e::text AS row FROM audit_event e UNION ALL SELECT j::text FROM assertion_jti j',
  );
  const kept = rows.map(({ row }) => row).join('\n') + service.logs.join('');
  for (const piece of [...assertion.split('.'), claims.jti]) expect(kept).not.toContain(piece);
  expect(kept).not.toMatch(/eyJ[\w-]{8,}\./);
});
