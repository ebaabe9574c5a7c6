import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { DataSource } from 'typeorm';
import { join, startPatient, tokenOf } from '../support/people.js';
import { fill, type Route, withRoutes } from '../support/routes.js';
import { type Answer, bearer, type Session, type TestAccount, TestService } from '../support/service.js';

/** Everybody may call these; everything else wants a credential. A route is added here on purpose or not at all. */
const PUBLIC = [
  '/health/live',
  '/health/ready',
  '/api/v1/session', // POST alone: signing in
  '/oauth/token',
  '/api/oauth2/token',
  '/realms/:realm/protocol/openid-connect/token',
  '/oauth/introspect', // authenticates clients and tokens by itself (IR-01)
  '/realms/:realm/protocol/openid-connect/token/introspect',
  '/oauth/revoke', // authenticates clients by itself (CA-19)
  '/realms/:realm/protocol/openid-connect/revoke',
  '/.well-known/jwks.json',
  '/realms/:realm/protocol/openid-connect/certs',
  '/.well-known/oauth-authorization-server',
  '/.well-known/openid-configuration',
  '/realms/:realm/.well-known/openid-configuration',
  '/realms/:realm/.well-known/oauth-authorization-server',
];
const isPublic = ({ method, url }: Route) =>
  url === '/openapi.json' ||
  /^\/docs(\/|-yaml|-json|$)/.test(url) ||
  (PUBLIC.includes(url) && (url !== '/api/v1/session' || method === 'POST'));

let service: TestService;
let routes: Route[];
let platform: Session;
let admin: Session;
let organization: { id: string };
let account: TestAccount;
let token: string;

beforeAll(async () => {
  ({ service, routes } = await withRoutes(() => startPatient()));
  platform = await service.signIn();
  organization = await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
  account = await admin.createAccount('Concierge', ['companies:read', 'companies:write']);
  token = await tokenOf(service, account.credentials);
});
afterAll(() => service.stop());

const expectProblem = (answer: Answer, status: number, code: string) => {
  expect({ status: answer.status, code: answer.json?.code, type: answer.headers['content-type'] }).toEqual({
    status,
    code,
    type: expect.stringMatching(/^application\/problem\+json/),
  });
  expect(answer.json.request_id).toBe(answer.headers['x-request-id']);
};

describe('every route', () => {
  it('BR-16 without credentials: 401 with a challenge for all that is not on the list, HEAD included', async () => {
    expect(routes.length).toBeGreaterThan(60);
    expect(routes.some(({ method }) => method === 'HEAD')).toBe(true);
    for (const route of routes.filter((route) => !isPublic(route))) {
      const answer = await service.request(route.method, fill(route.url, {}, randomUUID()));
      expect(`${route.method} ${route.url} ${answer.status}`).toBe(`${route.method} ${route.url} 401`);
      expect(answer.headers['www-authenticate']).toBe('Bearer realm="gatehouse"');
    }
  });

  it('BR-16 the list holds nothing that is not served, and no public route asks for a credential', async () => {
    for (const url of PUBLIC) expect(routes.map((route) => route.url)).toContain(url);
    for (const route of routes.filter(isPublic)) {
      const answer = await service.request(route.method, fill(route.url, { realm: 'gatehouse' }, 'x'));
      expect(`${route.url} ${answer.headers['www-authenticate']}`).not.toContain('Bearer');
    }
  });

  it('BR-16 a bearer without the scope: 403 with what it lacks, on every route that wants one', async () => {
    for (const url of [
      '/users',
      '/service-accounts',
      '/audit-events',
      '/organizations',
      '/revocations',
      '/partner/orgs',
    ]) {
      const answer = await service.request('GET', `/api/v1${url}`, { headers: bearer(token) });
      expectProblem(answer, 403, 'insufficient_scope');
      expect(answer.headers['www-authenticate']).toMatch(
        /^Bearer realm="gatehouse", error="insufficient_scope", .*scope="(admin:access|audit:read|platform:admin|partner:orgs:read)"$/,
      );
    }
  });

  it('BR-16 what is about a person is closed to machines', async () => {
    for (const url of ['/session', '/sessions', '/users/me']) {
      expectProblem(await service.request('GET', `/api/v1${url}`, { headers: bearer(token) }), 403, 'session_required');
    }
  });
});

