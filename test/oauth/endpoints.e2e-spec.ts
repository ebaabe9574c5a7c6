import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { claimsOf, JWT_BEARER, jwt, makeKey, now, register, type TestKey } from '../support/assertions.js';
import { accessToken, eventsOf, expectOAuthError, GRANT, PATIENT, postForm } from '../support/oauth.js';
import { basic, type Session, type TestAccount, TestService } from '../support/service.js';

/** Every endpoint at which clients authenticate, as metadata names it. */
const ENDPOINTS = ['token', 'introspection', 'revocation'] as const;
type Endpoint = (typeof ENDPOINTS)[number];

let service: TestService;
let admin: Session;
let account: TestAccount;
let key: TestKey;
let metadata: Record<string, string & string[]>;

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  admin = await service.signIn();
  await admin.createOrganization('Endpoints');
  account = await admin.createAccount('Concierge', ['companies:read']);
  key = makeKey('ES256');
  await register(admin, account, key);
  metadata = (await service.request('GET', '/.well-known/oauth-authorization-server')).json;
});
afterAll(() => service?.stop());

interface Way {
  body?: Record<string, string>;
  authorization?: string;
}

const call = async (endpoint: Endpoint, { body = {}, authorization }: Way) => {
  const request: Record<string, string> = endpoint === 'token' ? GRANT : { token: await accessToken(service, account) };
  const path = new URL(metadata[`${endpoint}_endpoint`]).pathname;
  return postForm(service, path, { ...request, ...body }, undefined, authorization ? { authorization } : {});
};

/** A request that authenticates by each method. */
const WAYS: Record<string, (account: TestAccount) => Way> = {
  client_secret_basic: ({ credentials }) => ({ authorization: basic(credentials) }),
  client_secret_post: ({ credentials: { id, secret } }) => ({ body: { client_id: id, client_secret: secret } }),
  private_key_jwt: (account) => assertionOf(claimsOf(account)),
};
const assertionOf = (claims: Record<string, unknown>): Way => ({
  body: { client_assertion_type: JWT_BEARER, client_assertion: jwt(key, {}, claims) },
});

describe.each(ENDPOINTS)('CA-19 client authentication at %s', (endpoint) => {
  it('CA-20 goes by each method that metadata lists, and by no other', async () => {
    const listed = metadata[`${endpoint}_endpoint_auth_methods_supported`];
    expect(listed.filter((name) => name !== 'Bearer')).toEqual(metadata.token_endpoint_auth_methods_supported);
    expect(listed.filter((name) => name !== 'Bearer').sort()).toEqual(Object.keys(WAYS).sort());
    for (const way of Object.values(WAYS)) expect((await call(endpoint, way(account))).status).toBe(200);
    const others: Way[] = [
      { body: { client_id: account.client_id } }, // `none`
      { authorization: `Digest username="${account.client_id}", realm="gatehouse", nonce="x", response="x"` },
    ];
    for (const way of others) expectOAuthError(await call(endpoint, way), 401, 'invalid_client');
  });

  it('PJ-19 takes an assertion once, wherever it was used before', async () => {
    const once = assertionOf(claimsOf(account));
    expect((await call(endpoint, once)).status).toBe(200);
    for (const at of ENDPOINTS) expectOAuthError(await call(at, once), 401, 'invalid_client');
  });

  it('CA-19 gives the same answers and the same record as the token endpoint', async () => {
    const { id, secret } = account.credentials;
    const restricted = await admin.createAccount(`Basic only ${endpoint}`, ['companies:read'], {
      client_auth_methods: ['client_secret_basic'],
    });
    const disabled = await admin.createAccount(`Disabled ${endpoint}`, ['companies:read']);
    await admin.post(`/service-accounts/${disabled.id}/disable`);
    await register(admin, restricted, key);
    const revoked = await admin.createAccount(`Revoked ${endpoint}`, ['companies:read']);
    await admin.post(`/service-accounts/${revoked.id}/secrets/${revoked.secret.id}/revoke`);
    const unknown = `sa_${'0'.repeat(22)}`;
    const ways: Way[] = [
      {},
      { authorization: basic({ id, secret: 'wrong' }) },
      { authorization: basic({ id: unknown, secret }) },
      { authorization: 'Basic !!' },
      { authorization: `${basic({ id, secret })}, Basic eDp5` },
      { authorization: basic({ id, secret }), body: { client_secret: secret } },
      { authorization: basic({ id, secret }), body: { client_id: unknown } },
      { body: { client_id: id, client_secret: secret.replace('_live_', '_test_') } },
      WAYS.client_secret_post(restricted),
      WAYS.client_secret_basic(disabled),
      WAYS.client_secret_post(revoked),
      WAYS.private_key_jwt(restricted),
      assertionOf(claimsOf(account, { aud: 'https://other.example' })),
      assertionOf(claimsOf(account, { exp: now() - 600, iat: now() - 900 })),
      { body: { ...assertionOf(claimsOf(account)).body, client_secret: secret } },
      { body: { client_assertion_type: JWT_BEARER } },
    ];
    for (const way of ways) {
      const told = [];
      for (const at of ['token', endpoint] as const) {
        const { status, text, headers } = await call(at, way);
        const [{ reason, actor_name, credential_id, targets }] = await eventsOf(service, 'client.authenticated');
        const record = status === 401 ? { reason, actor_name, credential_id, targets } : undefined;
        told.push({ status, text, challenge: headers['www-authenticate'], cache: headers['cache-control'], record });
      }
      expect(told[0].status).toBeGreaterThanOrEqual(400);
      expect(told[1]).toEqual(told[0]);
    }
  });
});
