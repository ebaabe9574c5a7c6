import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type Answer, type Session, TestService } from '../support/service.js';

let service: TestService;
let platform: Session;

beforeAll(async () => {
  service = await TestService.start();
  platform = await service.signIn();
});
afterAll(() => service.stop());

const faults = ({ status, json }: Answer) => [
  status,
  json.code,
  ...json.errors.map(({ field, message }: Record<string, string>) => `${field} ${message}`),
];
const post = async (path: string, body: unknown) => faults(await platform.post(path, body as Record<string, unknown>));
const refused = (...errors: string[]) => [400, 'validation_failed', ...errors];

describe('IN-07 what a 400 says of a field', () => {
  it('that is absent: it is required, once, whatever its rules are', async () => {
    const signIn = await service.request('POST', '/api/v1/session', { body: {} });
    expect(faults(signIn)).toEqual(refused('email is required', 'password is required'));
    expect(await post('/service-accounts', { name: 'x' })).toEqual(refused('scopes is required'));
    expect(await post('/service-accounts', {})).toEqual(refused('name is required', 'scopes is required'));
    expect(await post('/session/reauthenticate', undefined)).toEqual(refused('password is required'));
    expect(await post('/personal-access-tokens', { label: 'x' })).toEqual(
      refused('scopes is required', 'expires_at is required'),
    );
    expect(await post('/users', { email: 'ann@example.com', name: 'Ann' })).toEqual(refused('role is required'));
  });

  it('that is absent within another', async () => {
    expect(await post('/organizations', { name: 'x', rate_limit: {} })).toEqual(
      refused('rate_limit.limit is required', 'rate_limit.window_seconds is required'),
    );
    const company = (await platform.post('/companies', { name: 'Nested' })).json;
    expect(
      await post(`/companies/${company.id}/employees/bulk`, { employees: [{ name: 'Ada', external_id: '1' }, {}] }),
    ).toEqual(refused('employees.1.external_id is required', 'employees.1.name is required'));
  });

  it('that is there and wrong: what is wrong with it', async () => {
    expect(await post('/service-accounts', { name: 'x', scopes: null })).toEqual(
      refused('scopes each value in scopes must be shorter than or equal to 128 characters'),
    );
    expect(await post('/service-accounts', { name: '', scopes: ['a'.repeat(129)] })).toEqual(
      refused(
        'name name must be 1 to 200 printable characters',
        'scopes each value in scopes must be shorter than or equal to 128 characters',
      ),
    );
    expect(await post('/organizations', { name: 'x', rate_limit: { limit: 0, window_seconds: 60 } })).toEqual(
      refused('rate_limit.limit limit must not be less than 1'),
    );
    expect(await post('/organizations', { name: 'x', nothing: 1 })).toEqual(
      refused('nothing is not a field of this request'),
    );
  });
});
