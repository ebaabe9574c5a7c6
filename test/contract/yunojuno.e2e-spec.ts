import { afterAll, afterEach, beforeAll, expect, it, jest } from '@jest/globals';
import { Clock } from '../../src/kernel/clock.js';
import { eventsOf, expectOAuthError, expectToken, GRANT, PATIENT, urlOfService } from '../support/oauth.js';
import { basic, bearer, type Session, type TestAccount, TestService } from '../support/service.js';

/** The first source: hirer service accounts and `POST /oauth/token`. One test a promise, named after it. */
const ALL = 'companies:read companies:write employees:write';

let service: TestService;
let admin: Session;
let organization: { id: string; name: string };
let concierge: TestAccount;
let portal: TestAccount;

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  admin = await service.signIn();
  organization = await admin.createOrganization('Hirer');
  concierge = await admin.createAccount('Concierge');
  portal = await admin.createAccount('Procurement Portal');
});
afterAll(() => service?.stop());
afterEach(() => {
  jest.restoreAllMocks();
});

const tokenOf = async (account: TestAccount, secret = account.secret.secret) =>
  expectToken(await service.token(GRANT, { id: account.client_id, secret }), ALL);
const call = (token: string) => service.request('GET', '/companies', { headers: bearer(token) });

it('Y1 a service account acts under its client account, with permissions as a person has them, and without one', async () => {
  const listed = await admin.get('/service-accounts?sort=name');
  expect(listed.json.data.map(({ name }: { name: string }) => name)).toEqual(['Concierge', 'Procurement Portal']);
  const made = await service.request('POST', '/companies', {
    headers: bearer(await tokenOf(concierge)),
    body: { name: 'Acme Pte Ltd' },
  });
  expect([made.status, made.json.created_by]).toEqual([201, concierge.id]);
  const [event] = await eventsOf(service, 'company.created');
  expect(event).toMatchObject({
    organization_id: organization.id,
    actor_type: 'service_account',
    actor_id: concierge.id,
  });
  const forbidden = await service.request('GET', '/api/v1/service-accounts', {
    headers: bearer(await tokenOf(concierge)),
  });
  expect(forbidden.status).toBe(403);
});

it('Y2 its name stands in the audit log against every action, as it was at that moment', async () => {
  const renamed = await admin.createAccount('Compliance Sync');
  const token = await tokenOf(renamed);
  const create = (name: string) => service.request('POST', '/companies', { headers: bearer(token), body: { name } });
  expect((await create('before')).status).toBe(201);
  expect((await admin.patch(`/service-accounts/${renamed.id}`, { name: 'Compliance Engine' })).status).toBe(200);
  expect((await create('after')).status).toBe(201);
  const log = await admin.get(`/audit-events?actor_id=${renamed.id}`);
  const acts = log.json.data.map((event: { action: string; actor: { name: string } }) => [
    event.action,
    event.actor.name,
  ]);
  expect(acts).toEqual([
    ['company.created', 'Compliance Engine'],
    ['company.created', 'Compliance Sync'],
    ['token.issued', 'Compliance Sync'],
  ]);
});

it('Y3 a client ID, several secrets, and it can be disabled', async () => {
  const account = await admin.createAccount('Several');
  const second = await admin.createSecret(account.id, { label: 'second' });
  const tokens = [await tokenOf(account), await tokenOf(account, second.secret)];
  const listed = await admin.get(`/service-accounts/${account.id}/secrets`);
  expect(listed.json.data.map(({ id }: { id: string }) => id)).toEqual([account.secret.id, second.id]);
  expect((await admin.post(`/service-accounts/${account.id}/disable`)).status).toBe(200);
  for (const token of tokens) expect((await call(token)).status).toBe(401);
  for (const { secret } of [account.secret, second]) {
    expectOAuthError(await service.token(GRANT, { id: account.client_id, secret }), 401, 'invalid_client');
  }
});

it('Y4 rotation without downtime: add a second secret, move, retire the first', async () => {
  const account = await admin.createAccount('Rotating');
  const path = `/service-accounts/${account.id}/secrets`;
  const next = await admin.post(`${path}/${account.secret.id}/rotate`, { label: 'next' });
  expect(next.status).toBe(201);
  const [old, fresh] = [await tokenOf(account), await tokenOf(account, next.json.secret)];
  expect([(await call(old)).status, (await call(fresh)).status]).toEqual([200, 200]);
  expect((await admin.post(`${path}/${account.secret.id}/revoke`)).status).toBe(200);
  expect((await call(fresh)).status).toBe(200);
  await tokenOf(account, next.json.secret);
});

