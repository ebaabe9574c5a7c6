import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { SelectQueryBuilder } from 'typeorm';
import { Companies } from '../../src/companies/companies.service.js';
import { Employees } from '../../src/companies/employees.service.js';
import type { Caller } from '../../src/kernel/actor.js';
import { join, startPatient, tokenOf } from '../support/people.js';
import { type Answer, bearer, type Session, type TestAccount, type TestService } from '../support/service.js';

let service: TestService;
let organization: { id: string };
let admin: Session & { userId: string };
let account: TestAccount;
let token: string;
let employees: string;

const COMPANIES = [
  { name: 'Orchard Foods', uen_code: '201912345K', sector: 'Food', entity_type: 'Company' },
  { name: 'orchid bar', uen_code: '53123456A', sector: 'Food', entity_type: 'Partnership' },
  { name: '100% Paper', uen_code: 'T08GB0001A', sector: 'Retail', entity_type: 'Company' },
  { name: '100 Paper', uen_code: 'T08GB0002B', sector: 'Retail', entity_type: 'Company' },
];
const EMPLOYEES = [
  { external_id: '1', name: 'Ada Lim', email: 'Ada@example.com', department: 'Kitchen', work_location: 'Orchard' },
  { external_id: '2', name: 'Adam Tan', email: 'tan@example.com', department: 'Kitchen', work_location: 'Jurong' },
  { external_id: '3', name: 'Émile Goh', email: 'adamant@example.com', department: 'Floor', work_location: 'Jurong' },
  { external_id: '12', name: 'Lim_Ada' },
];

beforeAll(async () => {
  service = await startPatient();
  const platform = await service.signIn();
  organization = await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
  account = await admin.createAccount('HR Sync');
  token = await tokenOf(service, account.credentials);
  for (const company of COMPANIES) await admin.post('/companies', company);
  const { id } = (await admin.get('/companies?limit=1')).json.data[0];
  employees = `/companies/${id}/employees`;
  for (const employee of EMPLOYEES) await admin.post(employees, employee);
});
afterAll(() => service.stop());

const code = ({ status, json }: Answer) => [status, json?.code];
const names = async (path: string) => (await admin.get(path)).json.data.map(({ name }: { name: string }) => name);