describe('X-Organization-Id', () => {
  it('CONTRACT §8: a bearer with platform:admin acts in the organization that it names; nobody else does', async () => {
    const root = await service.signIn();
    const machine = await root.createAccount('Operator', ['platform:admin', 'admin:access', 'companies:read']);
    const strong = await tokenOf(service, machine.credentials);
    const list = (text: string, id?: string) =>
      service.request('GET', '/api/v1/service-accounts', {
        headers: { ...bearer(text), ...(id && { 'x-organization-id': id }) },
      });
    expect((await list(strong)).json.data.map(({ name }: TestAccount) => name)).toEqual(['Operator']);
    expect((await list(strong, organization.id)).json.data.map(({ name }: TestAccount) => name)).toEqual(['Concierge']);
    expectProblem(await list(strong, randomUUID()), 400, 'invalid_parameter');
    expectProblem(await list(strong, "' OR 1=1"), 400, 'invalid_parameter');

    const weak = await admin.createAccount('Manager', ['admin:access']);
    const weakToken = await tokenOf(service, weak.credentials);
    const other = (await platform.post('/organizations', { name: 'Other' })).json;
    expectProblem(await list(weakToken, other.id), 403, 'insufficient_scope');
    expectProblem(await list(weakToken, randomUUID()), 403, 'insufficient_scope');
    expect((await list(weakToken, organization.id)).status).toBe(200);
  });

  it('CONTRACT §8: a session that names another organization is refused, and nothing is made in its own', async () => {
    const other = (await platform.post('/organizations', { name: 'Named by a session' })).json;
    const named = (id: string) => ({ 'x-organization-id': id });
    const person = { email: 'named@example.com', name: 'Named', role: 'admin', password: 'first password 1' };
    expectProblem(await platform.post('/users', person, named(other.id)), 400, 'invalid_parameter');
    expect(JSON.stringify((await platform.get('/users')).json)).not.toContain(person.email);
    const { organization: own } = (await platform.get('/session')).json;
    expect((await platform.get('/users', named(own.id))).status).toBe(200);
  });
});

