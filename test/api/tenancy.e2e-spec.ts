import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { makeKey, register } from '../support/assertions.js';
import { join, startPatient, tokenOf } from '../support/people.js';
import { makeFor, makeOwn } from '../support/personal-access-tokens.js';
import { fill, MUTATING, type Route, visible, withRoutes } from '../support/routes.js';
import { bearer, type Session, TestService } from '../support/service.js';

/** Everything in an organization that has an id, by the route beneath which it stands. */
interface Things {
  organization: string;
  admin: Session & { userId: string };
  ids: Record<string, string>;
  token: string;
}

let service: TestService;
let routes: Route[];
let platform: Session;
let a: Things;
let b: Things;

async function make(name: string): Promise<Things> {
  const organization = await platform.createOrganization(name);
  const admin = await join(platform, `admin@${name}.example`);
  const account = await admin.createAccount('Concierge', [
    'admin:access',
    'audit:read',
    'companies:read',
    'companies:write',
    'partner:orgs:read',
    'partner:orgs:write',
    'partner:users:write',
  ]);
  const company = (await admin.post('/companies', { name: `${name} Ltd` })).json;
  const employee = (await admin.post(`/companies/${company.id}/employees`, { name: `${name} clerk` })).json;
  const child = (await admin.post('/partner/orgs', { name: `${name} customer` })).json;
  const clerk = { email: `clerk@${name}.example`, name: 'Clerk', role: 'auditor' };
  const person = (await admin.post(`/partner/orgs/${child.id}/users`, clerk)).json;
  const key = await register(admin, account, makeKey('EdDSA'));
  const event = (await admin.get('/audit-events?limit=1')).json.data[0];
  const session = (await admin.get('/sessions')).json.data[0];
  const own = await makeOwn(admin, ['companies:read']);
  const token = await makeFor(admin, account.id, ['companies:read']);
  const ids = {
    organizations: organization.id,
    users: admin.userId,
    'service-accounts': account.id,
    secret_id: account.secret.id,
    key_id: key.id,
    'service-principals': account.id,
    token_id: token.id,
    'personal-access-tokens': own.id,
    companies: company.id,
    employee_id: employee.id,
    'audit-events': event.id,
    sessions: session.id,
    orgs: child.id,
    user_id: person.id,
  };
  return { organization: organization.id, admin, ids, token: await tokenOf(service, account.credentials) };
}

beforeAll(async () => {
  ({ service, routes } = await withRoutes(() => startPatient()));
  platform = await service.signIn();
  a = await make('alpha');
  b = await make('beta');
});
afterAll(() => service.stop());

// Realms and keys are the platform's own, in no organization.
const withId = () => routes.filter(({ url }) => /:(?!realm|kid)/.test(url) && !url.startsWith('/docs'));
const collection = (url: string) => /([a-z-]+)\/:id/.exec(url)![1];

/** A body that the route would take, so that the answer is about the id. */
const BODIES: Record<string, Record<string, unknown>> = {
  'POST /companies/:id/employees': { name: 'Mole' },
  'POST /api/v1/companies/:id/employees': { name: 'Mole' },
  'POST /companies/:id/employees/bulk': { employees: [{ external_id: '1', name: 'Mole' }] },
  'POST /api/v1/companies/:id/employees/bulk': { employees: [{ external_id: '1', name: 'Mole' }] },
  'POST /api/v1/partner/orgs/:id/users': { email: 'mole@example.com', name: 'Mole', role: 'admin' },
  'POST /api/v1/developer/service-principals/:id/tokens': { name: 'Mole', scopes: ['companies:read'] },
};

