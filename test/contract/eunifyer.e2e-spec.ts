import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { expectOAuthError, expectToken, PATIENT, urlOfService } from '../support/oauth.js';
import { join } from '../support/people.js';
import { makeOwn } from '../support/personal-access-tokens.js';
import { type Answer, bearer, ISSUER, type Session, type TestAccount, TestService } from '../support/service.js';

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

it('E3 the sample: a token of the realm’s path lists, provisions and staffs the organizations beneath its own', async () => {
  const API_BASE = `${urlOfService(service)}/api/v1`;
  const { access_token } = await grant(SCOPE);
  const call = async (method: string, path: string, body?: object) => {
    const answer = await fetch(API_BASE + path, {
      method,
      headers: {
        Authorization: `Bearer ${access_token}`,
        ...(body && { 'Content-Type': 'application/json' }),
      },
      body: body && JSON.stringify(body),
    });
    return { status: answer.status, json: (await answer.json()) as { id: string; data: unknown[] } };
  };
  expect(await call('GET', '/partner/orgs')).toEqual({ status: 200, json: { data: [], next_cursor: null } });
  const made = await call('POST', '/partner/orgs', { name: 'Customer of the reseller' });
  expect([made.status, made.json]).toEqual([201, expect.objectContaining({ name: 'Customer of the reseller' })]);
  expect((await call('GET', '/partner/orgs')).json.data).toEqual([made.json]);
  const users = `/partner/orgs/${made.json.id}/users`;
  const person = { email: 'boss@customer.example', name: 'Boss', password: 'a password for the boss', role: 'admin' };
  const boss = await call('POST', users, person);
  expect(boss.status).toBe(201);
  expect((await call('GET', users)).json.data).toEqual([boss.json]);
  const signedIn = await service.signIn(person);
  expect((await signedIn.get('/session')).json.organization.name).toBe('Customer of the reseller');
  expect((await call('PATCH', `/partner/orgs/${made.json.id}`, { disabled: true })).status).toBe(200);
  expect((await signedIn.get('/session')).status).toBe(401);
  // A token for reading alone reads, and nothing else.
  const reading = (await grant('partner:orgs:read')).access_token as string;
  const statuses = await Promise.all(
    ['GET', 'POST'].map(async (method) => {
      const headers = bearer(reading);
      const body = method === 'POST' ? { name: 'x' } : undefined;
      return (await service.request(method, '/api/v1/partner/orgs', { headers, body })).status;
    }),
  );
  expect(statuses).toEqual([200, 403]);
});

it('E5 a platform superadmin registers a cross-organization account; an organization’s admin makes one for its own', async () => {
  const platform = await service.signIn();
  const cross = await platform.createAccount('Cross-organization', SCOPE.split(' '), { token_format: 'jwt' });
  const own = (await admin.get('/session')).json.organization.id as string;
  expect((await admin.post('/partner/orgs', { name: 'Beneath the reseller' })).status).toBe(201);
  const names = async (token: unknown) => {
    const answer = await service.request('GET', '/api/v1/partner/orgs', { headers: bearer(token as string) });
    return answer.json.data.map(({ name }: { name: string }) => name) as string[];
  };
  const everywhere = await names((await grant(SCOPE, cross.credentials)).access_token);
  expect(everywhere).toEqual(expect.arrayContaining(['Reseller', 'Beneath the reseller']));
  expect(everywhere).not.toContain('Platform');

  const boss = await join(admin, 'boss@reseller.example');
  const made = await boss.createAccount('The organization’s own', SCOPE.split(' '), { token_format: 'jwt' });
  const beneath = await names((await grant(SCOPE, made.credentials)).access_token);
  expect(beneath).toContain('Beneath the reseller');
  expect(beneath).not.toContain('Reseller');
  // Its admin cannot register one beyond the organization.
  const beyond = await boss.post('/service-accounts', { name: 'Beyond', scopes: ['platform:admin'] });
  expect([beyond.status, beyond.json.code]).toEqual([422, 'scope_beyond_ceiling']);
  expect((await boss.get(`/organizations/${own}`)).status).toBe(403);
});