describe('searching', () => {
  it('V7 each filter of companies finds its own, and together they narrow', async () => {
    for (const [filter, found] of [
      ['name=ORCH', [0, 1]],
      ['name=orchard%20', [0]],
      ['name=Foods', []], // it is about how a name begins
      ['name=100%25', [2]],
      ['name=100_', []],
      ['uen_code=T08GB0001A', [2]],
      ['uen_code=t08gb0001a', []],
      ['sector=Food', [0, 1]],
      ['entity_type=Company', [0, 2, 3]],
      ['sector=Retail&entity_type=Company&name=100%20', [3]],
      ['sector=Food&uen_code=T08GB0001A', []],
      ['updated_since=2999-01-01T00:00:00Z', []],
      ['updated_since=2000-01-01T00:00:00%2B08:00', [0, 1, 2, 3]],
    ] as [string, number[]][])
      expect([filter, await names(`/companies?${filter}`)]).toEqual([filter, found.map((i) => COMPANIES[i].name)]);
  });

  it('V3 each filter of employees finds its own, and together they narrow', async () => {
    for (const [filter, found] of [
      ['search=ada', [0, 1, 2]], // by name, by name, by address
      ['search=ada%20', [0]],
      ['search=%C3%A9mile', [2]],
      ['search=example', []],
      ['search=lim_', [3]],
      ['email=ADA@EXAMPLE.COM', [0]],
      ['email=ada', []],
      ['department=Kitchen', [0, 1]],
      ['work_location=Jurong', [1, 2]],
      ['external_id=1', [0]],
      ['search=a&department=Kitchen&work_location=Jurong', [1]],
      ['updated_since=2999-01-01T00:00:00Z', []],
    ] as [string, number[]][])
      expect([filter, await names(`${employees}?${filter}`)]).toEqual([filter, found.map((i) => EMPLOYEES[i].name)]);
  });

  it('V7 updated_since: what was changed from then on, a change that changes nothing aside', async () => {
    const [first, second] = (await admin.get('/companies')).json.data;
    await new Promise((resolve) => setTimeout(resolve, 5));
    await admin.patch(`/companies/${second.id}`, { sector: second.sector });
    const { updated_at } = (await admin.patch(`/companies/${first.id}`, { entity_sub_type: 'LLP' })).json;
    expect(await names(`/companies?updated_since=${updated_at}`)).toEqual([first.name]);
    const [ada, adam] = (await admin.get(employees)).json.data;
    await admin.post(employees, { external_id: ada.external_id, name: ada.name });
    const changed = (await admin.post(employees, { external_id: adam.external_id, name: adam.name, job_title: 'Cook' }))
      .json;
    expect(await names(`${employees}?updated_since=${changed.updated_at}`)).toEqual([adam.name]);
  });

  it('V7 what is no filter, or no value of one, is refused', async () => {
    for (const bad of [
      'x=1',
      'sort=name',
      'name=',
      'name=a&name=b',
      'name[]=a',
      'sector=%0A',
      'updated_since=2026-01-01',
    ])
      for (const path of ['/companies', employees])
        expect([bad, ...code(await admin.get(`${path}?${bad}`))]).toEqual([bad, 400, 'validation_failed']);
    expect(code(await admin.get(`${employees}?name=Ada`))).toEqual([400, 'validation_failed']);
  });

  it('V7 pages hold to their filters: each once, and a cursor is good for its own alone', async () => {
    for (const [path, all, other] of [
      ['/companies?name=1', ['100% Paper', '100 Paper'], '/companies?name=10'],
      [`${employees}?department=Kitchen`, ['Ada Lim', 'Adam Tan'], `${employees}?department=Floor`],
    ] as [string, string[], string][]) {
      const one = (await admin.get(`${path}&limit=1`)).json;
      const two = (await admin.get(`${path}&limit=1&cursor=${one.next_cursor}`)).json;
      expect([...one.data, ...two.data].map(({ name }: { name: string }) => name)).toEqual(all);
      expect(two.next_cursor).toBeNull();
      for (const list of [other, path.split('?')[0]])
        expect(code(await admin.get(`${list}${list.includes('?') ? '&' : '?'}cursor=${one.next_cursor}`))).toEqual([
          400,
          'invalid_cursor',
        ]);
    }
  });

  it('TN-07 D17 no filter finds what is out of reach', async () => {
    for (const filter of ['name=o', 'uen_code=201912345K', 'sector=Food', 'entity_type=Company']) {
      const answer = await service.request('GET', `/companies?${filter}`, { headers: bearer(token) });
      expect([answer.status, answer.json.data]).toEqual([200, []]);
    }
    const answer = await service.request('GET', `${employees}?search=a`, { headers: bearer(token) });
    expect(code(answer)).toEqual([404, 'not_found']);
  });
});

