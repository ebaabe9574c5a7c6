import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { claimsOf, JWT_BEARER, jwt, makeKey, present, register } from '../support/assertions.js';
import { accessToken, expectOAuthError, expectToken, GRANT, PATIENT } from '../support/oauth.js';
import { basic, bearer, ISSUER, type Session, type TestAccount, TestService } from '../support/service.js';

/** Where the sources disagree, what was decided. D1's switch and D21 have their tests in test/oauth. */
const ALL = 'companies:read companies:write employees:write';
const FORM = { 'content-type': 'application/x-www-form-urlencoded' };

let service: TestService;
let admin: Session;
let organization: { id: string };
let account: TestAccount;
const key = makeKey('EdDSA');

beforeAll(async () => {
  service = await TestService.start({ ...PATIENT, REALMS: 'gatehouse,eunify' });
  admin = await service.signIn();
  organization = await admin.createOrganization('Decisions');
  account = await admin.createAccount('Concierge');
});
afterAll(() => service?.stop());

const get = (token: string, url = '/companies') => service.request('GET', url, { headers: bearer(token) });

it('D1 grant_type missing or unknown is invalid_grant, with a description that tells which', async () => {
  expectOAuthError(await service.token('', account.credentials), 400, 'invalid_grant', /^grant_type is missing/);
  const unknown = await service.token({ grant_type: 'password' }, account.credentials);
  expectOAuthError(unknown, 400, 'invalid_grant', /^grant_type is not one that this server supports/);
});

it('D2 the lifetime is the account’s, 60 to 86 400 s, and expires_in the true one', async () => {
  for (const [token_ttl_seconds, status] of [
    [59, 400],
    [60, 201],
    [900, 201],
    [86_400, 201],
    [86_401, 400],
  ]) {
    const name = `Lives ${token_ttl_seconds}`;
    const made = await admin.post('/service-accounts', { name, scopes: [], token_ttl_seconds, token_format: 'jwt' });
    expect([token_ttl_seconds, made.status]).toEqual([token_ttl_seconds, status]);
    if (status !== 201) continue;
    const { secret } = await admin.createSecret(made.json.id);
    const token = expectToken(await service.token(GRANT, { id: made.json.client_id, secret }), '', token_ttl_seconds);
    const claims = decodeJwt(token);
    expect(claims.exp! - claims.iat!).toBe(token_ttl_seconds);
  }
  expect((await admin.get(`/service-accounts/${account.id}`)).json.token_ttl_seconds).toBe(3600);
});

it('D3 Bearer is said, and heard in any case', async () => {
  const { json } = await service.token(GRANT, account.credentials);
  expect(json.token_type).toBe('Bearer');
  for (const scheme of ['Bearer', 'bearer', 'BEARER']) {
    const headers = { authorization: `${scheme} ${json.access_token}` };
    expect((await service.request('GET', '/companies', { headers })).status).toBe(200);
  }
});

it('D4 opaque by default, JWT by a setting, the same guarantees for both', async () => {
  const jwt = await admin.createAccount('JWT', ALL.split(' '), { token_format: 'jwt' });
  const [opaqueToken, jwtToken] = [await accessToken(service, account), await accessToken(service, jwt)];
  expect(opaqueToken).toMatch(/^client_oa2_live_/);
  expect(decodeProtectedHeader(jwtToken)).toEqual({ alg: 'ES256', typ: 'at+jwt', kid: expect.any(String) });
  expect(decodeJwt(jwtToken)).toEqual({
    iss: ISSUER,
    sub: jwt.id,
    client_id: jwt.client_id,
    aud: ISSUER,
    iat: expect.any(Number),
    exp: expect.any(Number),
    jti: expect.any(String),
    scope: ALL,
    org_id: organization.id,
    credential_id: jwt.secret.id,
    gatehouse_epochs: { era: expect.any(Number), organization: 0, account: 0, credential: 0 },
  });
  expect([(await get(opaqueToken)).status, (await get(jwtToken)).status]).toEqual([200, 200]);
  // A setting of the account, so it changes what is issued next; what was issued goes on.
  expect((await admin.patch(`/service-accounts/${jwt.id}`, { token_format: 'opaque' })).status).toBe(200);
  expect(await accessToken(service, jwt)).toMatch(/^client_oa2_live_/);
  expect((await get(jwtToken)).status).toBe(200);
  await admin.post(`/service-accounts/${jwt.id}/secrets/${jwt.secret.id}/revoke`);
  expect((await get(jwtToken)).status).toBe(401);
});

