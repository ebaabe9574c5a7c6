import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { claimsOf, jwt, makeKey, part, register, signatureOf } from '../support/assertions.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { accessToken, expectOAuthError, expectToken, GRANT, PATIENT } from '../support/oauth.js';
import { bearer, ISSUER, type Session, type TestAccount, TestService } from '../support/service.js';

/** The third source: JWTs of 900 seconds, and a sandbox beside the live environment. */
let live: TestService;
let sandbox: TestService;
let database: TestDatabase;
let admin: Session;
let sandboxAdmin: Session;
let account: TestAccount;
let sandboxed: TestAccount;
const SANDBOX = 'https://sandbox.example';
const key = makeKey('EdDSA');

beforeAll(async () => {
  database = await createDatabase();
  live = await TestService.start(PATIENT);
  sandbox = await TestService.start({ ...PATIENT, ENVIRONMENT: 'test', ISSUER_URL: SANDBOX }, database);
  admin = await live.signIn();
  sandboxAdmin = await sandbox.signIn();
  account = await accountAt(admin);
  sandboxed = await accountAt(sandboxAdmin);
});
afterAll(async () => {
  await sandbox?.stop();
  await live?.stop();
  await database?.drop();
});

/** The source's sample code, call by call: its claims, its header, its parameters in their order. `now` is in whole seconds. */
function sample(
  service: TestService,
  clientId: string,
  signer = key,
  { url = `${ISSUER}/api/oauth2/token`, alg = 'EdDSA' } = {},
) {
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: clientId,
    sub: clientId,
    aud: url,
    iat: now,
    exp: now + 300, // 5 minutes
    jti: randomBytes(16).toString('hex'),
  };
  // PyJWT writes `{"alg": …, "typ": "JWT"}` in this order.
  const data = `${part({ alg, typ: 'JWT' })}.${part(claims)}`;
  const form = new URLSearchParams();
  form.set('grant_type', 'client_credentials');
  form.set('client_id', clientId);
  form.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer');
  form.set('client_assertion', `${data}.${signatureOf(signer, data).toString('base64url')}`);
  form.set('scope', 'pockets.read');
  return service.request('POST', '/api/oauth2/token', {
    headers: {
      'content-type': 'application/x-www-form-urlencoded',
      accept: '*/*',
      'user-agent': 'python-requests/2.32.3',
    },
    body: form.toString(),
  });
}

async function accountAt(admin: Session): Promise<TestAccount> {
  for (const name of ['pockets.read', 'transfers.read']) {
    expect((await admin.post('/scopes', { name, description: `May use ${name}` })).status).toBe(201);
  }
  await admin.createOrganization('Fintech');
  return admin.createAccount('Ledger', ['pockets.read', 'transfers.read', 'companies:read'], {
    token_format: 'jwt',
    token_ttl_seconds: 900,
  });
}

it('J1 J2 the sample code gets a token: EdDSA as its code has it, PS256 as its header, RS256 and ES256 beside them', async () => {
  for (const alg of ['EdDSA', 'PS256', 'RS256', 'ES256'] as const) {
    const signer = alg === 'EdDSA' ? key : makeKey(alg);
    await register(admin, account, signer, { alg });
    const token = expectToken(await sample(live, account.client_id, signer, { alg }), 'pockets.read', 900);
    expect(JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString())).toMatchObject({
      iss: ISSUER,
      sub: account.id,
      client_id: account.client_id,
      scope: 'pockets.read',
    });
  }
  // The request as it is printed asks for two scopes; left out, all are granted.
  const printed = {
    scope: 'pockets.read transfers.read',
    client_assertion: jwt(key, { typ: 'JWT' }, claimsOf(account)),
  };
  const assertion = { client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer', ...printed };
  const answer = await live.request('POST', '/api/oauth2/token', {
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({ ...GRANT, client_id: account.client_id, ...assertion }).toString(),
  });
  expectToken(answer, 'pockets.read transfers.read', 900);
});