describe('among twenty thousand', () => {
  const caller = (type: 'user' | 'service_account') =>
    ({ actor: { type, id: account.id }, organizationId: organization.id }) as unknown as Caller;

  /** The plan of the list that `list` asks for. */
  async function planOf(list: () => Promise<unknown>): Promise<string> {
    const { getMany } = SelectQueryBuilder.prototype;
    let plan = '';
    SelectQueryBuilder.prototype.getMany = async function () {
      const [sql, values] = this.getQueryAndParameters();
      plan = JSON.stringify(await service.database.query(`EXPLAIN ${sql}`, values as unknown[]));
      return [];
    };
    try {
      await list();
    } finally {
      SelectQueryBuilder.prototype.getMany = getMany;
    }
    return plan;
  }

  beforeAll(async () => {
    const { database } = service;
    const company = employees.split('/')[2];
    await database.query(
      `INSERT INTO company (organization_id, id, name, uen_code, sector, entity_type, created_by, updated_at)
       SELECT $1, gen_random_uuid(), 'Company ' || n, 'U' || n, 'Sector ' || n % 200, 'Type ' || n % 200, gen_random_uuid(),
              now() - n * interval '1 hour' FROM generate_series(1, 20000) n`,
      [organization.id],
    );
    await database.query(
      `INSERT INTO employee (organization_id, id, company_id, external_id, name, email, department, work_location, created_by, updated_at)
       SELECT $1, gen_random_uuid(), $2, 'HR-' || n, 'Person ' || n, 'person' || n || '@example.com', 'Department ' || n % 200,
              'Location ' || n % 200, $2, now() - n * interval '1 hour' FROM generate_series(1, 20000) n`,
      [organization.id, company],
    );
    await database.query('ANALYZE company, employee');
  });

  it('V7 each filter of companies has its index', async () => {
    const companies = service.app.get(Companies);
    for (const [filter, index] of [
      [{ name: 'Company 777' }, 'company_name_idx'],
      [{ uenCode: 'U7' }, 'company_uen_code_idx'],
      [{ sector: 'Sector 7' }, 'company_sector_idx'],
      [{ entityType: 'Type 7' }, 'company_entity_type_idx'],
      [{ updatedSince: new Date(Date.now() - 7_200_000) }, 'company_updated_at_idx'],
      [{}, 'company_pkey'],
    ] as [Parameters<Companies['list']>[1], string][]) {
      const plan = await planOf(() => companies.list(caller('user'), filter, 50));
      expect([filter, plan]).toEqual([filter, expect.stringContaining(index)]);
      expect([filter, plan]).not.toEqual([filter, expect.stringContaining('Seq Scan')]);
      // Of those that an account made itself, few, whatever is asked of them.
      const own = await planOf(() => companies.list(caller('service_account'), filter, 50));
      expect([filter, own]).toEqual([filter, expect.stringMatching(/company_\w+_idx/)]);
      expect([filter, own]).not.toEqual([filter, expect.stringContaining('Seq Scan')]);
    }
  });

  it('V3 each filter of employees has its index', async () => {
    const service_ = service.app.get(Employees);
    for (const [filter, index] of [
      [{ search: 'Person 777' }, 'employee_name_idx.*employee_email_idx'],
      [{ email: 'person7@example.com' }, 'employee_email_idx'],
      [{ department: 'Department 7' }, 'employee_department_idx'],
      [{ workLocation: 'Location 7' }, 'employee_work_location_idx'],
      [{ externalId: 'HR-7' }, 'employee_external_id_key'],
      [{ updatedSince: new Date(Date.now() - 7_200_000) }, 'employee_updated_at_idx'],
      [{}, 'employee_company_id_idx|employee_pkey'],
    ] as [Parameters<Employees['list']>[2], string][]) {
      const plan = await planOf(() => service_.list(caller('user'), employees.split('/')[2], filter, 50));
      expect([filter, plan]).toEqual([filter, expect.stringMatching(index)]);
      expect([filter, plan]).not.toEqual([filter, expect.stringContaining('Seq Scan')]);
    }
  });

  it('V7 a list of twenty thousand goes on behind its cursor, and another id does not help', async () => {
    const page = (await admin.get('/companies?limit=200&name=Company%201')).json;
    expect(page.data).toHaveLength(200);
    expect(
      (await admin.get(`/companies?limit=200&name=Company%201&cursor=${page.next_cursor}`)).json.data,
    ).toHaveLength(200);
    expect(code(await admin.get(`/companies?name=Company%201&cursor=${randomUUID()}`))).toEqual([
      400,
      'invalid_cursor',
    ]);
  });
});