it('D5 form and JSON; another type is 415; a repeated parameter 400', async () => {
  const post = (body: string, type: string) =>
    service.request('POST', '/oauth/token', {
      body,
      headers: { authorization: basic(account.credentials), 'content-type': type },
    });
  expectToken(await post('grant_type=client_credentials', FORM['content-type']), ALL);
  expectToken(await post('{"grant_type":"client_credentials"}', 'application/json'), ALL);
  expectOAuthError(await post('grant_type=client_credentials', 'text/plain'), 415, 'invalid_request');
  const repeated = await post('grant_type=client_credentials&grant_type=client_credentials', FORM['content-type']);
  expectOAuthError(repeated, 400, 'invalid_request');
});

it('D6 Basic, body and assertion on one account, one a request; an account may be held to one', async () => {
  const { id, secret } = account.credentials;
  const body = { ...GRANT, client_id: id, client_secret: secret };
  expectToken(await service.token(GRANT, account.credentials), ALL);
  expectToken(await service.token(body), ALL);
  await register(admin, account, key);
  expectToken(await present(service, jwt(key, {}, claimsOf(account))), ALL);
  expectOAuthError(await service.token(body, account.credentials), 400, 'invalid_request');
  const signed = { client_assertion_type: JWT_BEARER, client_assertion: jwt(key, {}, claimsOf(account)) };
  expectOAuthError(await service.token({ ...body, ...signed }), 400, 'invalid_request');
  expectOAuthError(await service.token({ ...GRANT, ...signed }, account.credentials), 400, 'invalid_request');
  for (const [method, basicStatus, bodyStatus, signedStatus] of [
    ['client_secret_basic', 200, 401, 401],
    ['client_secret_post', 401, 200, 401],
    ['private_key_jwt', 401, 401, 200],
  ] as const) {
    const held = await admin.createAccount(`Held to ${method}`, ['companies:read'], { client_auth_methods: [method] });
    const inBody = { ...GRANT, client_id: held.client_id, client_secret: held.credentials.secret };
    expect((await service.token(GRANT, held.credentials)).status).toBe(basicStatus);
    expect((await service.token(inBody)).status).toBe(bodyStatus);
    await register(admin, held, key);
    expect((await present(service, jwt(key, {}, claimsOf(held)))).status).toBe(signedStatus);
  }
});

it('D7 scope stands in every answer, the same as asked for or not', async () => {
  expectToken(await service.token(GRANT, account.credentials), ALL);
  expectToken(await service.token({ ...GRANT, scope: ALL }, account.credentials), ALL);
  expectToken(await service.token({ ...GRANT, scope: 'companies:read' }, account.credentials), 'companies:read');
});

it('D8 left out, scope is what is assigned within the ceiling; beyond it is refused, never narrowed', async () => {
  const platform = await service.signIn();
  const made = await platform.createOrganization('Beneath a ceiling');
  const capped = await platform.createAccount('Capped');
  expectToken(await service.token(GRANT, capped.credentials), ALL);
  const lowered = await platform.patch(`/organizations/${made.id}`, {
    scope_ceiling: ['companies:read', 'audit:read'],
  });
  expect(lowered.status).toBe(200);
  expectToken(await service.token(GRANT, capped.credentials), 'companies:read');
  for (const scope of ['companies:read companies:write', 'companies:write', 'audit:read']) {
    expectOAuthError(await service.token({ ...GRANT, scope }, capped.credentials), 400, 'invalid_scope');
  }
});

