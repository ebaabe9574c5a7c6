import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { join, startPatient, tokenOf } from '../support/people.js';
import { type Answer, bearer, type Session, type TestService } from '../support/service.js';

let service: TestService;
let admin: Session & { userId: string };
let token: string;
/** Of a company of this test's own. */
let path: string;

beforeAll(async () => {
  service = await startPatient();
  const platform = await service.signIn();
  await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
  token = await tokenOf(service, (await admin.createAccount('HR Sync')).credentials);
});
afterAll(() => service.stop());

const code = ({ status, json }: Answer) => [status, json?.code];
const call = (method: string, url: string, body?: Record<string, unknown> | string, headers = {}) =>
  service.request(method, url, { body, headers: { ...bearer(token), ...headers } });
const company = async (fields: Record<string, unknown> = {}) =>
  `/companies/${(await call('POST', '/companies', { name: 'Employer', ...fields })).json.id}/employees`;
const push = (body: Record<string, unknown>, headers = {}) => call('POST', path, body, headers);
const bulk = (employees: unknown, headers = {}) => call('POST', `${path}/bulk`, { employees }, headers);
const all = async () => (await call('GET', `${path}?limit=200`)).json.data as Record<string, unknown>[];
/** The count of events so far, and those after such a count. */
const mark = async () =>
  (await service.database.query<{ counter: string }>('SELECT max(counter) AS counter FROM audit_event'))[0].counter;
const eventsSince = async (start: string) =>
  service.database.query<{ action: string; targets: { type: string; id: string; name: string }[]; changes: object }>(
    'SELECT action, targets, changes FROM audit_event WHERE counter > $1 ORDER BY counter',
    [start],
  );
const results = ({ json }: Answer) => json.employees.map(({ result }: { result: string }) => result);

const ADA = {
  external_id: 'HR-1',
  name: 'Ada',
  email: 'ada@employer.example',
  job_title: 'Engineer',
  department: 'R&D',
  work_location: 'Ipoh',
  started_on: '2024-02-29',
  ended_on: null,
};