it('J4 several keys: the next one is registered, traffic moves, the old one is revoked with its tokens', async () => {
  const rotating = await admin.createAccount('Rotating', ['pockets.read', 'companies:read'], { token_format: 'jwt' });
  const [old, next] = [makeKey('EdDSA'), makeKey('EdDSA')];
  const { id } = await register(admin, rotating, old, { label: '2026' });
  const ask = async (signer: typeof key) => (await sample(live, rotating.client_id, signer)).json;
  const early = (await ask(old)).access_token;
  expect((await ask(next)).error).toBe('invalid_client');
  await register(admin, rotating, next, { label: '2027' });
  const late = (await ask(next)).access_token;
  expect((await ask(old)).access_token).toEqual(expect.any(String));
  expect((await admin.post(`/service-accounts/${rotating.id}/keys/${id}/revoke`)).status).toBe(200);
  expect((await ask(old)).error).toBe('invalid_client');
  expect((await ask(next)).access_token).toEqual(expect.any(String));
  const use = async (token: string) => {
    const answer = await live.request('GET', '/companies', { headers: bearer(token) });
    return [answer.status, /was revoked/.test(String(answer.headers['www-authenticate']))];
  };
  expect([await use(early), await use(late)]).toEqual([
    [401, true],
    [403, false], // alive, and without that scope
  ]);
});

it('J3 a JWT for 900 s, Bearer, no refresh token, from /api/oauth2/token', async () => {
  const answer = await live.request('POST', '/api/oauth2/token', {
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({
      ...GRANT,
      client_id: account.client_id,
      client_secret: account.credentials.secret,
      scope: 'pockets.read transfers.read',
    }).toString(),
  });
  expect(expectToken(answer, 'pockets.read transfers.read', 900)).toMatch(/^eyJ/);
});

it('J5 an assertion for the sandbox is none for live, and the reverse, whoever has the same key at both', async () => {
  await register(sandboxAdmin, sandboxed, key);
  const urls = { live: `${ISSUER}/api/oauth2/token`, sandbox: `${SANDBOX}/api/oauth2/token` };
  expectToken(await sample(sandbox, sandboxed.client_id, key, { url: urls.sandbox }), 'pockets.read', 900);
  const crossed = await sample(sandbox, sandboxed.client_id, key, { url: urls.live });
  expectOAuthError(crossed, 401, 'invalid_client', /^aud of the client assertion/);
  expectOAuthError(await sample(live, account.client_id, key, { url: urls.sandbox }), 401, 'invalid_client', /^aud/);
});

it('J5 live and test refuse each other’s secrets and tokens, and say so', async () => {
  expect(account.secret.secret).toMatch(/^client_sec_live_/);
  expect(sandboxed.secret.secret).toMatch(/^client_sec_test_/);
  for (const [service, own, other] of [
    [live, account, sandboxed],
    [sandbox, sandboxed, account],
  ] as const) {
    expectToken(await service.token(GRANT, own.credentials), 'companies:read pockets.read transfers.read', 900);
    for (const id of [own.client_id, other.client_id]) {
      const answer = await service.token(GRANT, { id, secret: other.credentials.secret });
      expectOAuthError(answer, 401, 'invalid_client', 'The secret is of another environment');
    }
  }
  for (const [service, other, environment] of [
    [live, sandbox, 'test'],
    [sandbox, live, 'live'],
  ] as const) {
    const admin = await other.signIn();
    await admin.createOrganization('Opaque');
    const token = await accessToken(other, await admin.createAccount('Opaque', ['companies:read']));
    expect(token.startsWith(`client_oa2_${environment}_`)).toBe(true);
    const answer = await service.request('GET', '/companies', { headers: bearer(token) });
    expect([answer.status, answer.headers['www-authenticate']]).toEqual([
      401,
      'Bearer realm="gatehouse", error="invalid_token", error_description="The access token is of another environment"',
    ]);
  }
});