it('D9 one endpoint under every path of the list, with and without a slash at the end', async () => {
  const paths = [
    '/oauth/token',
    '/api/oauth2/token',
    '/realms/gatehouse/protocol/openid-connect/token',
    '/realms/eunify/protocol/openid-connect/token',
  ];
  for (const path of paths.flatMap((one) => [one, `${one}/`])) {
    const post = (authorization: string, body: string) =>
      service.request('POST', path, { body, headers: { ...FORM, authorization } });
    expectToken(await post(basic(account.credentials), 'grant_type=client_credentials'), ALL);
    expectOAuthError(await post('Basic eDp5', 'grant_type=client_credentials'), 401, 'invalid_client');
    expectOAuthError(await post(basic(account.credentials), 'a=1&a=2'), 400, 'invalid_request');
    expectOAuthError(await service.request('GET', path), 405, 'invalid_request');
  }
  const token = await accessToken(service, account);
  expect((await get(token, '/companies/')).status).toBe(200);
  const certs = await service.request('GET', '/realms/eunify/protocol/openid-connect/certs/');
  expect(certs.json).toEqual((await service.request('GET', '/.well-known/jwks.json')).json);
  expect((await service.request('GET', '/realms/eunify/.well-known/openid-configuration')).json.issuer).toBe(ISSUER);
});

it('D10 a:b:c, a.b and a-b are scope names', async () => {
  const platform = await service.signIn();
  const names = ['partner:sites:read', 'pockets.read', 'user-read-private'];
  for (const name of names) {
    expect((await platform.post('/scopes', { name, description: `May ${name}` })).status).toBe(201);
  }
  await platform.createOrganization('Spelling');
  const spelled = await platform.createAccount('Spelled', names);
  expectToken(await service.token({ ...GRANT, scope: names.join(' ') }, spelled.credentials), names.join(' '));
  for (const name of ['a b', 'a"b', 'a\\b', '', 'é']) {
    const refused = await (await service.signIn()).post('/scopes', { name, description: 'x' });
    expect([name, refused.status]).toEqual([name, 400]);
  }
});

it('D11 never a refresh token', async () => {
  for (const scope of ['offline_access', 'companies:read offline_access']) {
    expectOAuthError(await service.token({ ...GRANT, scope }, account.credentials), 400, 'invalid_scope');
  }
  expect((await service.token(GRANT, account.credentials)).json).not.toHaveProperty('refresh_token');
});

it('D13 aud is the issuer, or the very URL of the endpoint that was called; ASSERTION_AUDIENCE=issuer takes the issuer alone', async () => {
  const narrow = await TestService.start({ ...PATIENT, ASSERTION_AUDIENCE: 'issuer' }, service.database);
  const held = await admin.createAccount('Audiences', ['companies:read']);
  await register(admin, held, key);
  const aud = (value: unknown) => jwt(key, {}, claimsOf(held, { aud: value }));
  const paths = [
    '/oauth/token',
    '/oauth/token/',
    '/api/oauth2/token',
    '/realms/gatehouse/protocol/openid-connect/token',
  ];
  for (const path of paths) {
    for (const value of [ISSUER, [ISSUER]]) {
      expectToken(await present(service, aud(value), {}, path), 'companies:read');
      expectToken(await present(narrow, aud(value), {}, path), 'companies:read');
    }
    expectToken(await present(service, aud(ISSUER + path), {}, path), 'companies:read');
    expectToken(await present(service, aud([ISSUER + path]), {}, path), 'companies:read');
    expectOAuthError(await present(narrow, aud(ISSUER + path), {}, path), 401, 'invalid_client', /aud/);
    for (const other of [...paths.filter((one) => one !== path), `${path}x`])
      expectOAuthError(await present(service, aud(ISSUER + other), {}, path), 401, 'invalid_client', /aud/);
  }
  // What a request says of its host has no say.
  const spoofed = await service.request('POST', '/oauth/token', {
    headers: { ...FORM, host: 'evil.example', 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'https' },
    body: new URLSearchParams({
      ...GRANT,
      client_assertion_type: JWT_BEARER,
      client_assertion: aud('https://evil.example/oauth/token'),
    }).toString(),
  });
  expectOAuthError(spoofed, 401, 'invalid_client', /aud/);
  await narrow.stop();
});

it('D14 D15 a list of companies, with the fields of the source, at both paths', async () => {
  const token = await accessToken(service, await admin.createAccount('Lister'));
  await service.request('POST', '/companies', { headers: bearer(token), body: { name: 'Only a name' } });
  const company = {
    id: expect.any(String),
    name: 'Only a name',
    uen_code: null,
    sector: null,
    entity_type: null,
    entity_sub_type: null,
    work_locations: [],
    departments: [],
    created_by: expect.any(String),
    created_at: expect.any(String),
    updated_at: expect.any(String),
  };
  for (const url of ['/companies', '/api/v1/companies']) {
    const { status, json } = await get(token, url);
    expect([status, json]).toEqual([200, { data: [company], next_cursor: null }]);
  }
});

