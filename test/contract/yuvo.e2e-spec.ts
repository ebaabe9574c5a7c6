import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { accessToken, expectToken, PATIENT } from '../support/oauth.js';
import { basic, bearer, type Session, type TestAccount, TestService } from '../support/service.js';

/** The fourth source: an application that creates companies and pushes employees. */
let service: TestService;
let admin: Session;
let application: TestAccount;

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  admin = await service.signIn();
  await admin.createOrganization('Developer');
  application = await admin.createAccount('Payroll Sync');
});
afterAll(() => service?.stop());

const at = (token: string) => ({
  get: (url: string) => service.request('GET', url, { headers: bearer(token) }),
  post: (url: string, body: Record<string, unknown>) => service.request('POST', url, { headers: bearer(token), body }),
  patch: (url: string, body: Record<string, unknown>) =>
    service.request('PATCH', url, { headers: bearer(token), body }),
});

it('V2 POST /oauth/token/ with its slash, by Basic', async () => {
  const answer = await service.request('POST', '/oauth/token/', {
    headers: {
      authorization: basic(application.credentials),
      'content-type': 'application/x-www-form-urlencoded',
    },
    body: 'grant_type=client_credentials',
  });
  expectToken(answer, 'companies:read companies:write employees:write');
});

it('V3 it creates companies and pushes employees, and has access to the companies that it created alone', async () => {
  const own = at(await accessToken(service, application));
  const made = await own.post('/companies', { name: 'Made here', uen_code: '201912345D' });
  expect([made.status, made.json.created_by]).toEqual([201, application.id]);
  const path = `/companies/${made.json.id}`;
  const employee = await own.post(`${path}/employees`, {
    name: 'Tan Mei Ling',
    email: 'mei@example.com',
    department: 'Finance',
  });
  expect([employee.status, employee.json.company_id]).toEqual([201, made.json.id]);
  expect((await own.get(`${path}/employees`)).json.data).toMatchObject([
    { id: employee.json.id, name: 'Tan Mei Ling' },
  ]);
  expect((await own.patch(path, { sector: 'Services' })).json.sector).toBe('Services');

  const sibling = at(await accessToken(service, await admin.createAccount('Another application')));
  expect((await sibling.get('/companies')).json.data).toEqual([]);
  for (const answer of [
    await sibling.get(path),
    await sibling.patch(path, { sector: 'x' }),
    await sibling.get(`${path}/employees`),
    await sibling.post(`${path}/employees`, { name: 'x' }),
  ]) {
    expect([answer.status, answer.json.code]).toEqual([404, 'not_found']);
  }
  expect((await own.get(path)).json.sector).toBe('Services');
});

it('V7 GET /companies with a bearer token: the fields of the documentation', async () => {
  const fields = {
    name: 'Fields',
    uen_code: '53123456A',
    sector: 'Hospitality',
    entity_type: 'Company',
    entity_sub_type: 'Private limited',
    work_locations: ['Orchard', 'Jurong'],
    departments: ['Kitchen', 'Floor'],
  };
  const own = at(await accessToken(service, await admin.createAccount('Fields')));
  expect((await own.post('/companies', fields)).status).toBe(201);
  const { status, json } = await own.get('/companies');
  expect([status, json]).toEqual([200, { data: [expect.objectContaining(fields)], next_cursor: null }]);
});

it('V2 V3 V7 the samples one after the other: a token by Basic at /oauth/token/, with it GET /companies and its seven members', async () => {
  const sender = await admin.createAccount('Sender');
  const answer = await service.request('POST', '/oauth/token/', {
    headers: { authorization: basic(sender.credentials), 'content-type': 'application/x-www-form-urlencoded' },
    body: 'grant_type=client_credentials',
  });
  const own = at(answer.json.access_token);
  const company = (await own.post('/companies/', { name: 'Sent', departments: ['Kitchen'] })).json;
  const employees = `/companies/${company.id}/employees/`;
  const push = { external_id: 'E-1', name: 'Tan Mei Ling', department: 'Kitchen' };
  expect((await own.post(employees, push)).status).toBe(201);
  expect((await own.post(employees, { ...push, job_title: 'Chef' })).status).toBe(200);
  const batch = { employees: [push, { ...push, external_id: 'E-2' }] };
  expect((await own.post(`${employees}bulk/`, batch)).json.employees).toMatchObject([
    { external_id: 'E-1', result: 'unchanged' },
    { external_id: 'E-2', result: 'created' },
  ]);
  expect((await own.get(employees)).json.data).toMatchObject([{ job_title: 'Chef' }, { external_id: 'E-2' }]);
  const [listed] = (await own.get('/companies')).json.data;
  for (const member of [
    'name',
    'uen_code',
    'sector',
    'entity_type',
    'entity_sub_type',
    'work_locations',
    'departments',
  ])
    expect(Object.keys(listed)).toContain(member);
  expect(listed).toEqual((await own.get(`/companies/${company.id}/`)).json);
});