describe('one employee', () => {
  it('V3 is pushed, read, changed and deleted, at the root and under /api/v1 alike', async () => {
    path = await company();
    const made = await push(ADA);
    const { id } = made.json;
    expect([made.status, made.json]).toEqual([
      201,
      {
        ...ADA,
        id: expect.stringMatching(/^[0-9a-f-]{36}$/),
        company_id: path.split('/')[2],
        created_at: expect.any(String),
        updated_at: made.json.created_at,
      },
    ]);
    for (const base of ['', '/api/v1']) {
      expect((await call('GET', `${base}${path}/${id}`)).json).toEqual(made.json);
      expect((await call('GET', base + path)).json).toEqual({ data: [made.json], next_cursor: null });
    }
    const left = await call('PATCH', `${path}/${id}`, { ended_on: '2026-11-30', job_title: null });
    expect([left.status, left.json]).toEqual([
      200,
      { ...made.json, ended_on: '2026-11-30', job_title: null, updated_at: expect.any(String) },
    ]);
    expect(left.json.updated_at > made.json.updated_at).toBe(true);
    expect((await call('DELETE', `/api/v1${path}/${id}`)).status).toBe(204);
    for (const method of ['GET', 'DELETE']) expect((await call(method, `${path}/${id}`)).status).toBe(404);
    expect(await service.database.query('SELECT 1 FROM employee WHERE id = $1', [id])).toEqual([]);
  });

  it('V3 pushed again by its external_id is the same employee: 200, what is left out stays, null clears', async () => {
    path = await company();
    const made = await push(ADA);
    const start = await mark();
    const again = await push(ADA);
    expect([again.status, again.json, again.headers.etag]).toEqual([200, made.json, made.headers.etag]);
    expect((await eventsSince(start)).filter(({ action }) => action.startsWith('employee'))).toEqual([]);
    const changed = await push({ external_id: 'HR-1', name: 'Ada', job_title: 'Head', email: null });
    expect([changed.status, changed.json]).toEqual([
      200,
      { ...made.json, job_title: 'Head', email: null, updated_at: expect.any(String) },
    ]);
    expect(await all()).toEqual([changed.json]);
    // The id is the company's own: elsewhere it is another's.
    path = await company();
    expect((await push(ADA)).status).toBe(201);
  });

  it('V3 without an external_id, or with null, each push is another employee', async () => {
    path = await company();
    for (const body of [{ name: 'Tan' }, { name: 'Tan' }, { name: 'Tan', external_id: null }])
      expect((await push(body)).status).toBe(201);
    expect(await all()).toHaveLength(3);
  });

  it('SC-02 Idempotency-Key: a repeat answers what the first did, 201 and all, and creates nothing', async () => {
    path = await company();
    const key = { 'idempotency-key': 'hire-1' };
    const [one, two] = [await push({ name: 'Tan' }, key), await push({ name: 'Tan' }, key)];
    expect([two.status, two.json, two.headers.etag]).toEqual([201, one.json, one.headers.etag]);
    expect([one.headers['idempotent-replayed'], two.headers['idempotent-replayed']]).toEqual([undefined, 'true']);
    expect(code(await push({ name: 'Lim' }, key))).toEqual([422, 'idempotency_key_reused']);
    expect(await all()).toHaveLength(1);
    const batch = [{ external_id: '1', name: 'Ng' }];
    const first = await bulk(batch, { 'idempotency-key': 'batch-1' });
    const repeat = await bulk(batch, { 'idempotency-key': 'batch-1' });
    expect([results(first), repeat.json]).toEqual([['created'], first.json]);
    expect(repeat.headers['idempotent-replayed']).toBe('true');
  });

  it('V3 the same external_id is pushed sixteen times at once: one employee', async () => {
    path = await company();
    const answers = await Promise.all(Array.from({ length: 16 }, (_, i) => push({ ...ADA, job_title: `Title ${i}` })));
    expect(answers.map(({ status }) => status).sort()).toEqual([...Array(15).fill(200), 201]);
    expect(await all()).toHaveLength(1);
    const [{ version }] = await service.database.query('SELECT version FROM employee WHERE id = $1', [
      answers[0].json.id,
    ]);
    expect(version).toBe(16);
  });

  it('V3 an external_id is not taken from another employee', async () => {
    path = await company();
    await push(ADA);
    const { id } = (await push({ name: 'Bob' })).json;
    expect(code(await call('PATCH', `${path}/${id}`, { external_id: 'HR-1' }))).toEqual([409, 'external_id_taken']);
    expect((await call('PATCH', `${path}/${id}`, { external_id: 'hr-1' })).status).toBe(200); // it is compared exactly
  });

  it.each([
    [{}],
    [{ name: ' ' }],
    [{ name: null }],
    [{ name: 'x', email: 'none' }],
    [{ name: 'x', email: `${'x'.repeat(64)}@${'y'.repeat(190)}.example` }],
    [{ name: 'x', job_title: '' }],
    [{ name: 'x', job_title: 'Two\nlines' }],
    [{ name: 'x', external_id: '' }],
    [{ name: 'x', external_id: 7 }],
    [{ name: 'x', external_id: 'x'.repeat(129) }],
    [{ name: 'x', started_on: '2026-02-30' }],
    [{ name: 'x', started_on: '2026-2-3' }],
    [{ name: 'x', started_on: '2026-02-03T00:00:00Z' }],
    [{ name: 'x', started_on: '0026-02-03' }],
    [{ name: 'x', started_on: '2026-02-03', ended_on: '2026-02-02' }],
    [{ name: 'x', salary: 1 }],
    [{ name: 'x', company_id: 'x' }],
  ])('V3 refused: %j', async (body) => {
    path = await company();
    for (const answer of [
      await push(body),
      await bulk([
        { external_id: '0', name: 'Fine' },
        { external_id: '1', ...body },
      ]),
    ])
      expect(code(answer)).toEqual([400, 'validation_failed']);
    expect(await all()).toEqual([]);
  });

  it('V7 department and work location are ones that the company lists, when it lists any', async () => {
    path = await company({ departments: ['R&D'] });
    expect((await push({ ...ADA, work_location: 'Anywhere' })).status).toBe(201);
    const refused = await push({ name: 'Bob', department: 'r&d' });
    expect([...code(refused), refused.json.errors]).toEqual([
      400,
      'validation_failed',
      [{ field: 'department', message: "department must be one of the company's departments" }],
    ]);
    const [{ id }] = await all();
    const url = `${path}/${id}`;
    await call('PATCH', path.replace('/employees', ''), { work_locations: ['Anywhere', 'Ipoh'] });
    expect((await call('PATCH', url, { work_location: 'Mars' })).json.errors[0].field).toBe('work_location');
    expect((await call('PATCH', url, { work_location: 'Ipoh', department: null })).status).toBe(200);
    expect((await call('PATCH', url, { ended_on: '2024-02-28' })).json.errors[0].field).toBe('ended_on');
  });

  it('AU-01 its events name it and the fields that changed, and hold nothing else of the person', async () => {
    path = await company();
    const start = await mark();
    const { id } = (await push(ADA)).json;
    await push({ ...ADA, email: 'new@employer.example', job_title: 'Head' });
    await call('PATCH', `${path}/${id}`, { name: 'Ada L.' });
    await call('PATCH', `${path}/${id}`, { name: 'Ada L.' });
    await call('DELETE', `${path}/${id}`);
    const events = await eventsSince(start);
    expect(events.map(({ action, changes }) => [action, changes])).toEqual([
      ['employee.created', null],
      ['employee.updated', { email: {}, job_title: {} }],
      ['employee.updated', { name: {} }],
      ['employee.deleted', null],
    ]);
    for (const { targets } of events) expect(targets).toMatchObject([{ type: 'employee', id }, { type: 'company' }]);
    expect(JSON.stringify(events)).not.toMatch(/employer\.example|Engineer|Head|HR-1|Ipoh/);
    expect((await admin.get(`/audit-events?target_id=${id}`)).json.data).toHaveLength(4);
  });
});

