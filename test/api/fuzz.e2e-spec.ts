import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { join, startPatient, tokenOf } from '../support/people.js';
import { fill, type Route, withRoutes } from '../support/routes.js';
import { basic, bearer, ROOT, type Session, type TestAccount, type TestService } from '../support/service.js';

let service: TestService;
let routes: Route[];
let admin: Session;
let account: TestAccount;
let token: string;
let customer: string;

beforeAll(async () => {
  ({ service, routes } = await withRoutes(() => startPatient()));
  const platform = await service.signIn();
  await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
  customer = (await admin.post('/partner/orgs', { name: 'Customer' })).json.id;
  account = await admin.createAccount('Concierge', [
    'admin:access',
    'companies:read',
    'companies:write',
    'employees:write',
    'audit:read',
    'partner:orgs:read',
    'partner:orgs:write',
    'partner:users:write',
  ]);
  token = await tokenOf(service, account.credentials);
});
afterAll(() => service.stop());

/** mulberry32: the same requests in every run, so that a failure can be looked at. */
function random(seed: number) {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const FIELDS = [
  'name',
  'scopes',
  'email',
  'password',
  'role',
  'label',
  'expires_at',
  'jwk',
  'pem',
  'alg',
  'overlap_seconds',
  'reason',
  'organization_id',
  'disabled',
  'token_format',
  'token_ttl_seconds',
  'client_auth_methods',
  'scope_ceiling',
  'parent_id',
  'description',
  'work_locations',
  'departments',
  'employees',
  'external_id',
  'started_on',
  'grant_type',
  'client_id',
  'client_secret',
  'client_assertion',
  'client_assertion_type',
  'scope',
  'resource',
  'resources',
  'token',
  'token_type_hint',
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  '',
];
const QUERIES = [
  'limit',
  'cursor',
  'search',
  'sort',
  'actor_name',
  'actor_id',
  'action',
  'outcome',
  'target_id',
  'from',
  'to',
  'name',
  'department',
  'updated_since',
  'x',
];

describe('whatever is sent', () => {
  it('DS-07 three thousand mutated requests over all routes: none is answered by a 5xx', async () => {
    const next = random(20_261_121);
    const one = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)];
    const VALUES: (() => unknown)[] = [
      () => null,
      () => true,
      () => -1,
      () => 1e308,
      () => 0.5,
      () => '',
      () => 'x',
      () => 'x'.repeat(300),
      () => [],
      () => ({}),
      () => ['x'],
      () => [null],
      () => ({ a: 1 }),
      () => [[]],
      () => [{ external_id: 'x', name: 'x' }],
      () => '2026-02-30',
      () => 'a\u0000b',
      () => '\ud800',
      () => randomUUID(),
      () => '2030-01-01T00:00:00Z',
      () => '9999-12-31T23:59:59.999999999Z',
      () => 'admin',
      () => 'jwt',
      () => 3600,
      () => ['companies:read'],
      () => '\u202e🔑',
      () => 'é@é.é',
    ];
    const AUTH: (() => Record<string, string>)[] = [
      () => ({ cookie: admin.cookie }),
      () => bearer(token),
      () => ({ authorization: basic(account.credentials) }),
      () => ({
        authorization: one(['Bearer', 'Bearer ', 'Basic Og==', 'Basic %%%', 'x y z', `Bearer ${token.slice(1)}`]),
      }),
      () => ({ cookie: one(['session=', 'session', `session=${'x'.repeat(43)}`, ';;;===', 'session=%00']) }),
      () => ({}),
    ];
    const TYPES = [
      'application/json',
      'application/json; charset=utf-16',
      'application/x-www-form-urlencoded',
      'text/plain',
      'x',
      '',
    ];
    const body = () => {
      const fields = Object.fromEntries(
        Array.from({ length: Math.floor(next() * 5) }, () => [one(FIELDS), one(VALUES)()]),
      );
      const text = JSON.stringify(fields);
      return one([
        () => text,
        () => text,
        () => text,
        () => text.slice(0, Math.floor(next() * text.length)),
        () =>
          new URLSearchParams(Object.entries(fields).map(([k, v]) => [k, String(v)] as [string, string])).toString(),
        () => `[${text}]`,
        () => '\u00ff\u0000',
        () => '',
      ])();
    };
    const callable = routes.filter(
      ({ url, method }) => !url.startsWith('/docs') && !(method === 'DELETE' && url.endsWith('/session')),
    );
    const bad: string[] = [];
    let answered = 0;
    for (let round = 0; round < 150; round++) {
      await Promise.all(
        Array.from({ length: 20 }, async () => {
          const route = one(callable);
          const id = one([
            randomUUID(),
            account.id,
            account.secret.id,
            customer,
            'me',
            '%2f',
            '..',
            '%ff',
            "'",
            'x'.repeat(150),
          ]);
          const query =
            next() < 0.4
              ? `?${one(QUERIES)}${one(['', '[]', '.x'])}=${one(['', '1', '0', 'x', '%', '%ff', '%00', "'", '1e9', 'a&a=b'])}`
              : '';
          const payload = route.method === 'GET' || route.method === 'HEAD' ? undefined : body();
          const headers: Record<string, string> = { ...one(AUTH)() };
          if (payload !== undefined) headers['content-type'] = one(next() < 0.7 ? TYPES.slice(0, 1) : TYPES);
          if (next() < 0.1) headers['idempotency-key'] = one(['k', ' ', 'é', 'x'.repeat(300)]);
          if (next() < 0.1) headers[one(['if-match', 'if-none-match'])] = one(['*', '"1"', 'W/"1"', '1', ',', '"']);
          if (next() < 0.1) headers['x-organization-id'] = one(['x', randomUUID(), '']);
          const answer = await service.request(
            route.method,
            fill(route.url, { realm: one(['gatehouse', 'x', '%2e']) }, id) + query,
            {
              body: payload,
              headers,
              remoteAddress: `192.0.2.${Math.floor(next() * 256)}`,
            },
          );
          answered++;
          if (answer.status >= 500)
            bad.push(
              `${route.method} ${route.url} ${id}${query} ${JSON.stringify(headers)} ${payload}: ${answer.text}`,
            );
        }),
      );
    }
    expect(bad).toEqual([]);
    expect(answered).toBe(3000);
    expect((await service.request('GET', '/health/live')).status).toBe(200);
  });

  it('DS-04 fifty thousand colliding keys are refused by size before they are parsed', async () => {
    const keys = (n: number) => JSON.stringify(Object.fromEntries(Array.from({ length: n }, (_, i) => [i * 1024, 1])));
    const post = (url: string, body: string) =>
      service.request('POST', url, { body, headers: { cookie: admin.cookie, 'content-type': 'application/json' } });
    expect((await post('/api/v1/companies', keys(50_000))).status).toBe(413);
    expect((await post('/oauth/token', keys(50_000))).status).toBe(413);
    expect((await post('/api/v1/companies', keys(4000))).status).toBe(400);
  });
});

