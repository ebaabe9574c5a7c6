import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { decodeJwt } from 'jose';
import { expectOAuthError, expectToken, PATIENT, urlOfService } from '../support/oauth.js';
import { bearer, type Session, type TestAccount, TestService } from '../support/service.js';

/** The second source: service accounts behind a Keycloak-shaped path, with JWTs of 900 seconds. */
const PATH = '/realms/eunify/protocol/openid-connect/token';
const SCOPE = 'partner:orgs:read partner:orgs:write partner:users:write';

let service: TestService;
let admin: Session;
let account: TestAccount;

beforeAll(async () => {
  service = await TestService.start({ ...PATIENT, REALMS: 'eunify,gatehouse' });
  admin = await service.signIn();
  await admin.createOrganization('Reseller');
  account = await admin.createAccount('MSP Provisioning Bot', SCOPE.split(' '), {
    token_format: 'jwt',
    token_ttl_seconds: 900,
  });
});
afterAll(() => service?.stop());

/** As the documentation's sample has it. */
async function grant(scope?: string, { id, secret } = account.credentials): Promise<Record<string, unknown>> {
  const tokenRes = await fetch(urlOfService(service) + PATH, {
    method: 'POST',
    headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({
      grant_type: 'client_credentials',
      client_id: id,
      client_secret: secret,
      ...(scope === undefined ? {} : { scope }),
    }),
  });
  return { status: tokenRes.status, ...((await tokenRes.json()) as object) };
}

it('E1 the realm’s token path, credentials in the body, scopes separated by spaces; all of them when left out', async () => {
  expect(await grant(SCOPE)).toMatchObject({ status: 200, scope: SCOPE });
  expect(await grant()).toMatchObject({ status: 200, scope: SCOPE });
  expect(await grant('partner:orgs:write')).toMatchObject({ status: 200, scope: 'partner:orgs:write' });
});

it('E2 a JWT for 900 s, Bearer, the scope echoed, no refresh token', async () => {
  const { status, ...body } = await grant(SCOPE);
  expect(status).toBe(200);
  expect(body).toEqual({
    access_token: expect.stringMatching(/^eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/),
    expires_in: 900,
    token_type: 'Bearer',
    scope: SCOPE,
  });
  const claims = decodeJwt(body.access_token as string);
  expect(claims.exp! - claims.iat!).toBe(900);
  expect(claims).toMatchObject({
    scope: SCOPE,
    client_id: account.client_id,
    sub: account.id,
    credential_id: account.secret.id,
  });
});

it('E8 after a rotation the old secret’s tokens are invalid, and the new one’s are not', async () => {
  const reader = await admin.createAccount('Reader', ['companies:read'], { token_format: 'jwt' });
  const rotated = await admin.post(`/service-accounts/${reader.id}/secrets/${reader.secret.id}/rotate`);
  const next = { id: reader.client_id, secret: rotated.json.secret };
  const old = (await grant(undefined, reader.credentials)).access_token as string;
  const fresh = (await grant(undefined, next)).access_token as string;
  const status = async (token: string) =>
    (await service.request('GET', '/companies', { headers: bearer(token) })).status;
  expect([await status(old), await status(fresh)]).toEqual([200, 200]);
  await admin.post(`/service-accounts/${reader.id}/secrets/${reader.secret.id}/revoke`);
  expect([await status(old), await status(fresh)]).toEqual([401, 200]);
  // The narrowest scopes: one that was never assigned is refused.
  const beyond = await service.token({ grant_type: 'client_credentials', scope: 'partner:orgs:read' }, next);
  expectOAuthError(beyond, 400, 'invalid_scope');
});

it('E10 who asks again 30 s before the end gets a second token, and the first is good to its end', async () => {
  const reader = await admin.createAccount('Caching', ['companies:read']);
  const first = expectToken(
    await service.token({ grant_type: 'client_credentials' }, reader.credentials),
    'companies:read',
  );
  const second = expectToken(
    await service.token({ grant_type: 'client_credentials' }, reader.credentials),
    'companies:read',
  );
  expect(second).not.toBe(first);
  for (const token of [first, second]) {
    expect((await service.request('GET', '/companies', { headers: bearer(token) })).status).toBe(200);
  }
});