it('Y5 revoking a secret revokes every token that was issued on it, and none of its sibling', async () => {
  for (const token_format of ['opaque', 'jwt']) {
    const account = await admin.createAccount(`Breached ${token_format}`, ALL.split(' '), { token_format });
    const sibling = await admin.createSecret(account.id);
    const dead = [];
    for (let i = 0; i < 5; i++) dead.push(await tokenOf(account));
    const alive = await tokenOf(account, sibling.secret);
    for (const token of dead) expect((await call(token)).status).toBe(200);
    const receipt = await admin.post(`/service-accounts/${account.id}/secrets/${account.secret.id}/revoke`, {
      reason: 'leak',
    });
    expect([receipt.status, receipt.json.credential_id]).toEqual([200, account.secret.id]);
    for (const token of dead) expect((await call(token)).status).toBe(401);
    expect((await call(alive)).status).toBe(200);
    await tokenOf(account, sibling.secret);
  }
});

it('Y6 form or JSON, Basic or body, with or without scope', async () => {
  const { id, secret } = portal.credentials;
  const body = { ...GRANT, client_id: id, client_secret: secret };
  const url = `${urlOfService(service)}/oauth/token`;
  const post = async (parameters: Record<string, string>, json: boolean, header: boolean) => {
    const answer = await fetch(url, {
      method: 'POST',
      headers: {
        'content-type': json ? 'application/json' : 'application/x-www-form-urlencoded',
        ...(header ? { authorization: basic(portal.credentials) } : {}),
      },
      body: json ? JSON.stringify(parameters) : new URLSearchParams(parameters).toString(),
    });
    return [answer.status, ((await answer.json()) as { scope?: string }).scope];
  };
  for (const json of [true, false]) {
    expect(await post(GRANT, json, true)).toEqual([200, ALL]);
    expect(await post(body, json, false)).toEqual([200, ALL]);
    expect(await post({ ...GRANT, scope: 'companies:read' }, json, true)).toEqual([200, 'companies:read']);
    expect(await post({ ...body, scope: 'companies:read' }, json, false)).toEqual([200, 'companies:read']);
  }
  // What the reference page prints, to the letter: `{"grant_type":"string"}` without credentials.
  expect(await post({ grant_type: 'string' }, true, false)).toEqual([401, undefined]);
});

it('Y7 the token is opaque, prefixed with its environment, a Bearer token for 3600 s, without refresh token', async () => {
  const answer = await service.token(GRANT, concierge.credentials);
  expect(expectToken(answer, ALL, 3600)).toMatch(/^client_oa2_live_[A-Za-z0-9_-]+$/);
});

it('Y8 errors of RFC 6749 §5.2: invalid_client for whoever is not the client, invalid_grant for a wrong grant_type', async () => {
  const disabled = await admin.createAccount('Disabled');
  await admin.post(`/service-accounts/${disabled.id}/disable`);
  const revoked = await admin.createAccount('Revoked');
  await admin.post(`/service-accounts/${revoked.id}/secrets/${revoked.secret.id}/revoke`);
  const { id, secret } = concierge.credentials;
  const strangers = [{ id: 'unknown', secret }, { id, secret: 'wrong' }, disabled.credentials, revoked.credentials];
  for (const credentials of strangers) {
    const description = 'Client authentication failed';
    expectOAuthError(await service.token(GRANT, credentials), 401, 'invalid_client', description);
    const inBody = { ...GRANT, client_id: credentials.id, client_secret: credentials.secret };
    expectOAuthError(await service.token(inBody), 401, 'invalid_client', description);
  }
  expectOAuthError(await service.token({ grant_type: 'string' }, concierge.credentials), 400, 'invalid_grant');
  expectOAuthError(await service.token({}, concierge.credentials), 400, 'invalid_grant');
});

it('Y9 an expired token gets 401 with a header that says so', async () => {
  const token = await tokenOf(concierge);
  const clock = service.app.get(Clock);
  const now = clock.now.bind(clock);
  jest.spyOn(clock, 'now').mockImplementation(() => now() + 3_600_000);
  const answer = await call(token);
  expect(answer.status).toBe(401);
  expect(answer.headers['www-authenticate']).toBe(
    'Bearer realm="gatehouse", error="invalid_token", error_description="The access token expired"',
  );
});

it('Y11 the habits of the libraries that implement RFC 6749 §4.4', async () => {
  const { id, secret } = concierge.credentials;
  const encode = (text: string) =>
    text.replace(/[^A-Za-z0-9]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
  const authorization = `Basic ${Buffer.from(`${encode(id)}:${encode(secret)}`).toString('base64')}`;
  const habits: [Record<string, string>, Record<string, string>][] = [
    [{}, {}],
    [{}, { accept: 'text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2' }],
    [{}, { 'content-type': 'application/x-www-form-urlencoded;charset=UTF-8' }],
    [{ username: '', password: '', code: '', redirect_uri: '', scope: '' }, {}],
    [{ audience: 'https://api.example', resource: 'https://api.example', client_id: id }, {}],
  ];
  for (const [parameters, headers] of habits) {
    expectToken(await service.token({ ...GRANT, ...parameters }, undefined, { authorization, ...headers }), ALL);
  }
});