describe('regular expressions', () => {
  /** Every literal of the source: a group that repeats and itself holds a repetition can take exponential time. */
  const literals = readdirSync(path.join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .flatMap((file) => {
      const code = readFileSync(path.join(ROOT, 'src', file), 'utf8').replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
      const found = code.matchAll(
        /(?<=[(=:,!&|?]\s*|return )\/((?:[^/\\\n[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+)\/([dgimsuvy]*)(?![\w/'`])/g,
      );
      return [...found].map(([, source, flags]) => [file, source, flags] as const);
    });

  it('DS-05 none nests one quantifier in another', () => {
    expect(literals.length).toBeGreaterThan(30);
    const nested =
      /\((?:\?[:=!]|\?<[=!]?)?(?:[^()\\[\]]|\\.|\[(?:[^\]\\]|\\.)*\])*(?<!\\)[+*](?:[^()\\[\]]|\\.|\[(?:[^\]\\]|\\.)*\])*\)[+*]/;
    expect('(a+)+$').toMatch(nested);
    expect(literals.filter(([, source]) => nested.test(source))).toEqual([]);
  });

  it('DS-05 thirty thousand characters that almost match cost none of them more than linear time', () => {
    const almost = ['a', '0', ' ', '/', '-', '=', '.', '_', ':', ';', 'A1', '%20', '::', '"\\', 'Basic ', '/realms/'];
    const slow: string[] = [];
    // Those of database/ read what our own server and its files say; the other one a text that JSON.parse has taken, where every
    // string that begins ends.
    const reachable = literals.filter(
      ([file, source]) => !file.startsWith('database/') && source !== String.raw`"(?:[^"\\]|\\.)*"`,
    );
    expect(literals.length - reachable.length).toBeGreaterThan(1);
    for (const [file, source, flags] of reachable) {
      for (const unit of almost) {
        // Twice the text: about twice the work if it is linear, four times if it is not.
        const cost = (length: number) => {
          const text = `${unit.repeat(length / unit.length)}\u0001`;
          const pattern = new RegExp(source, flags.replace('g', ''));
          const start = process.cpuUsage().user;
          pattern.test(text);
          return process.cpuUsage().user - start;
        };
        const small = cost(15_000);
        const large = cost(30_000);
        if (large > 150_000 && large > small * 3) slow.push(`${file} /${source}/ on ${unit}: ${small} µs, ${large} µs`);
      }
    }
    expect(slow).toEqual([]);
  });
});
