import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { join, startPatient, tokenOf } from '../support/people.js';
import { type Answer, bearer, type Session, type TestService } from '../support/service.js';

let service: TestService;
let admin: Session & { userId: string };
let first: { id: string; token: string };
let second: { id: string; token: string };

beforeAll(async () => {
  service = await startPatient();
  const platform = await service.signIn();
  await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
  const make = async (name: string, scopes?: string[]) => {
    const account = await admin.createAccount(name, scopes);
    return { id: account.id, token: await tokenOf(service, account.credentials) };
  };
  first = await make('First');
  second = await make('Second');
});
afterAll(() => service.stop());

const code = ({ status, json }: Answer) => [status, json?.code];
const call = (token: string, method: string, path: string, body?: Record<string, unknown>) =>
  service.request(method, path, { body, headers: bearer(token) });

const FIELDS = {
  name: 'Widgets Pte Ltd',
  uen_code: '201912345K',
  sector: 'Manufacturing',
  entity_type: 'company',
  entity_sub_type: 'private limited',
  work_locations: ['Singapore', 'Ipoh'],
  departments: ['Sales'],
};

describe('companies', () => {
  it('V7 the fields of a company, at the root and under /api/v1 alike', async () => {
    const made = await call(first.token, 'POST', '/companies', FIELDS);
    expect(made.status).toBe(201);
    expect(made.json).toEqual({
      ...FIELDS,
      id: expect.any(String),
      created_by: first.id,
      created_at: expect.any(String),
      updated_at: expect.any(String),
    });
    for (const base of ['', '/api/v1']) {
      expect((await call(first.token, 'GET', `${base}/companies/${made.json.id}`)).json).toEqual(made.json);
      expect((await call(first.token, 'GET', `${base}/companies/`)).json.data).toContainEqual(made.json);
    }
    const sparse = await call(first.token, 'POST', '/api/v1/companies', { name: 'Sparse' });
    expect(sparse.json).toMatchObject({ uen_code: null, sector: null, work_locations: [], departments: [] });
  });

  it('V3 D17 an account reaches what it created itself, full and alone; a person all of the organization’s', async () => {
    const { id } = (await call(first.token, 'POST', '/companies', { name: 'Of the first' })).json;
    const random = await call(second.token, 'GET', '/companies/01a1fe39-0000-7000-8000-000000000000');
    for (const [method, path, body] of [
      ['GET', '', undefined],
      ['PATCH', '', { name: 'Taken' }],
      ['GET', '/employees', undefined],
      ['POST', '/employees', { name: 'Mole' }],
    ] as const) {
      const answer = await call(second.token, method, `/companies/${id}${path}`, body);
      expect(code(answer)).toEqual([404, 'not_found']);
      expect({ ...answer.json, request_id: 0 }).toEqual({ ...random.json, request_id: 0 });
    }
    const listed = (await call(second.token, 'GET', '/companies')).json.data;
    expect(listed.every(({ created_by }: { created_by: string }) => created_by === second.id)).toBe(true);
    expect((await call(first.token, 'PATCH', `/companies/${id}`, { sector: 'Food' })).json.sector).toBe('Food');
    expect((await admin.get(`/companies/${id}`)).json.name).toBe('Of the first');
    expect((await admin.patch(`/companies/${id}`, { name: 'By the admin' })).status).toBe(200);
    expect((await call(first.token, 'GET', `/companies/${id}`)).json.name).toBe('By the admin');
  });

  it('D15 /companies is a list for a client-credentials token, under both paths, in pages', async () => {
    for (const name of ['Page 1', 'Page 2', 'Page 3']) await call(second.token, 'POST', '/companies', { name });
    for (const base of ['', '/api/v1']) {
      const seen: string[] = [];
      for (let cursor = ''; ; ) {
        const answer = await call(second.token, 'GET', `${base}/companies?limit=2${cursor}`);
        expect(Object.keys(answer.json)).toEqual(['data', 'next_cursor']);
        seen.push(...answer.json.data.map(({ name }: { name: string }) => name));
        if (answer.json.next_cursor === null) break;
        cursor = `&cursor=${answer.json.next_cursor}`;
      }
      expect(seen).toEqual(['Page 1', 'Page 2', 'Page 3']);
    }
    const { next_cursor } = (await call(second.token, 'GET', '/companies?limit=2')).json;
    expect(code(await call(first.token, 'GET', `/companies?cursor=${next_cursor}`))).toEqual([400, 'invalid_cursor']);
  });

  it('D17 a company stays with the organization when its creator is deleted', async () => {
    const gone = await admin.createAccount('Gone');
    const token = await tokenOf(service, gone.credentials);
    const { id } = (await call(token, 'POST', '/companies', { name: 'Orphan' })).json;
    await admin.delete(`/service-accounts/${gone.id}`);
    expect((await admin.get(`/companies/${id}`)).json).toMatchObject({ name: 'Orphan', created_by: gone.id });
    expect((await call(first.token, 'GET', `/companies/${id}`)).status).toBe(404);
  });

  it.each([
    [{ name: '' }],
    [{ name: 'x', uen_code: 'x'.repeat(33) }],
    [{ name: 'x', sector: 1 }],
    [{ name: 'x', work_locations: 'Singapore' }],
    [{ name: 'x', work_locations: [''] }],
    [{ name: 'x', departments: [{ name: 'Sales' }] }],
    [{ name: 'x', departments: null }],
    [{ name: 'x', created_by: 'me' }],
    [{}],
  ])('V7 refused: %j', async (body) => {
    expect(code(await call(first.token, 'POST', '/companies', body))).toEqual([400, 'validation_failed']);
  });

  it('Y2 what an account does to a company stands in the log under its name, secret and token', async () => {
    const made = await call(first.token, 'POST', '/companies', { name: 'Logged', sector: 'A' });
    await call(first.token, 'PATCH', `/companies/${made.json.id}`, { sector: 'B' });
    await call(first.token, 'PATCH', `/companies/${made.json.id}`, { sector: 'B' });
    const events = (await admin.get(`/audit-events?target_id=${made.json.id}`)).json.data;
    expect(events.map(({ action }: { action: string }) => action)).toEqual(['company.updated', 'company.created']);
    expect(events[0]).toMatchObject({
      actor: { type: 'service_account', id: first.id, name: 'First' },
      changes: { sector: { from: 'A', to: 'B' } },
      credential_id: expect.any(String),
      token_id: expect.any(String),
    });
  });
});

