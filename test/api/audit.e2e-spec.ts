import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { makeKey, register } from '../support/assertions.js';
import { join, PASSWORD, startPatient, tokenOf } from '../support/people.js';
import { inDays, makeFor, makeOwn } from '../support/personal-access-tokens.js';
import { fill, MUTATING, type Route, withRoutes } from '../support/routes.js';
import {
  ADMIN,
  type Answer,
  basic,
  bearer,
  type Session,
  type TestAccount,
  type TestService,
} from '../support/service.js';

let service: TestService;
let routes: Route[];
let platform: Session;
let organization: { id: string };
let admin: Session & { userId: string };
let account: TestAccount;

beforeAll(async () => {
  ({ service, routes } = await withRoutes(() => startPatient()));
  platform = await service.signIn();
  organization = await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
  account = await admin.createAccount('Concierge');
});
afterAll(() => service.stop());

const code = ({ status, json }: Answer) => [status, json?.code ?? json?.error];
const latest = async (query: string, session: Session = admin) =>
  (await session.get(`/audit-events?limit=1&${query}`)).json.data[0];

interface Call {
  path: string;
  body?: Record<string, unknown> | string;
  headers?: Record<string, string>;
}

/** For every route that changes something, a request that would succeed, and the action that it would be recorded under. */
async function changes(): Promise<Record<string, Call & { action: string }>> {
  const root = { cookie: (await service.signIn()).cookie };
  const mine = { cookie: admin.cookie };
  // What ends or renews a session, an account or an organization gets one of its own: the order of requests is of no matter.
  const own = async () => ({
    cookie: (await service.signIn({ email: 'admin@acme.example', password: PASSWORD })).cookie,
  });
  const spare = async () => (await admin.createAccount(`Spare ${randomUUID()}`)).id;
  const doomed = (await platform.post('/organizations', { name: `Doomed ${randomUUID()}` })).json.id;
  const leaver = await join(admin, `leaver-${randomUUID()}@acme.example`, 'auditor');
  const member = await join(admin, `member-${randomUUID()}@acme.example`, 'auditor');
  const other = (await member.get('/sessions')).json.data[0].id;
  const company = (await admin.post('/companies', { name: 'Widgets' })).json.id;
  const hire = async () => (await admin.post(`/companies/${company}/employees`, { name: 'Clerk' })).json.id;
  const [changed, ...leaving] = [await hire(), await hire(), await hire()];
  const key_id = (await register(admin, account, makeKey('EdDSA'))).id;
  const paused = (await admin.createAccount(`Paused ${randomUUID()}`)).id;
  await admin.post(`/service-accounts/${paused}/disable`);
  await platform.post('/keys/rotate', { purpose: 'token-seal' });
  const { kid } = (await platform.get('/keys')).json.data.find(({ state }: { state: string }) => state === 'retiring');
  const customer = (await admin.post('/partner/orgs', { name: `Customer ${randomUUID()}` })).json.id;
  const clerk = async () =>
    (
      await admin.post(`/partner/orgs/${customer}/users`, {
        email: `clerk-${randomUUID()}@acme.example`,
        name: 'Clerk',
        role: 'auditor',
      })
    ).json.id;
  const form = {
    body: 'grant_type=client_credentials',
    headers: { 'content-type': 'application/x-www-form-urlencoded', authorization: basic(account.credentials) },
    action: 'token.issued',
  };
  const ended = async () => ({
    ...form,
    body: `token=${await tokenOf(service, account.credentials)}`,
    action: 'token.revoked',
  });
  const doomedToken = (await makeOwn(admin, ['companies:read'])).id;
  const ids = {
    id: account.id,
    secret_id: account.secret.id,
    token_id: (await makeFor(admin, account.id, ['companies:read'])).id,
    realm: 'gatehouse',
  };
  const of = (url: string, rest: Omit<Call, 'path'> & { action: string }, own: Record<string, string> = {}) => ({
    headers: mine,
    body: {},
    ...rest,
    path: fill(url, { ...ids, ...own }),
  });
  const all: [string, string, Omit<Call, 'path'> & { action: string }, Record<string, string>?][] = [
    ['POST', '/oauth/token', form],
    ['POST', '/api/oauth2/token', form],
    ['POST', '/realms/:realm/protocol/openid-connect/token', form],
    ['POST', '/oauth/revoke', await ended()],
    ['POST', '/realms/:realm/protocol/openid-connect/revoke', await ended()],
    ['POST', '/api/v1/session', { body: { ...ADMIN }, headers: {}, action: 'session.created' }],
    [
      'PATCH',
      '/api/v1/session',
      { body: { organization_id: organization.id }, headers: await own(), action: 'session.switched' },
    ],
    ['DELETE', '/api/v1/session', { body: undefined, headers: await own(), action: 'session.ended' }],
    [
      'POST',
      '/api/v1/session/reauthenticate',
      { body: { password: PASSWORD }, headers: await own(), action: 'session.reauthenticated' },
    ],
    [
      'DELETE',
      '/api/v1/sessions/:id',
      { body: undefined, headers: { cookie: member.cookie }, action: 'session.ended' },
      { id: other },
    ],
    ['POST', '/api/v1/organizations', { body: { name: 'New' }, headers: root, action: 'organization.created' }],
    [
      'PATCH',
      '/api/v1/organizations/:id',
      { body: { disabled: true }, headers: root, action: 'organization.disabled' },
      { id: doomed },
    ],
    [
      'POST',
      '/api/v1/users',
      { body: { email: 'new@acme.example', name: 'New', role: 'auditor' }, action: 'user.created' },
    ],
    [
      'PATCH',
      '/api/v1/users/me',
      { body: { name: 'Renamed' }, headers: { cookie: leaver.cookie }, action: 'user.updated' },
    ],
    ['PATCH', '/api/v1/users/:id', { body: { role: 'admin' }, action: 'user.updated' }, { id: member.userId }],
    ['DELETE', '/api/v1/users/:id', { body: undefined, action: 'user.deleted' }, { id: leaver.userId }],
    [
      'POST',
      '/api/v1/scopes',
      { body: { name: 'pockets.read', description: 'Read' }, headers: root, action: 'scope.created' },
    ],
    ['POST', '/api/v1/keys/rotate', { body: { purpose: 'token-sign' }, headers: root, action: 'key.published' }],
    ['POST', '/api/v1/keys/:kid/revoke', { headers: root, action: 'key.revoked' }, { kid }],
    ['POST', '/api/v1/partner/orgs', { body: { name: 'New' }, action: 'organization.created' }],
    [
      'PATCH',
      '/api/v1/partner/orgs/:id',
      { body: { disabled: true }, action: 'organization.disabled' },
      { id: customer },
    ],
    [
      'POST',
      '/api/v1/partner/orgs/:id/users',
      { body: { email: 'new@customer.example', name: 'New', role: 'admin' }, action: 'user.created' },
      { id: customer },
    ],
    [
      'PATCH',
      '/api/v1/partner/orgs/:id/users/:user_id',
      { body: { role: 'admin' }, action: 'user.updated' },
      { id: customer, user_id: await clerk() },
    ],
    [
      'DELETE',
      '/api/v1/partner/orgs/:id/users/:user_id',
      { body: undefined, action: 'user.deleted' },
      { id: customer, user_id: await clerk() },
    ],
    ['POST', '/api/v1/service-accounts', { body: { name: 'New', scopes: [] }, action: 'service_account.created' }],
    ['PATCH', '/api/v1/service-accounts/:id', { body: { name: 'Renamed' }, action: 'service_account.updated' }],
    [
      'DELETE',
      '/api/v1/service-accounts/:id',
      { body: undefined, action: 'service_account.deleted' },
      { id: await spare() },
    ],
    ['POST', '/api/v1/service-accounts/:id/disable', { action: 'service_account.disabled' }, { id: await spare() }],
    ['POST', '/api/v1/service-accounts/:id/enable', { action: 'service_account.enabled' }, { id: paused }],
    ['POST', '/api/v1/service-accounts/:id/secrets', { action: 'service_account.secret.created' }],
    [
      'POST',
      '/api/v1/service-accounts/:id/secrets/:secret_id/rotate',
      { body: { overlap_seconds: 3600 }, action: 'service_account.secret.created' },
    ],
    ['POST', '/api/v1/service-accounts/:id/secrets/:secret_id/revoke', { action: 'service_account.secret.revoked' }],
    [
      'POST',
      '/api/v1/service-accounts/:id/keys',
      { body: { jwk: makeKey('EdDSA').jwk }, action: 'service_account.key.created' },
    ],
    ['POST', '/api/v1/service-accounts/:id/keys/:key_id/revoke', { action: 'service_account.key.revoked' }, { key_id }],
    [
      'POST',
      '/api/v1/personal-access-tokens',
      {
        body: { label: 'New', scopes: ['companies:read'], expires_at: inDays(1) },
        action: 'personal_access_token.created',
      },
    ],
    [
      'POST',
      '/api/v1/personal-access-tokens/:id/revoke',
      { action: 'personal_access_token.revoked' },
      { id: doomedToken },
    ],
    [
      'POST',
      '/api/v1/developer/service-principals',
      { body: { name: 'New principal', scopes: [] }, action: 'service_account.created' },
    ],
    [
      'POST',
      '/api/v1/developer/service-principals/:id/tokens',
      { body: { name: 'New', scopes: ['companies:read'] }, action: 'personal_access_token.created' },
    ],
    [
      'POST',
      '/api/v1/developer/service-principals/:id/tokens/:token_id/revoke',
      { action: 'personal_access_token.revoked' },
    ],
    ...['', '/api/v1'].flatMap((base, i): typeof all => [
      ['POST', `${base}/companies`, { body: { name: 'New' }, action: 'company.created' }],
      [
        'PATCH',
        `${base}/companies/:id`,
        { body: { name: `Renamed ${base}` }, action: 'company.updated' },
        { id: company },
      ],
      [
        'POST',
        `${base}/companies/:id/employees`,
        { body: { name: 'New' }, action: 'employee.created' },
        { id: company },
      ],
      [
        'POST',
        `${base}/companies/:id/employees/bulk`,
        { body: { employees: [{ external_id: `x${base}`, name: 'New' }] }, action: 'employee.pushed' },
        { id: company },
      ],
      [
        'PATCH',
        `${base}/companies/:id/employees/:employee_id`,
        { body: { name: `Renamed ${base}` }, action: 'employee.updated' },
        { id: company, employee_id: changed },
      ],
      [
        'DELETE',
        `${base}/companies/:id/employees/:employee_id`,
        { body: undefined, action: 'employee.deleted' },
        { id: company, employee_id: leaving[i] },
      ],
    ]),
  ];
  return Object.fromEntries(all.map(([method, url, rest, own]) => [`${method} ${url}`, of(url, rest, own)]));
}