describe('ids of another organization', () => {
  const fingerprint = async () =>
    (
      await service.database.query<{ print: string }>(
        `SELECT md5(string_agg(t.row, '|' ORDER BY t.row)) AS print FROM (
           SELECT a::text AS row FROM audit_event a WHERE organization_id = ANY($1)
           UNION ALL SELECT c::text FROM company c WHERE organization_id = ANY($1)
           UNION ALL SELECT s::text FROM service_account s WHERE organization_id = ANY($1)
           UNION ALL SELECT s::text FROM credential s WHERE organization_id = ANY($1)
           UNION ALL SELECT m::text FROM membership m WHERE organization_id = ANY($1)
           UNION ALL SELECT e::text FROM employee e WHERE organization_id = ANY($1)
           UNION ALL SELECT o::text FROM organization o WHERE id = ANY($1) OR parent_id = ANY($1)
           UNION ALL SELECT r::text FROM revocable r WHERE organization_id = ANY($1)) t`,
        [[b.organization, b.ids.orgs]],
      )
    )[0].print;

  it('TN-01 every route with an id: what is another organization’s answers as a random id does, and nothing of it changes', async () => {
    expect(withId().length).toBeGreaterThan(20);
    const before = await fingerprint();
    for (const { method, url } of withId()) {
      const theirs = { ...b.ids, id: b.ids[collection(url)] };
      expect(`${url} ${theirs.id}`).toMatch(/ [0-9a-f-]{36}$/); // a new kind of thing must be made above
      const nobodys = Object.fromEntries(Object.keys(theirs).map((name) => [name, randomUUID()]));
      const body = BODIES[`${method} ${url}`] ?? (method === 'GET' || method === 'HEAD' ? undefined : {});
      for (const headers of [{ cookie: a.admin.cookie }, bearer(a.token)]) {
        const [foreign, random] = await Promise.all(
          [theirs, nobodys].map((ids) => service.request(method, fill(url, ids), { body, headers })),
        );
        expect(visible(foreign)).toEqual(visible(random));
        // The platform's own routes, a person's sessions and tokens are closed before any id is looked at.
        const personal = /sessions|personal-access-tokens/.test(url);
        const closed = /\/organizations\//.test(url) || ('authorization' in headers && personal);
        const writes = 'authorization' in headers && MUTATING.has(method) && url.includes('/employees');
        expect(`${method} ${url} ${foreign.status}`).toBe(`${method} ${url} ${closed || writes ? 403 : 404}`);
      }
    }
    expect(await fingerprint()).toBe(before);
  });

  it('TN-01 an own account with another organization’s secret, key or token', async () => {
    const { secret_id, key_id, token_id } = b.ids;
    const foreign = `/developer/service-principals/${a.ids['service-accounts']}/tokens/${token_id}/revoke`;
    expect((await a.admin.post(foreign)).json.code).toBe('not_found');
    for (const path of [`secrets/${secret_id}/rotate`, `secrets/${secret_id}/revoke`, `keys/${key_id}/revoke`]) {
      const answer = await a.admin.post(`/service-accounts/${a.ids['service-accounts']}/${path}`);
      expect([answer.status, answer.json.code]).toEqual([404, 'not_found']);
    }
  });

  it('TN-01 an own company with another organization’s employee', async () => {
    const path = `/companies/${a.ids.companies}/employees/${b.ids.employee_id}`;
    for (const answer of [
      await a.admin.get(path),
      await a.admin.patch(path, { name: 'Mole' }),
      await a.admin.delete(path),
    ])
      expect([answer.status, answer.json.code]).toEqual([404, 'not_found']);
  });

  it('TN-01 an own customer with a member of another organization’s', async () => {
    const path = `/partner/orgs/${a.ids.orgs}/users/${b.ids.user_id}`;
    for (const [method, body] of [['GET'], ['PATCH', { disabled: true }], ['DELETE']] as const) {
      const answer = await a.admin.call(method, path, body);
      expect([method, answer.status, answer.json.code]).toEqual([method, 404, 'not_found']);
    }
  });

  it('TN-01 malformed ids are 404 like random ones', async () => {
    for (const id of ['0', '%2e%2e', 'null', `${randomUUID()}x`, randomUUID().toUpperCase(), 'x'.repeat(200)]) {
      for (const path of ['/service-accounts', '/users', '/companies', '/audit-events', '/partner/orgs'])
        expect(`${path} ${id} ${(await a.admin.get(`${path}/${id}`)).status}`).toBe(`${path} ${id} 404`);
    }
  });

  it('TN-02 ids in bodies', async () => {
    const turned = await a.admin.patch('/session', { organization_id: b.organization });
    expect([turned.status, turned.json.code]).toEqual([404, 'not_found']);
    const random = await a.admin.patch('/session', { organization_id: randomUUID() });
    expect(visible(turned)).toEqual(visible(random));
    const parent = await platform.post('/organizations', { name: 'Orphan', parent_id: randomUUID() });
    expect([parent.status, parent.json.code]).toEqual([404, 'not_found']);
    const beneath = (parent_id: string) => a.admin.post('/partner/orgs', { name: 'Cuckoo', parent_id });
    const nobodys = await beneath(randomUUID());
    expect([nobodys.status, nobodys.json.code]).toEqual([404, 'not_found']);
    for (const theirs of [b.organization, b.ids.orgs]) expect(visible(await beneath(theirs))).toEqual(visible(nobodys));
  });

  it('TN-02 the database itself binds a secret, a person’s token and an employee to their organization', async () => {
    const [{ membership }] = await service.database.query<{ membership: string }>(
      'SELECT membership_id AS membership FROM credential WHERE id = $1',
      [b.ids['personal-access-tokens']],
    );
    for (const sql of [
      `INSERT INTO credential (organization_id, id, kind, service_account_id, hint, hash, hash_key_id, created_by_type, created_by_name)
       VALUES ('${a.organization}', gen_random_uuid(), 'secret', '${b.ids['service-accounts']}', 'x', 'x', gen_random_uuid(), 'x', 'x')`,
      `INSERT INTO credential (organization_id, id, kind, user_id, membership_id, hint, hash, hash_key_id, scopes, era, epochs, expires_at, created_by_type, created_by_name)
       VALUES ('${a.organization}', gen_random_uuid(), 'personal_access_token', '${b.ids.users}', '${membership}', 'x', 'x', gen_random_uuid(), '{}', 1, '{0,0}', now(), 'x', 'x')`,
      `INSERT INTO employee (organization_id, id, company_id, name, created_by)
       VALUES ('${a.organization}', gen_random_uuid(), '${b.ids.companies}', 'x', gen_random_uuid())`,
    ])
      await expect(service.database.query(sql)).rejects.toMatchObject({ code: '23503' });
  });
});