describe('employees', () => {
  it('V3 an application pushes employees to its own companies', async () => {
    const { id } = (await call(first.token, 'POST', '/companies', { name: 'Employer' })).json;
    const body = {
      name: 'Ada',
      email: 'ada@employer.example',
      job_title: 'Engineer',
      department: 'R&D',
      work_location: 'Ipoh',
    };
    const made = await call(first.token, 'POST', `/companies/${id}/employees`, body);
    expect(made.status).toBe(201);
    expect(made.json).toEqual({ ...body, id: expect.any(String), company_id: id, created_at: expect.any(String) });
    const list = await call(first.token, 'GET', `/api/v1/companies/${id}/employees`);
    expect(list.json).toEqual({ data: [made.json], next_cursor: null });
    for (const bad of [{ name: 'x', email: 'none' }, { name: 'x', salary: 1 }, { email: 'a@b.example' }])
      expect(code(await call(first.token, 'POST', `/companies/${id}/employees`, bad))).toEqual([
        400,
        'validation_failed',
      ]);
  });

  it('E8 each needs its own scope', async () => {
    const { id } = (await call(first.token, 'POST', '/companies', { name: 'Scoped' })).json;
    const narrow = await admin.createAccount('Narrow', ['companies:read']);
    const token = await tokenOf(service, narrow.credentials);
    for (const [path, scope, body] of [
      ['/companies', 'companies:write', { name: 'x' }],
      [`/companies/${id}/employees`, 'employees:write', { name: 'x' }],
    ] as const) {
      const answer = await call(token, 'POST', path, body);
      expect(code(answer)).toEqual([403, 'insufficient_scope']);
      expect(answer.headers['www-authenticate']).toBe(
        `Bearer realm="gatehouse", error="insufficient_scope", error_description="The access token lacks a scope", scope="${scope}"`,
      );
    }
  });
});
