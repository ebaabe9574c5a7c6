import { Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { decodeJwt } from 'jose';
import { loadConfig } from '../../src/config/config.js';
import {
  eventsOf,
  expectInvalidToken,
  expectOAuthError,
  expectToken,
  GRANT,
  introspect,
  issuedTo,
  PATIENT,
  postForm,
} from '../support/oauth.js';
import { type Answer, basic, bearer, ISSUER, type Session, type TestAccount, TestService } from '../support/service.js';

const ORDERS = 'https://orders.example.com/v1';
const PAYROLL = 'urn:example:payroll';
const LEDGER = 'https://ledger.example.com';
const WRONG_AUDIENCE = 'The access token is for another audience';

let service: TestService;
let admin: Session;
let account: TestAccount;
let jwt: TestAccount;

beforeAll(async () => {
  service = await TestService.start({ ...PATIENT, RESOURCES: `${ORDERS}, ${PAYROLL},${LEDGER}` });
  admin = await service.signIn();
  await admin.createOrganization('Elsewhere');
  await admin.createAccount('Bookkeeper', ['companies:read'], { resources: [LEDGER] });
  await admin.createOrganization('Resources');
  account = await admin.createAccount('Opaque', ['companies:read'], { resources: [PAYROLL, ORDERS, ORDERS] });
  jwt = await admin.createAccount('JWT', ['companies:read'], { resources: [ORDERS, PAYROLL], token_format: 'jwt' });
});
afterAll(() => service?.stop());

const code = ({ status, json }: Answer) => [status, json?.code];
const ask = (resources: string[], of = account, on = service) =>
  postForm(
    on,
    '/oauth/token',
    [...Object.entries(GRANT), ...resources.map((resource): [string, string] => ['resource', resource])],
    of.credentials,
  );
const tokenFor = async (resources: string[], of = account) => expectToken(await ask(resources, of), 'companies:read');
const audienceOf = async (token: string) => (await introspect(service, account, token)).json.aud;
const use = (token: string) => service.request('GET', '/companies', { headers: bearer(token) });

describe('what an account may ask for', () => {
  it('CONTRACT §8: resources are set, changed, listed and recorded', async () => {
    const made = await admin.post('/service-accounts', {
      name: 'Set',
      scopes: [],
      resources: [PAYROLL, ORDERS, PAYROLL],
    });
    expect([made.status, made.json.resources]).toEqual([201, [ORDERS, PAYROLL]]);
    const path = `/service-accounts/${made.json.id}`;
    const changed = await admin.patch(path, { resources: [LEDGER] });
    expect([changed.status, changed.json.resources]).toEqual([200, [LEDGER]]);
    expect((await admin.patch(path, { description: 'x' })).json.resources).toEqual([LEDGER]);
    expect((await admin.get(path)).json.resources).toEqual([LEDGER]);
    const listed = (await admin.get('/service-accounts?search=Set')).json.data;
    expect(listed.map(({ resources }: { resources: string[] }) => resources)).toEqual([[LEDGER]]);
    const events = await eventsOf(service, 'service_account.updated', 2);
    expect(events[1].changes).toEqual({ resources: { from: [ORDERS, PAYROLL], to: [LEDGER] } });
    const [creation] = (await admin.get(`/audit-events?target_id=${made.json.id}&action=service_account.created`)).json
      .data;
    expect(creation.changes.resources).toEqual({ to: [ORDERS, PAYROLL] });
  });

  it('SC-07 who does not hold what an account holds opens it no further way in and no further audience', async () => {
    const weak = await admin.createAccount('Weak', ['admin:access'], { resources: [] });
    const headers = bearer((await service.token(GRANT, weak.credentials)).json.access_token);
    const strong = await admin.createAccount('Strong', ['companies:read'], {
      client_auth_methods: ['private_key_jwt'],
      resources: [ORDERS],
    });
    const path = `/api/v1/service-accounts/${strong.id}`;
    const change = async (body: Record<string, unknown>) =>
      code(await service.request('PATCH', path, { body, headers }));
    const refused = [403, 'scope_not_held'];
    expect(await change({ resources: [ORDERS, PAYROLL] })).toEqual(refused);
    expect(await change({ client_auth_methods: ['private_key_jwt', 'client_secret_post'] })).toEqual(refused);
    expect(await change({ client_auth_methods: null })).toEqual(refused);
    expect((await admin.get(`/service-accounts/${strong.id}`)).json).toMatchObject({
      client_auth_methods: ['private_key_jwt'],
      resources: [ORDERS],
    });
    // What closes, or leaves as it is, anybody may who manages accounts; and whoever holds it all may open.
    expect(await change({ resources: [ORDERS], client_auth_methods: ['private_key_jwt'] })).toEqual([200, undefined]);
    expect(await change({ resources: [] })).toEqual([200, undefined]);
    const opened = await admin.patch(`/service-accounts/${strong.id}`, {
      client_auth_methods: null,
      resources: [LEDGER],
    });
    expect([opened.status, opened.json.client_auth_methods, opened.json.resources]).toEqual([200, null, [LEDGER]]);
  });

  it('TE-10 only what the platform has: anything else is a 400 that names what there is', async () => {
    const bad = ['https://api.example.com', ORDERS.slice(0, -1), `${ORDERS}/`, `${ORDERS}#x`, 'orders', '', ISSUER];
    for (const resource of bad) {
      for (const answer of [
        await admin.post('/service-accounts', { name: 'Bad', scopes: [], resources: [ORDERS, resource] }),
        await admin.patch(`/service-accounts/${account.id}`, { resources: [resource] }),
      ]) {
        expect(code(answer)).toEqual([400, 'validation_failed']);
        const message = `must be out of: ${ORDERS}, ${PAYROLL}, ${LEDGER}`;
        expect(answer.json.errors).toEqual([{ field: 'resources', message }]);
      }
    }
    for (const resources of [ORDERS, [1], null, [`${ORDERS}${'x'.repeat(256)}`], Array(21).fill(ORDERS)])
      expect(code(await admin.patch(`/service-accounts/${account.id}`, { resources }))).toEqual([
        400,
        'validation_failed',
      ]);
    expect((await admin.get(`/service-accounts/${account.id}`)).json.resources).toEqual([ORDERS, PAYROLL]);
  });

  it('TE-10 a platform that lists none has none', async () => {
    const plain = await TestService.start(PATIENT);
    try {
      const there = await plain.signIn();
      expect((await there.post('/service-accounts', { name: 'A', scopes: [], resources: [] })).status).toBe(201);
      const answer = await there.post('/service-accounts', { name: 'B', scopes: [], resources: [ORDERS] });
      expect(answer.json.errors).toEqual([
        { field: 'resources', message: 'must be empty: the platform has no other audiences (RESOURCES)' },
      ]);
    } finally {
      await plain.stop();
    }
  });

  it.each([
    'orders',
    '/orders',
    'https://a.example#x',
    'https://a.example/b c',
    'https://a.example/"',
    `x:${'y'.repeat(255)}`,
  ])('RESOURCES=%s is no absolute URI without a fragment: the service does not start', (RESOURCES) => {
    const load = () => loadConfig({ RESOURCES: `https://fine.example.com,${RESOURCES}` });
    expect(load).toThrow(/RESOURCES must be absolute URIs without fragment/);
    expect(loadConfig({ RESOURCES: `${ORDERS}, ${PAYROLL}` }).RESOURCES).toEqual([ORDERS, PAYROLL]);
    expect(loadConfig({}).RESOURCES).toEqual([]);
  });
});

describe('the audience of a token', () => {
  it('RFC 8707 §2: what was asked for; one as a string, several as a list; without it the platform’s own', async () => {
    const cases: [string[], string | string[]][] = [
      [[], ISSUER],
      [[ORDERS], ORDERS],
      [[PAYROLL], PAYROLL],
      [
        [ORDERS, PAYROLL],
        [ORDERS, PAYROLL],
      ],
      [
        [PAYROLL, ORDERS, PAYROLL],
        [PAYROLL, ORDERS],
      ],
      [[ISSUER], ISSUER],
      [
        [ISSUER, ORDERS],
        [ISSUER, ORDERS],
      ],
      [[''], ISSUER], // without a value: absent (RFC 6749 §3.1)
    ];
    for (const [resources, aud] of cases) {
      expect([resources, await audienceOf(await tokenFor(resources))]).toEqual([resources, aud]);
      const token = await tokenFor(resources, jwt);
      expect([resources, decodeJwt(token).aud, await audienceOf(token)]).toEqual([resources, aud, aud]);
    }
    const [event] = await eventsOf(service, 'token.issued');
    expect(event.changes).not.toHaveProperty('audience');
    await tokenFor([ORDERS, PAYROLL]);
    expect((await eventsOf(service, 'token.issued'))[0].changes!.audience).toEqual({ to: `${ORDERS} ${PAYROLL}` });
  });

  it('BR-10 our own API takes a token that names it, beside others or alone, and no other', async () => {
    for (const holder of [account, jwt]) {
      for (const resources of [[ORDERS], [ORDERS, PAYROLL]])
        expectInvalidToken(await use(await tokenFor(resources, holder)), WRONG_AUDIENCE);
      for (const resources of [[], [ISSUER], [ORDERS, ISSUER]])
        expect((await use(await tokenFor(resources, holder))).status).toBe(200);
    }
  });

  it('TE-10 relative, with a fragment, unregistered, another organization’s: invalid_target, and nothing is issued', async () => {
    const before = await issuedTo(service, account);
    const bad = [
      'orders',
      '/v1',
      '//orders.example.com/v1',
      `${ORDERS}#x`,
      `${ORDERS}/`,
      ORDERS.toUpperCase(),
      'https://unregistered.example.com',
      LEDGER, // the platform has it, and an account of another organization may ask for it
      'http://169.254.169.254/',
      '"\\\r\n',
    ];
    for (const resource of bad) {
      for (const resources of [[resource], [ORDERS, resource], [resource, ISSUER]]) {
        const answer = await ask(resources);
        expectOAuthError(answer, 400, 'invalid_target', 'A requested resource is not one that this client may ask for');
        expect(answer.text).not.toContain(LEDGER);
      }
    }
    expect(await issuedTo(service, account)).toBe(before);
    const [event] = await eventsOf(service, 'token.issued');
    expect(event).toMatchObject({ outcome: 'failure', reason: 'invalid_target', actor_id: account.id });
    expect(JSON.stringify(event)).not.toContain('unregistered');
  });

  it('TE-10 CLIENTS.md: an account that is set to none asks in vain, and is not refused', async () => {
    const plain = await admin.createAccount('Plain', ['companies:read']);
    for (const resources of [[ORDERS], ['https://x.example', 'relative'], ['']]) {
      const token = expectToken(await ask(resources, plain), 'companies:read');
      expect(await audienceOf(token)).toBe(ISSUER);
    }
  });

  it('CT-04 TE-08 one resource in a JSON body; no list, and nothing else may be repeated', async () => {
    const send = (body: string) =>
      service.request('POST', '/oauth/token', {
        body,
        headers: { 'content-type': 'application/json', authorization: basic(account.credentials) },
      });
    const grant = '"grant_type":"client_credentials"';
    const token = expectToken(await send(`{${grant},"resource":"${ORDERS}"}`), 'companies:read');
    expect(await audienceOf(token)).toBe(ORDERS);
    for (const resource of [`["${ORDERS}"]`, '1', 'null', `"${ORDERS}","resource":"${PAYROLL}"`])
      expectOAuthError(await send(`{${grant},"resource":${resource}}`), 400, 'invalid_request');
    const repeated = await postForm(
      service,
      '/oauth/token',
      [...Object.entries(GRANT), ['audience', 'a'], ['audience', 'b']],
      account.credentials,
    );
    expectOAuthError(repeated, 400, 'invalid_request', 'A parameter is repeated');
  });

  it('TE-10 what the account may not ask for any more, or the platform has no more, is no audience of tokens from before', async () => {
    const reduced = await admin.createAccount('Reduced', ['companies:read'], { resources: [ORDERS, PAYROLL] });
    const [one, both] = [await tokenFor([ORDERS], reduced), await tokenFor([ORDERS, PAYROLL, ISSUER], reduced)];
    const less = await TestService.start({ ...PATIENT, RESOURCES: PAYROLL }, service.database);
    try {
      expect((await introspect(less, account, one)).text).toBe('{"active":false}');
      expect((await introspect(less, account, both)).json.aud).toEqual([PAYROLL, ISSUER]);
      expectOAuthError(await ask([ORDERS], reduced, less), 400, 'invalid_target');
    } finally {
      await less.stop();
    }
    await admin.patch(`/service-accounts/${reduced.id}`, { resources: [PAYROLL] });
    expect((await introspect(service, account, one)).text).toBe('{"active":false}');
    expect(await audienceOf(both)).toEqual([PAYROLL, ISSUER]);
    await admin.patch(`/service-accounts/${reduced.id}`, { resources: [] });
    expect(await audienceOf(both)).toBe(ISSUER);
    expect((await use(both)).status).toBe(200);
  });

  it('an audience is a name: no connection is made to where it points', async () => {
    const connect = jest.spyOn(Socket.prototype, 'connect');
    await tokenFor([ORDERS]);
    await ask(['http://127.0.0.1:1/']);
    await introspect(service, account, await tokenFor([ORDERS, PAYROLL]));
    expect(JSON.stringify(connect.mock.calls)).not.toMatch(/127\.0\.0\.1|example/);
    connect.mockRestore();
  });
});