describe('many employees', () => {
  const BATCH = Array.from({ length: 100 }, (_, i) => ({
    external_id: `HR-${i}`,
    name: `Employee of an ordinary name ${i}`,
    email: `employee.${i}@a-company-of-ordinary-size.example`,
    job_title: 'Senior Engineer',
    department: 'Engineering',
    work_location: 'Singapore',
    started_on: '2024-01-02',
  }));

  it('V3 a hundred in one request; the same again changes nothing and records nothing', async () => {
    path = await company();
    const start = await mark();
    const made = await bulk(BATCH);
    expect([made.status, Object.keys(made.json)]).toEqual([200, ['employees']]);
    expect(made.json.employees.map(({ external_id }: { external_id: string }) => external_id)).toEqual(
      BATCH.map(({ external_id }) => external_id),
    );
    expect(new Set(results(made))).toEqual(new Set(['created']));
    const [event, ...others] = await eventsSince(start);
    expect(others).toEqual([]);
    expect([event.action, event.changes]).toEqual(['employee.pushed', { created: { to: 100 }, updated: { to: 0 } }]);
    expect(event.targets.map(({ id }) => id)).toEqual([
      path.split('/')[2],
      ...made.json.employees.map(({ id }: { id: string }) => id),
    ]);
    const rows = () => service.database.query('SELECT * FROM employee ORDER BY id');
    const before = await rows();
    const later = await mark();
    const again = await bulk(BATCH);
    expect(new Set(results(again))).toEqual(new Set(['unchanged']));
    expect(await rows()).toEqual(before);
    expect(await eventsSince(later)).toEqual([]);
    expect((await bulk([...BATCH, { external_id: 'HR-100', name: 'One more' }])).status).toBe(400);
  });

  it('V3 a batch makes, changes and leaves as it is, and says which, in one event', async () => {
    path = await company();
    await bulk([ADA, { external_id: 'HR-2', name: 'Bob' }]);
    const start = await mark();
    const answer = await bulk([
      { external_id: 'HR-3', name: 'Eve' },
      { external_id: 'HR-2', name: 'Robert' },
      { external_id: 'HR-1', name: 'Ada' },
    ]);
    expect(results(answer)).toEqual(['created', 'updated', 'unchanged']);
    const [eve, bob] = answer.json.employees;
    expect(await eventsSince(start)).toEqual([
      {
        action: 'employee.pushed',
        targets: [
          expect.objectContaining({ type: 'company' }),
          { type: 'employee', id: eve.id, name: 'Eve' },
          { type: 'employee', id: bob.id, name: 'Robert' },
        ],
        changes: { created: { to: 1 }, updated: { to: 1 } },
      },
    ]);
    expect((await call('GET', `${path}?external_id=HR-1`)).json.data).toMatchObject([ADA]);
    expect((await call('GET', `${path}/${bob.id}`)).headers.etag).toBe('"2"');
  });

  it('V3 all or nothing: each that is not valid is named by its index, and nobody is made', async () => {
    path = await company({ departments: ['Sales'] });
    const fields = async (employees: unknown) => {
      const answer = await bulk(employees);
      expect(code(answer)).toEqual([400, 'validation_failed']);
      return answer.json.errors.map(({ field }: { field: string }) => field);
    };
    const fine = { external_id: '0', name: 'Fine' };
    expect(
      await fields([fine, { external_id: '1', name: 'x', email: 'none' }, { name: 'x' }, { ...fine, pay: 1 }]),
    ).toEqual(['employees.1.email', 'employees.2.external_id', 'employees.3.pay']);
    expect(
      await fields([
        fine,
        { external_id: '1', name: 'x', department: 'Space' },
        { external_id: '2', name: 'x', started_on: '2026-01-02', ended_on: '2026-01-01' },
        { external_id: '0', name: 'Twice' },
      ]),
    ).toEqual(['employees.1.department', 'employees.2.ended_on', 'employees.3.external_id']);
    for (const none of [[], {}, 'x', null, [null], [[]], [[fine]], ['x'], [fine, 1]])
      expect([none, (await fields(none)).length]).not.toEqual([none, 0]);
    expect(await all()).toEqual([]);
  });

  it('V3 two batches of the same people in opposite orders, again and again at once: no deadlock, nobody twice', async () => {
    path = await company();
    const title = (round: number) => BATCH.slice(0, 50).map((one) => ({ ...one, job_title: `Title ${round}` }));
    const deadlocks = async () =>
      (
        await service.database.query<{ deadlocks: string }>(
          'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()',
        )
      )[0].deadlocks;
    const before = await deadlocks();
    const answers = await Promise.all(Array.from({ length: 8 }, (_, i) => bulk(i % 2 ? title(i) : title(i).reverse())));
    expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(200));
    const effects = answers.flatMap(results);
    expect(effects.filter((effect) => effect === 'created')).toHaveLength(50);
    expect(effects.filter((effect) => effect === 'updated')).toHaveLength(350);
    const [{ n }] = await service.database.query<{ n: string }>(
      'SELECT count(*) n FROM employee WHERE company_id = $1',
      [path.split('/')[2]],
    );
    expect([Number(n), await deadlocks()]).toEqual([50, before]);
  });

  it('DS-04 as many values as fit the body are refused by their number, not one by one', async () => {
    path = await company();
    const send = (url: string, text: string) => call('POST', url, text, { 'content-type': 'application/json' });
    const items = (count: number) => `{"employees":[${Array(count).fill('{}')}]}`;
    const answer = await send(`${path}/bulk`, items(1990));
    expect([...code(answer), answer.json.errors]).toEqual([
      400,
      'validation_failed',
      [{ field: 'employees', message: 'employees must contain no more than 100 elements' }],
    ]);
    const members = Array.from({ length: 8000 }, (_, i) => `"${i.toString(36)}":0`);
    for (const [url, text] of [
      [`${path}/bulk`, items(21_000)],
      ['/companies', `{"name":"Employer",${members}}`],
      ['/companies', `{"name":"Employer","departments":[${Array(1000).fill('[0]')}]}`],
    ]) {
      const { json } = await send(url, text);
      expect([json.code, json.detail]).toEqual(['malformed_request', 'The body holds more than 2000 values']);
    }
  });
});