/** A question that goes by POST: it changes nothing, so nothing is recorded. */
const asks = ({ url }: Route) => url.endsWith('/introspect');

const send = (route: string, { path, body, headers }: Call) =>
  service.request(route.split(' ')[0], path, { body, headers, remoteAddress: '192.0.2.44' });

/** Every row of every table that a request may write; what a process notes about itself is left out. */
async function contents(): Promise<Record<string, string>> {
  const tables = await service.database.query<{ name: string }>(
    `SELECT quote_ident(relname) AS name FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
      WHERE nspname = 'public' AND relkind IN ('r', 'p') AND NOT relispartition AND relname NOT IN ('instance', 'rate_limit_window')`, // heartbeats, and counts of requests
  );
  expect(tables.length).toBeGreaterThan(14);
  const prints: Record<string, string> = {};
  for (const { name } of tables) {
    const [{ print }] = await service.database.query<{ print: string }>(
      `SELECT count(*) || md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) AS print FROM ${name} t`,
    );
    prints[name] = print;
  }
  return prints;
}

describe('acted means recorded', () => {
  it('AU-02 the audit insert fails: 503 and nothing changed, on every route that changes something', async () => {
    const calls = await changes();
    const mutating = routes
      .filter((route) => MUTATING.has(route.method) && !asks(route))
      .map(({ method, url }) => `${method} ${url}`);
    expect(Object.keys(calls).sort()).toEqual([...new Set(mutating)].sort());
    await service.database.query(
      `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$`,
    );
    await service.database.query(
      'CREATE TRIGGER refuse BEFORE INSERT ON audit_event FOR EACH ROW EXECUTE FUNCTION refuse()',
    );
    const before = await contents();
    try {
      for (const [route, call] of Object.entries(calls)) {
        const answer = await send(route, call);
        expect([route, ...code(answer)]).toEqual([route, 503, 'temporarily_unavailable']);
        expect(answer.headers['set-cookie']).toBeUndefined();
        expect([route, await contents()]).toEqual([route, before]);
      }
    } finally {
      await service.database.query('DROP TRIGGER refuse ON audit_event');
    }
  });

  it('AU-01 the same requests, recorded: each one event with who, when, by which credential, from where, about what', async () => {
    // The last two end what the others use.
    const isLast = (route: string) => /:secret_id\/revoke|DELETE \/api\/v1\/users/.test(route);
    const calls = await changes();
    const inOrder = Object.keys(calls).sort((a, b) => Number(isLast(a)) - Number(isLast(b)));
    for (const route of inOrder) {
      const call = calls[route];
      const answer = await send(route, call);
      expect([route, Math.floor(answer.status / 100)]).toEqual([route, 2]);
      const rows = await service.database.query<Record<string, unknown>>(
        'SELECT * FROM audit_event WHERE request_id = $1',
        [answer.headers['x-request-id']],
      );
      expect([route, rows.map(({ action }) => action)]).toEqual([route, [call.action]]);
      const [event] = rows;
      expect(event).toMatchObject({ outcome: 'success', address: '192.0.2.44', user_agent: 'lightMyRequest' });
      expect(Math.abs(Number(event.occurred_at) - Date.now())).toBeLessThan(60_000);
      for (const column of ['actor_id', 'actor_name', 'credential_id', 'organization_id', 'boot_id', 'counter'])
        expect([route, column, event[column]]).not.toEqual([route, column, null]);
      if (!/token|session/.test(route)) expect([route, (event.targets as unknown[]).length]).not.toEqual([route, 0]);
    }
    account = await admin.createAccount('Concierge');
  });

  it('AU-01 what was refused is recorded too, with the real reason', async () => {
    await service.token({ grant_type: 'client_credentials' }, { ...account.credentials, secret: 'wrong' });
    expect(await latest('action=client.authenticated')).toMatchObject({
      outcome: 'failure',
      reason: 'wrong_secret',
      actor: { type: 'anonymous', id: null },
      targets: [{ id: account.id, name: 'Concierge' }],
    });
    await service.request('POST', '/api/v1/session', {
      body: { email: 'admin@acme.example', password: 'wrong password' },
    });
    expect(await latest('action=session.created&outcome=failure')).toMatchObject({ reason: 'wrong_password' });
  });

  it('P2 an event has the name of its moment: renaming account, person and secret’s creator rewrites nothing', async () => {
    const renamed = await admin.createAccount('Old name', ['companies:read', 'companies:write']);
    const token = await tokenOf(service, renamed.credentials);
    const push = (name: string) => service.request('POST', '/companies', { body: { name }, headers: bearer(token) });
    await push('First');
    await admin.patch(`/service-accounts/${renamed.id}`, { name: 'New name' });
    await admin.patch('/users/me', { name: 'Renamed admin' });
    await push('Second'); // the same token, the present name
    const events = (await admin.get(`/audit-events?actor_id=${renamed.id}&action=company.created`)).json.data;
    expect(events.map((event: { actor: { name: string } }) => event.actor.name)).toEqual(['New name', 'Old name']);
    expect(events[0]).toMatchObject({ credential_id: renamed.secret.id, token_id: expect.any(String) });
    expect((await latest(`actor_name=Old name&action=company.created`)).targets[0].name).toBe('First');
    expect((await latest(`target_id=${renamed.id}&action=service_account.created`)).actor.name).toBe('admin');
    expect((await latest(`actor_id=${admin.userId}&action=user.updated`)).targets[0].name).toBe('Renamed admin');
  });
});