describe('lists', () => {
  it('TN-07 filters that name another organization’s things find nothing', async () => {
    const [mine] = (await b.admin.get('/audit-events?action=service_account.created')).json.data;
    expect(mine.targets[0].id).toBe(b.ids['service-accounts']);
    const issued = (await b.admin.get('/audit-events?action=token.issued')).json.data[0];
    expect(issued.credential_id).toBe(b.ids.secret_id);
    for (const filter of [
      `target_id=${mine.targets[0].id}`,
      `actor_id=${mine.actor.id}`,
      `credential_id=${issued.credential_id}`,
      `request_id=${mine.request_id}`,
    ]) {
      expect((await b.admin.get(`/audit-events?${filter}`)).json.data.length).toBeGreaterThan(0);
      expect((await a.admin.get(`/audit-events?${filter}`)).json).toEqual({ data: [], next_cursor: null });
    }
  });

  it('TN-07 every list holds one’s own rows alone, and takes no other organization’s cursor', async () => {
    for (const path of [
      '/users',
      '/service-accounts',
      '/developer/service-principals',
      '/personal-access-tokens',
      '/companies',
      '/audit-events',
      '/revocations',
      '/partner/orgs',
    ]) {
      const own = (await a.admin.get(`${path}?limit=200`)).text;
      for (const id of Object.values(b.ids)) expect(own).not.toContain(id);
    }
    for (const name of ['One', 'Two'])
      for (const owner of [a, b])
        for (const path of ['/companies', '/partner/orgs'])
          expect((await owner.admin.post(path, { name })).status).toBe(201);
    for (const path of ['/companies', '/audit-events', '/partner/orgs']) {
      const { next_cursor } = (await b.admin.get(`${path}?limit=1`)).json;
      expect(typeof next_cursor).toBe('string');
      const answer = await a.admin.get(`${path}?limit=1&cursor=${next_cursor}`);
      expect([answer.status, answer.json.code]).toEqual([400, 'invalid_cursor']);
    }
  });

  it('TN-05 interleaved requests of two organizations: no answer holds the other’s', async () => {
    const ask = async (owner: Things, other: Things, path: string) => {
      const answer = await service.request('GET', `/api/v1${path}`, {
        headers: path.startsWith('/companies') ? { cookie: owner.admin.cookie } : bearer(owner.token),
      });
      expect(answer.status).toBe(200);
      for (const id of Object.values(other.ids)) expect(answer.text).not.toContain(id);
    };
    for (let round = 0; round < 8; round++) {
      await Promise.all(
        Array.from({ length: 64 }, (_, i) =>
          ask(
            i % 2 ? a : b,
            i % 2 ? b : a,
            ['/service-accounts', '/companies', '/users', '/audit-events'][(i >> 1) % 4],
          ),
        ),
      );
    }
  });
});