describe('fields', () => {
  const HOSTILE = [
    "'; DROP TABLE company; --",
    '%',
    '_',
    '\\',
    '" OR ""="',
    '$1',
    '\u2028',
    'null',
    'constructor',
    '__proto__',
  ];

  it('IN-01 SQL metacharacters are data in every search and filter', async () => {
    for (const text of HOSTILE) {
      const q = encodeURIComponent(text);
      expect((await admin.get(`/service-accounts?search=${q}`)).json.data).toEqual([]);
      expect((await admin.get(`/partner/orgs?search=${q}`)).json.data).toEqual([]);
      expect((await admin.get(`/audit-events?actor_name=${q}&target_id=${q}&request_id=${q}`)).json.data).toEqual([]);
      expectProblem(await admin.get(`/service-accounts?cursor=${q}`), 400, 'invalid_cursor');
      expectProblem(await admin.get(`/audit-events?action=${q}`), 400, 'validation_failed');
      expectProblem(await admin.get(`/service-accounts/${q}`), 404, 'not_found');
      if (text === '\u2028') continue; // not within a line
      const made = await admin.post('/companies', { name: 'Hostile', sector: text });
      expect(made.json).toMatchObject({ sector: text });
      expect((await admin.get(`/companies?sector=${q}`)).json.data).toEqual([made.json]);
      for (const filter of [`name=${q}`, `uen_code=${q}`, `entity_type=${q}`])
        expect((await admin.get(`/companies?${filter}`)).json.data).toEqual([]);
      const employees = `/companies/${made.json.id}/employees`;
      await admin.post(employees, { name: 'Hostile', email: 'hostile@acme.example' });
      for (const name of ['search', 'email', 'department', 'work_location', 'external_id'])
        expect((await admin.get(`${employees}?${name}=${q}`)).json.data).toEqual([]);
      expectProblem(await admin.get(`${employees}/${q}`), 404, 'not_found');
    }
  });

  it.each(['name;drop', 'secret', 'name asc', 'order=asc nulls', ''])('IN-02 sort=%s', async (sort) => {
    expectProblem(await admin.get(`/service-accounts?sort=${encodeURIComponent(sort)}`), 400, 'validation_failed');
    expectProblem(await admin.get('/service-accounts?sort[]=name'), 400, 'validation_failed');
    expectProblem(await admin.get('/service-accounts?sort=name&sort=name'), 400, 'validation_failed');
  });

  it('IN-04 no request takes a field that is not its own', async () => {
    const extra = [
      'tenant_id',
      'organization_id',
      'id',
      'is_admin',
      'created_at',
      'secret_hash',
      'epoch',
      'created_by',
      'platform',
      'rate_limit',
    ];
    const bodies: [string, string, Record<string, unknown>][] = [
      ['POST', '/service-accounts', { name: 'x', scopes: [] }],
      ['PATCH', `/service-accounts/${account.id}`, {}],
      ['POST', `/service-accounts/${account.id}/secrets`, {}],
      ['POST', `/service-accounts/${account.id}/keys`, { jwk: {} }],
      ['POST', '/users', { email: 'x@acme.example', name: 'x', role: 'auditor' }],
      ['PATCH', '/users/me', {}],
      ['POST', '/companies', { name: 'x' }],
      ['PATCH', `/companies/${randomUUID()}`, {}],
      ['POST', `/companies/${randomUUID()}/employees`, { name: 'x' }],
      ['PATCH', `/companies/${randomUUID()}/employees/${randomUUID()}`, {}],
      ['PATCH', `/users/${randomUUID()}`, {}],
      ['POST', '/partner/orgs', { name: 'x' }],
      ['PATCH', `/partner/orgs/${randomUUID()}`, {}],
      ['POST', `/partner/orgs/${randomUUID()}/users`, { email: 'x@acme.example', name: 'x', role: 'auditor' }],
      ['PATCH', `/partner/orgs/${randomUUID()}/users/${randomUUID()}`, {}],
    ];
    for (const [method, path, body] of bodies) {
      for (const field of extra) {
        const answer = await admin.call(method, path, { ...body, [field]: 'x' });
        expectProblem(answer, 400, 'validation_failed');
        expect(answer.json.errors).toEqual([{ field, message: 'is not a field of this request' }]);
      }
    }
  });

  it.each(
    [
      '{"name":"x","scopes":[],"__proto__":{"admin":true}}',
      '{"name":"x","scopes":[],"constructor":{"prototype":{"admin":true}}}',
      '{"name":"x","scopes":[],"description":{"__proto__":{"admin":true}}}',
      '[]',
      '[{"name":"x","scopes":[]}]',
      '"text"',
      'null',
      '{"name":"x\\u0000","scopes":[]}',
      '{"name":"x\\ud800","scopes":[]}',
      '{"name":"x","scopes":["\\u0000"]}',
      '{"\\u0000":1}',
      `{"name":${'['.repeat(30_000)}${']'.repeat(30_000)}}`,
      `{"name":${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}}`,
    ].map((body) => [body.slice(0, 60), body]),
  )('IN-05 IN-07 %s is no body', async (_, body) => {
    const before = Object.getOwnPropertyNames(Object.prototype).length;
    for (const [method, path] of [
      ['POST', '/api/v1/service-accounts'],
      ['POST', '/api/v1/companies'],
      ['PATCH', `/api/v1/service-accounts/${account.id}`],
      ['POST', '/api/v1/session'],
    ]) {
      const answer = await service.request(method, path, {
        body,
        headers: { cookie: admin.cookie, 'content-type': 'application/json' },
      });
      expect(`${path} ${answer.status}`).toBe(`${path} 400`);
      expect(answer.json.code).toMatch(/^(malformed_request|validation_failed)$/);
    }
    expect(Object.getOwnPropertyNames(Object.prototype)).toHaveLength(before);
    expect(({} as { admin?: boolean }).admin).toBeUndefined();
  });

  it.each([
    '/service-accounts?search=',
    '/partner/orgs?search=',
    '/audit-events?actor_name=',
    '/audit-events?target_id=',
    '/audit-events?request_id=',
  ])('IN-07 a NUL in %s', async (path) => {
    expectProblem(await admin.get(`${path}a%00b`), 400, 'malformed_request');
  });

  it.each(['from', 'to'])('IN-07 a time that is none in the filter %s', async (name) => {
    for (const text of [
      '1900-01-01T00:00:00Z',
      '2026-W01',
      '2026-001',
      '2026-11-31T00:00:00Z',
      '2026-01-01T00:00:00',
      '0',
    ]) {
      const answer = await admin.get(`/audit-events?${name}=${encodeURIComponent(text)}`);
      expect(`${text} ${answer.status}`).toBe(`${text} 400`);
    }
    const made = await admin.post(`/service-accounts/${account.id}/secrets`, { expires_at: '2030-W01-1' });
    expectProblem(made, 400, 'validation_failed');
  });

  it('IN-07 null is a value that the field refuses, not one that was left out', async () => {
    expectProblem(await admin.patch(`/service-accounts/${account.id}`, { name: null }), 400, 'validation_failed');
    expectProblem(await admin.patch(`/service-accounts/${account.id}`, { scopes: null }), 400, 'validation_failed');
    expectProblem(await admin.patch(`/users/me`, { name: null }), 400, 'validation_failed');
    const company = (await admin.post('/companies', { name: 'Null and Sons' })).json;
    expectProblem(await admin.patch(`/companies/${company.id}`, { name: null }), 400, 'validation_failed');
  });
});

