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
    const clerk = (await call(first.token, 'POST', `/companies/${id}/employees`, { name: 'Clerk' })).json.id;
    const random = await call(second.token, 'GET', '/companies/01a1fe39-0000-7000-8000-000000000000');
    for (const [method, path, body] of [
      ['GET', '', undefined],
      ['PATCH', '', { name: 'Taken' }],
      ['GET', '/employees', undefined],
      ['POST', '/employees', { name: 'Mole' }],
      ['POST', '/employees/bulk', { employees: [{ external_id: '1', name: 'Mole' }] }],
      ['GET', `/employees/${clerk}`, undefined],
      ['PATCH', `/employees/${clerk}`, { name: 'Mole' }],
      ['DELETE', `/employees/${clerk}`, undefined],
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
    [{ name: 'x', departments: ['Sales', 'Legal', 'SALES'] }],
    [{ name: 'x', departments: ['Caf\u00e9', 'Cafe\u0301'] }],
    [{ name: 'x', departments: ['Two\nlines'] }],
    [{ name: 'x', departments: [' '] }],
    [{ name: 'x', departments: [['Sales']] }],
    [{ name: 'x', work_locations: ['x'.repeat(257)] }],
    [{ name: 'x', work_locations: Array.from({ length: 501 }, (_, i) => `${i}`) }],
    [{ name: 'x', sector: '' }],
    [{ name: 'x', uen_code: '\u0007' }],
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

describe('V7 work locations and departments', () => {
  it('V7 are kept in their order, up to five hundred, in any script', async () => {
    const departments = Array.from({ length: 500 }, (_, i) => `Department ${499 - i}`);
    const body = { name: 'Listed', departments, work_locations: ['淡滨尼', 'Ang Mo Kio', '🏢 Orchard'] };
    const made = await call(first.token, 'POST', '/companies', body);
    expect([made.status, made.json]).toEqual([201, expect.objectContaining(body)]);
    const turned = [...body.work_locations].reverse();
    const patched = await call(first.token, 'PATCH', `/companies/${made.json.id}`, { work_locations: turned });
    expect(patched.json.work_locations).toEqual(turned); // another order is a change
    const [event] = (await admin.get(`/audit-events?target_id=${made.json.id}&action=company.updated`)).json.data;
    expect(event.changes).toEqual({ work_locations: { from: body.work_locations, to: turned } });
  });

  it('V7 one that an employee has is not taken off; an empty list leaves them free', async () => {
    const body = { name: 'In use', departments: ['Sales', 'Legal'], work_locations: ['Orchard', 'Jurong'] };
    const path = `/companies/${(await call(first.token, 'POST', '/companies', body)).json.id}`;
    await call(first.token, 'POST', `${path}/employees`, { name: 'Ada', department: 'Sales', work_location: 'Jurong' });
    const patch = async (change: Record<string, unknown>) => call(first.token, 'PATCH', path, change);
    for (const change of [{ departments: ['Legal'] }, { departments: ['sales'] }, { work_locations: ['Orchard'] }])
      expect([change, ...code(await patch(change))]).toEqual([change, 409, 'in_use']);
    expect((await call(first.token, 'GET', path)).json).toMatchObject(body);
    expect((await patch({ departments: ['Sales', 'Kitchen'] })).json.departments).toEqual(['Sales', 'Kitchen']);
    expect((await patch({ departments: [], work_locations: [] })).status).toBe(200);
    expect((await call(first.token, 'POST', `${path}/employees`, { name: 'Bob', department: 'Space' })).status).toBe(
      201,
    );
    expect(code(await patch({ departments: ['Sales'] }))).toEqual([409, 'in_use']); // Bob's
    expect((await patch({ departments: ['Sales', 'Space'] })).status).toBe(200);
  });

  it('V7 a push and the removal of its department at once: never an employee of a department that is not listed', async () => {
    const path = `/companies/${(await call(first.token, 'POST', '/companies', { name: 'Raced' })).json.id}`;
    for (let round = 0; round < 8; round++) {
      await call(first.token, 'PATCH', path, { departments: ['Base', `Gone ${round}`] });
      const [removed, pushed] = await Promise.all([
        call(first.token, 'PATCH', path, {
          departments: ['Base', ...Array.from({ length: round }, (_, i) => `Gone ${i}`)],
        }),
        call(first.token, 'POST', `${path}/employees`, { name: 'Ada', department: `Gone ${round}` }),
      ]);
      expect([
        [200, 400],
        [409, 201],
      ]).toContainEqual([removed.status, pushed.status]);
      if (removed.status === 200) await call(first.token, 'PATCH', path, { departments: [] });
      const { departments } = (await call(first.token, 'GET', path)).json;
      const there = (await call(first.token, 'GET', `${path}/employees`)).json.data;
      if (departments.length > 0) for (const { department } of there) expect(departments).toContain(department);
      await call(first.token, 'PATCH', path, { departments: [] });
    }
  });

  it('D14 null clears a field, and is none from the start; null is no list and no name', async () => {
    const made = await call(first.token, 'POST', '/companies', { name: 'Cleared', sector: 'Food', uen_code: null });
    expect(made.json).toMatchObject({ sector: 'Food', uen_code: null });
    const path = `/companies/${made.json.id}`;
    expect((await call(first.token, 'PATCH', path, { sector: null })).json.sector).toBeNull();
    for (const body of [{ name: null }, { work_locations: null }])
      expect(code(await call(first.token, 'PATCH', path, body))).toEqual([400, 'validation_failed']);
  });
});

describe('scopes', () => {
  it('E8 each needs its own scope', async () => {
    const { id } = (await call(first.token, 'POST', '/companies', { name: 'Scoped' })).json;
    const narrow = await admin.createAccount('Narrow', ['companies:read']);
    const token = await tokenOf(service, narrow.credentials);
    for (const [path, scope, body] of [
      ['/companies', 'companies:write', { name: 'x' }],
      [`/companies/${id}/employees`, 'employees:write', { name: 'x' }],
      [`/companies/${id}/employees/bulk`, 'employees:write', { employees: [] }],
    ] as const) {
      const answer = await call(token, 'POST', path, body);
      expect(code(answer)).toEqual([403, 'insufficient_scope']);
      expect(answer.headers['www-authenticate']).toBe(
        `Bearer realm="gatehouse", error="insufficient_scope", error_description="The access token lacks a scope", scope="${scope}"`,
      );
    }
  });
});
