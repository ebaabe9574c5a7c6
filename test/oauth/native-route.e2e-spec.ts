import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { AccessGuard } from '../../src/access/access.js';
import { type Answer, TestService } from '../support/service.js';

/** The token endpoint skips Nest's router; the introspection endpoint does not. What a caller sees must not tell them apart. */
const NATIVE = '/oauth/token';
const THROUGH_NEST = '/oauth/introspect';

let service: TestService;
beforeAll(async () => {
  service = await TestService.start();
});
afterAll(() => service.stop());

const form = { 'content-type': 'application/x-www-form-urlencoded' };
const refusals: [string, string, string, Record<string, string>, string | undefined][] = [
  ['no body', 'POST', '', {}, undefined],
  ['no credentials', 'POST', '', form, 'grant_type=client_credentials'],
  ['credentials of nobody', 'POST', '', { ...form, authorization: 'Basic bm9ib2R5Om5vdGhpbmc=' }, 'token=x'],
  ['a type that is not taken', 'POST', '', { 'content-type': 'text/plain' }, 'x'],
  ['a body that is not JSON', 'POST', '', { 'content-type': 'application/json' }, '{'],
  ['a repeated parameter', 'POST', '', form, 'a=1&a=2'],
  ['a body over 16 KiB', 'POST', '', form, `a=${'x'.repeat(17_000)}`],
  ['a secret in the URL', 'POST', '?client_secret=x', form, 'a=1'],
  ['a NUL in the URL', 'POST', '?a=%00', form, 'a=1'],
  ['another method', 'GET', '', {}, undefined],
  ['a trailing slash', 'POST', '/', form, 'a=1'],
];

const seen = ({ status, headers, json }: Answer) => ({
  status,
  body: { ...json, request_id: undefined },
  headers: { ...headers, 'x-request-id': headers['x-request-id']?.length, date: undefined },
});

it.each(refusals)(
  'the token endpoint answers as an endpoint behind Nest does: %s',
  async (_, method, suffix, headers, body) => {
    const [native, through] = await Promise.all(
      [NATIVE, THROUGH_NEST].map((path) => service.request(method, `${path}${suffix}`, { headers, body })),
    );
    expect(native.status).toBeGreaterThanOrEqual(400);
    expect(seen(native)).toEqual(seen(through));
  },
);

it('a realm that is not configured is no path, for either', async () => {
  const answers = await Promise.all(
    ['token', 'token/introspect'].map((path) =>
      service.request('POST', `/realms/none/protocol/openid-connect/${path}`, { headers: form, body: 'a=1' }),
    ),
  );
  expect(answers.map(({ status }) => status)).toEqual([404, 404]);
  expect(seen(answers[0])).toEqual(seen(answers[1]));
});

it('the control: of the two only one passes the guard, which lets every caller of an OAuth endpoint pass', async () => {
  const guard = service.app.get(AccessGuard);
  const judge = guard.canActivate.bind(guard);
  const passed: unknown[] = [];
  guard.canActivate = (context) => {
    passed.push(context.getClass().name);
    return judge(context);
  };
  for (const path of [NATIVE, THROUGH_NEST]) await service.request('POST', path, { headers: form, body: 'a=1' });
  expect(passed).toEqual(['IntrospectionController']);
});
