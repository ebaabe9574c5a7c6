import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { join, startPatient } from '../support/people.js';
import type { Answer, Session, TestService } from '../support/service.js';

let service: TestService;
let admin: Session;
let company: string;
let employee: string;

beforeAll(async () => {
  service = await startPatient();
  const platform = await service.signIn();
  await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
  company = `/companies/${(await admin.post('/companies', { name: 'Tagged' })).json.id}`;
  employee = `${company}/employees/${(await admin.post(`${company}/employees`, { name: 'Ada' })).json.id}`;
});
afterAll(() => service.stop());

const code = ({ status, json }: Answer) => [status, json?.code];
const tagOf = async (path: string) => (await admin.get(path)).headers.etag as string;

describe.each(['company', 'employee'])('the entity tag of a %s', (kind) => {
  let path: string;
  let field: string;
  beforeAll(() => {
    path = kind === 'company' ? company : employee;
    field = kind === 'company' ? 'sector' : 'job_title';
  });
  const patch = (value: string | null, tag?: string) =>
    admin.patch(path, { [field]: value }, tag === undefined ? undefined : { 'if-match': tag });

  it('V7 is strong, the same on GET, HEAD, POST and PATCH, and another after each change alone', async () => {
    const made = await admin.post(kind === 'company' ? '/companies' : `${company}/employees`, { name: 'New' });
    expect(made.headers.etag).toMatch(/^"[\x21\x23-\x7e]+"$/);
    const url = `${kind === 'company' ? '/companies' : `${company}/employees`}/${made.json.id}`;
    for (const method of ['GET', 'HEAD']) expect((await admin.call(method, url)).headers.etag).toBe(made.headers.etag);
    const changed = await admin.patch(url, { name: 'Newer' });
    expect(changed.headers.etag).not.toBe(made.headers.etag);
    expect((await admin.patch(url, { name: 'Newer' })).headers.etag).toBe(changed.headers.etag);
    expect(await tagOf(url)).toBe(changed.headers.etag);
    expect((await admin.get(url.replace(/\/[^/]+$/, ''))).headers.etag).toBeUndefined(); // a list has none
  });

  it('V7 If-Match: the present one or * changes, one from before is 412 and nothing happens, none is no condition', async () => {
    const old = await tagOf(path);
    expect((await patch('A', old)).status).toBe(200);
    const stale = await patch('B', old);
    expect([...code(stale), stale.headers.etag]).toEqual([412, 'precondition_failed', undefined]);
    expect((await admin.get(path)).json[field]).toBe('A');
    expect(code(await patch('A', old))).toEqual([412, 'precondition_failed']); // though nothing would change
    const present = await tagOf(path);
    expect((await patch('C', `"x,y", ${old},${present}`)).status).toBe(200);
    expect((await patch('D', '*')).status).toBe(200);
    expect((await patch('E')).status).toBe(200);
    expect(code(await patch('F', `W/${await tagOf(path)}`))).toEqual([412, 'precondition_failed']); // RFC 9110 §13.1.1
    for (const bad of ['1', '', ',', '"', '"1', 'W/', 'w/"1"', 'W/ "1"', '"1" x', '"a b"', '"*" *', '**'])
      expect([bad, ...code(await patch('G', bad))]).toEqual([bad, 400, 'invalid_parameter']);
    expect((await admin.get(path)).json[field]).toBe('E');
  });

  it('V7 two that change it with the same tag at once: one does, the other is told', async () => {
    for (let round = 0; round < 8; round++) {
      const tag = await tagOf(path);
      const answers = await Promise.all(['x', 'y', 'z'].map((name) => patch(`${name} ${round}`, tag)));
      expect(answers.map(({ status }) => status).sort()).toEqual([200, 412, 412]);
      const winner = answers.find(({ status }) => status === 200)!;
      expect((await admin.get(path)).json).toEqual(winner.json);
    }
  });

  it('V7 If-None-Match: 304 without a body for what is known, weakly or not, and the whole for the rest', async () => {
    const tag = await tagOf(path);
    const whole = await admin.get(path);
    for (const known of [tag, `W/${tag}`, `"x" , ${tag}`, '*']) {
      const answer = await admin.get(path, { 'if-none-match': known });
      expect([known, answer.status, answer.text]).toEqual([known, 304, '']);
      for (const header of ['etag', 'cache-control', 'content-security-policy'])
        expect([header, answer.headers[header]]).toEqual([header, whole.headers[header]]);
    }
    expect((await admin.call('HEAD', path, undefined, { 'if-none-match': tag })).status).toBe(304);
    expect((await admin.get(path, { 'if-none-match': '"0", W/"0"' })).json).toEqual(whole.json);
    expect(code(await admin.get(path, { 'if-none-match': '1' }))).toEqual([400, 'invalid_parameter']);
    await patch('Changed');
    expect((await admin.get(path, { 'if-none-match': tag })).status).toBe(200);
  });

  it('TN-01 tells nothing of what is out of reach', async () => {
    const nowhere = path.replace(/[^/]+$/, '01a1fe39-0000-7000-8000-000000000000');
    expect(code(await admin.get(nowhere, { 'if-none-match': '*' }))).toEqual([404, 'not_found']);
    expect(code(await admin.patch(nowhere, {}, { 'if-match': '"1"' }))).toEqual([404, 'not_found']);
  });
});

it('V3 a delete heeds If-Match as well', async () => {
  const { json, headers } = await admin.post(`${company}/employees`, { name: 'Brief' });
  const path = `${company}/employees/${json.id}`;
  await admin.patch(path, { name: 'Changed' });
  const remove = (tag: string) => admin.delete(path, { 'if-match': tag });
  expect(code(await remove(headers.etag as string))).toEqual([412, 'precondition_failed']);
  expect((await remove(await tagOf(path))).status).toBe(204);
});