it('E1 D9 every configured realm has token, certs and configuration; one that is not configured is no path', async () => {
  const [served, other] = [
    ['eunify', 'gatehouse'],
    ['eunify2', 'Eunify', 'master', '%65unifx'],
  ];
  const ask = async (realm: string) => {
    const get = (path: string) => service.request('GET', `/realms/${realm}${path}`);
    const token = await service.request('POST', `/realms/${realm}/protocol/openid-connect/token`, {
      body: new URLSearchParams({
        grant_type: 'client_credentials',
        client_id: account.credentials.id,
        client_secret: account.credentials.secret,
      }).toString(),
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
    });
    return [
      token,
      await get('/protocol/openid-connect/certs'),
      await get('/.well-known/openid-configuration'),
      await get('/.well-known/oauth-authorization-server'),
    ];
  };
  for (const realm of served) {
    const [token, certs, ...configurations] = await ask(realm);
    expectToken(token, SCOPE, 900);
    const { kid } = decodeProtectedHeader(token.json.access_token);
    expect(certs.json.keys.map((key: { kid: string }) => key.kid)).toContain(kid);
    for (const { status, json } of configurations)
      expect([status, json.issuer, json.token_endpoint]).toEqual([200, ISSUER, `${ISSUER}/oauth/token`]);
  }
  for (const realm of other) {
    const answers = await ask(realm);
    expect([realm, ...answers.map(({ status }) => status)]).toEqual([realm, 404, 404, 404, 404]);
    expect(answers[0].text).not.toContain('access_token');
  }
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

/** The documentation's sample requests, by whoever has these headers. */
async function sample(headers: Record<string, string>, method: string, path: string, body?: unknown) {
  const answer = await fetch(urlOfService(service) + path, {
    method,
    headers: { ...headers, ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) },
    body: JSON.stringify(body),
  });
  return { status: answer.status, json: (await answer.json()) as Answer['json'] };
}
const PRINCIPALS = '/api/v1/developer/service-principals';
const CREATE = { name: 'MSP Provisioning Bot', description: '…', scopes: ['partner:orgs:write'] };
const ADD = { name: 'prod-key-1', scopes: ['partner:orgs:write'] };

it.each(['a first-party admin session', 'a superadmin PAT'])(
  'E4 E5 E7 the sample requests, by %s; the token works as a bearer token',
  async (by) => {
    const root = await service.signIn();
    let headers: Record<string, string>;
    if (by === 'a superadmin PAT') {
      const superadmin = await makeOwn(root, ['platform:admin', 'admin:access', 'partner:orgs:write', 'audit:read']);
      const { id } = await root.createOrganization(`Managed by ${by}`);
      headers = { ...bearer(superadmin.token), 'X-Organization-Id': id };
    } else {
      await root.createOrganization(`Managed by ${by}`);
      headers = { cookie: root.cookie };
    }
    expect(await sample(headers, 'GET', PRINCIPALS)).toEqual({ status: 200, json: { data: [], next_cursor: null } });
    const principal = await sample(headers, 'POST', PRINCIPALS, CREATE);
    expect(principal).toMatchObject({ status: 201, json: { ...CREATE, id: expect.any(String), disabled_at: null } });
    // They are the service accounts: each is in both lists.
    const listed = { status: 200, json: { data: [principal.json], next_cursor: null } };
    expect(await sample(headers, 'GET', PRINCIPALS)).toEqual(listed);
    expect(await sample(headers, 'GET', '/api/v1/service-accounts')).toEqual(listed);

    const tokens = `${PRINCIPALS}/${principal.json.id}/tokens`;
    const added = await sample(headers, 'POST', tokens, ADD);
    const { token, ...shown } = added.json;
    expect([added.status, token]).toEqual([201, expect.stringMatching(/^client_pat_live_/)]);
    expect(shown).toEqual({
      id: expect.any(String),
      ...ADD,
      hint: token.slice(-4),
      created_by: { type: 'user', id: expect.any(String), name: 'Admin' },
      created_at: expect.any(String),
      expires_at: expect.any(String),
      revoked_at: null,
    });
    expect(await sample(headers, 'GET', tokens)).toEqual({
      status: 200,
      json: { data: [{ ...shown, status: 'active' }], next_cursor: null },
    });
    // Good for what it was made for, and for nothing else.
    const asked = await sample(bearer(token), 'GET', '/companies');
    expect([asked.status, asked.json.code]).toEqual([403, 'insufficient_scope']);
    expect((await sample(bearer(token), 'GET', '/api/v1/scopes')).status).toBe(200);
    const beyond = await sample(headers, 'POST', tokens, { ...ADD, scopes: ['partner:orgs:read'] });
    expect([beyond.status, beyond.json.code]).toEqual([403, 'scope_not_held']);
  },
);

it('E4 these routes need admin:access', async () => {
  for (const [method, path, body] of [
    ['GET', PRINCIPALS],
    ['POST', PRINCIPALS, CREATE],
    ['GET', `${PRINCIPALS}/${account.id}/tokens`],
    ['POST', `${PRINCIPALS}/${account.id}/tokens`, ADD],
  ] as const) {
    const token = (await grant()).access_token as string;
    const answer = await sample(bearer(token), method, path, body);
    expect([path, answer.status, answer.json.detail]).toEqual([path, 403, 'This needs admin:access']);
  }
});

it('E7 a token of a principal and one of a person, side by side; each under its own owner’s name', async () => {
  const root = await service.signIn();
  await root.createOrganization('Two owners');
  const bob = await join(root, 'bob@two.example');
  const bot = await bob.createAccount('Bot', ['companies:write']);
  const path = `${PRINCIPALS}/${bot.id}/tokens`;
  const theirs = (await sample({ cookie: bob.cookie }, 'POST', path, { name: 'ci', scopes: ['companies:write'] })).json;
  const own = await makeOwn(bob, ['companies:write']);
  for (const [token, type, name] of [
    [theirs.token, 'service_account', 'Bot'],
    [own.token, 'user', 'bob'],
  ]) {
    const made = await sample(bearer(token), 'POST', '/companies', { name: `By ${name}` });
    expect(made.status).toBe(201);
    const { data } = (await bob.get(`/audit-events?target_id=${made.json.id}`)).json;
    expect(data[0].actor).toMatchObject({ type, name });
  }
});

it('E8 a principal’s token is rotated: the next is added, the old one revoked, and it is invalid from then on', async () => {
  const bot = await admin.createAccount('Rotating', ['companies:read']);
  const tokens = `${PRINCIPALS}/${bot.id}/tokens`;
  const add = async (name: string) =>
    (await sample({ cookie: admin.cookie }, 'POST', tokens, { name, scopes: ['companies:read'] })).json;
  const [old, next] = [await add('prod-key-1'), await add('prod-key-2')];
  const status = async ({ token }: { token: string }) => (await sample(bearer(token), 'GET', '/companies')).status;
  expect([await status(old), await status(next)]).toEqual([200, 200]);
  const receipt = await sample({ cookie: admin.cookie }, 'POST', `${tokens}/${old.id}/revoke`, { reason: 'rotation' });
  expect(receipt).toMatchObject({ status: 200, json: { credential_id: old.id } });
  expect([await status(old), await status(next)]).toEqual([401, 200]);
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
