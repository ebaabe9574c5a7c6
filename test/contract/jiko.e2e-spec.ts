import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { accessToken, expectOAuthError, expectToken, GRANT, PATIENT } from '../support/oauth.js';
import { bearer, type Session, type TestAccount, TestService } from '../support/service.js';

/** The third source: JWTs of 900 seconds, and a sandbox beside the live environment. */
let live: TestService;
let sandbox: TestService;
let database: TestDatabase;
let account: TestAccount;
let sandboxed: TestAccount;

beforeAll(async () => {
  database = await createDatabase();
  live = await TestService.start(PATIENT);
  sandbox = await TestService.start({ ...PATIENT, ENVIRONMENT: 'test' }, database);
  account = await accountAt(await live.signIn());
  sandboxed = await accountAt(await sandbox.signIn());
});
afterAll(async () => {
  await sandbox?.stop();
  await live?.stop();
  await database?.drop();
});

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