describe('Idempotency-Key', () => {
  const key = (value: string) => ({ 'idempotency-key': value });

  it('SC-02 a repeat makes nothing, says so, and shows no secret again', async () => {
    const path = `/service-accounts/${account.id}/secrets`;
    const first = await admin.post(path, { label: 'once' }, key('k1'));
    expect(first.status).toBe(201);
    expect(first.json.secret).toMatch(/^client_sec_live_/);
    expect(first.headers['idempotent-replayed']).toBeUndefined();
    const again = await admin.post(path, { label: 'once' }, key('k1'));
    expect(again.status).toBe(201);
    expect(again.headers['idempotent-replayed']).toBe('true');
    const { secret: _, ...rest } = first.json;
    expect(again.json).toEqual(rest);
    const labels = (await admin.get(path)).json.data.map(({ label }: { label: string }) => label);
    expect(labels.filter((label: string) => label === 'once')).toHaveLength(1);
  });

  it('CONTRACT §8: the key is bound to body, route, organization and caller', async () => {
    const body = { name: 'Keyed', scopes: [] };
    const first = await admin.post('/service-accounts', body, key('k2'));
    expect(first.status).toBe(201);
    expect((await admin.post('/service-accounts', body, key('k2'))).json).toEqual(first.json);
    const other = await admin.post('/service-accounts', { ...body, name: 'Other' }, key('k2'));
    expectProblem(other, 422, 'idempotency_key_reused');
    const company = await admin.post('/companies', { name: 'Keyed' }, key('k2'));
    expect([company.status, company.headers['idempotent-replayed']]).toEqual([201, undefined]);
    const colleague = await join(admin, 'colleague@acme.example');
    expectProblem(await colleague.post('/service-accounts', body, key('k2')), 409, 'name_taken');
    const elsewhere = await service.signIn();
    await elsewhere.createOrganization('Elsewhere');
    expect((await elsewhere.post('/service-accounts', body, key('k2'))).status).toBe(201);
  });

  it('CONTRACT §8: what failed may be tried again under the same key; a key that is none is refused', async () => {
    const body = { name: 'Keyed', scopes: [] };
    expectProblem(await admin.post('/service-accounts', body, key('k3')), 409, 'name_taken');
    expect((await admin.post('/service-accounts', { ...body, name: 'Fresh' }, key('k3'))).status).toBe(201);
    for (const bad of ['', 'with space', 'x'.repeat(256), 'é'])
      expectProblem(await admin.post('/service-accounts', body, key(bad)), 400, 'invalid_parameter');
  });

  it('CONTRACT §8: of twenty at once one makes it, and all get that one', async () => {
    const body = { name: 'Together', scopes: [] };
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => admin.post('/service-accounts', body, key('k4'))),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]));
    expect(new Set(answers.map(({ json }) => json.id)).size).toBe(1);
    expect(answers.filter(({ headers }) => headers['idempotent-replayed'] === undefined)).toHaveLength(1);
  });
});

describe('overload', () => {
  it('DS-08 every connection of the pool is held: 503 and Retry-After, and back to work once they are free', async () => {
    const held = Array.from({ length: 10 }, () => service.app.get(DataSource).createQueryRunner());
    await Promise.all(held.map((runner) => runner.connect()));
    try {
      const answers = await Promise.all(
        ['/companies', '/service-accounts', '/session', '/audit-events'].map((path) => admin.get(path)),
      );
      for (const answer of answers) {
        expectProblem(answer, 503, 'temporarily_unavailable');
        expect(answer.headers['retry-after']).toMatch(/^\d+$/);
      }
    } finally {
      await Promise.all(held.map((runner) => runner.release()));
    }
    expect((await admin.get('/companies')).status).toBe(200);
  });
});