it('D16 every client is confidential: without its secret there is no token', async () => {
  expectOAuthError(await service.token({ ...GRANT, client_id: account.client_id }), 401, 'invalid_client');
  const metadata = await service.request('GET', '/.well-known/oauth-authorization-server');
  expect(metadata.json.token_endpoint_auth_methods_supported).not.toContain('none');
});

it('D17 a company is its organization’s; a token reaches what its account created, a person all', async () => {
  const creator = await admin.createAccount('Creator');
  const token = await accessToken(service, creator);
  const made = await service.request('POST', '/companies', { headers: bearer(token), body: { name: 'Stays' } });
  expect(made.json.created_by).toBe(creator.id);
  const path = `/companies/${made.json.id}`;
  expect((await get(await accessToken(service, account), path)).status).toBe(404);
  expect((await admin.get(path)).json.name).toBe('Stays');
  expect((await admin.delete(`/service-accounts/${creator.id}`)).status).toBe(204);
  expect((await admin.get(path)).json).toMatchObject({ name: 'Stays', created_by: creator.id });
  const elsewhere = await service.signIn();
  await elsewhere.createOrganization('Elsewhere');
  expect((await elsewhere.get(path)).status).toBe(404);
});

it('D19 a disabled organization ends its own tokens, not those of organizations beneath it', async () => {
  const platform = await service.signIn();
  const above = await platform.createOrganization('Above');
  const own = await platform.createAccount('Own', ['companies:read']);
  await platform.createOrganization('Beneath', { parent_id: above.id });
  const beneath = await platform.createAccount('Beneath', ['companies:read']);
  const tokens = [await accessToken(service, own), await accessToken(service, beneath)];
  const statuses = async () => [(await get(tokens[0])).status, (await get(tokens[1])).status];
  expect(await statuses()).toEqual([200, 200]);
  expect((await platform.patch(`/organizations/${above.id}`, { disabled: true })).status).toBe(200);
  expect(await statuses()).toEqual([401, 200]);
  expectOAuthError(await service.token(GRANT, own.credentials), 401, 'invalid_client');
  expectToken(await service.token(GRANT, beneath.credentials), 'companies:read');
  expect((await platform.patch(`/organizations/${above.id}`, { disabled: false })).status).toBe(200);
  expect(await statuses()).toEqual([401, 200]);
  expectToken(await service.token(GRANT, own.credentials), 'companies:read');
});

it('D20 deletion leaves a tombstone: the name may be used again, the client ID never, the events keep both', async () => {
  const first = await admin.createAccount('Phoenix', ['companies:read']);
  const token = await accessToken(service, first);
  expect((await admin.delete(`/service-accounts/${first.id}`)).status).toBe(204);
  expect((await get(token)).status).toBe(401);
  expectOAuthError(await service.token(GRANT, first.credentials), 401, 'invalid_client');
  const second = await admin.createAccount('Phoenix', ['companies:read']);
  expect(second.client_id).not.toBe(first.client_id);
  expectToken(await service.token(GRANT, second.credentials), 'companies:read');
  expect((await get(token)).status).toBe(401);
  const log = await admin.get(`/audit-events?actor_id=${first.id}&action=token.issued&outcome=success`);
  expect(log.json.data.map(({ actor }: { actor: object }) => actor)).toMatchObject([{ id: first.id, name: 'Phoenix' }]);
});

it('D22 scope=openid is ignored on every path and never granted', async () => {
  for (const path of ['/oauth/token', '/api/oauth2/token', '/realms/eunify/protocol/openid-connect/token']) {
    for (const [scope, granted] of [
      ['openid', ALL],
      ['openid companies:read', 'companies:read'],
    ]) {
      const answer = await service.request('POST', path, {
        body: new URLSearchParams({ ...GRANT, scope }).toString(),
        headers: { ...FORM, authorization: basic(account.credentials) },
      });
      expectToken(answer, granted);
    }
  }
});
