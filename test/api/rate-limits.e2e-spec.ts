import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { RateLimits } from '../../src/rate-limits/rate-limits.js';
import { eventsOf, expectOAuthError, GRANT } from '../support/oauth.js';
import { at, join, startPatient, tokenOf } from '../support/people.js';
import { atHalfPast, flood, HOURLY, standingOf } from '../support/rate-limits.js';
import { type Answer, basic, bearer, type Session, type TestAccount, TestService } from '../support/service.js';

let service: TestService;
let platform: Session;

beforeAll(async () => {
  service = await startPatient();
  atHalfPast(service);
  platform = await service.signIn();
});
afterAll(() => service.stop());

const code = ({ status, json }: Answer) => [status, json?.code];
const companies = (token: string, on = service) => on.request('GET', '/companies', { headers: bearer(token) });

let made = 0;
/** An organization of its own with this limit an hour, an account and a token; two requests are spent: the token, and a look at the limit. */
async function organization(limit: number) {
  const here = await service.signIn();
  const { id } = await here.createOrganization(`Organization ${++made}`, HOURLY(limit));
  const account = await here.createAccount('Concierge', ['admin:access', 'companies:read', 'companies:write']);
  const token = await tokenOf(service, account.credentials);
  const left = Number((await companies(token)).headers['x-ratelimit-remaining']);
  expect(left).toBe(limit - 2);
  return { id, here, account, token, left };
}

describe('E9 the headers', () => {
  it('E9 stand in every answer to a request that was charged: 200, 201, 400, 403, 404; and count down by one', async () => {
    let { token, left } = await organization(1000);
    const ask = async (status: number, method: string, path: string, body?: Record<string, unknown>) => {
      const answer = await service.request(method, path, { headers: bearer(token), body });
      expect([path, answer.status, standingOf(answer)]).toEqual([path, status, [1000, --left]]);
      const reset = Number(answer.headers['x-ratelimit-reset']);
      expect(Number.isInteger(reset) && reset >= 1 && reset <= 3600).toBe(true);
    };
    await ask(200, 'GET', '/companies');
    await ask(201, 'POST', '/companies', { name: 'Made' });
    await ask(400, 'POST', '/companies', { name: '' });
    await ask(400, 'POST', '/companies', { name: 'x', unknown: 1 });
    await ask(400, 'GET', '/companies?limit=x');
    await ask(403, 'GET', '/api/v1/organizations');
    await ask(403, 'GET', '/api/v1/sessions');
    await ask(404, 'GET', '/companies/00000000-0000-7000-8000-00000000ffff');
  });

  it('E9 stand in answers of the token endpoint, once the client has authenticated', async () => {
    const { account, left } = await organization(1000);
    const granted = await service.token(GRANT, account.credentials);
    expect([granted.status, standingOf(granted)]).toEqual([200, [1000, left - 1]]);
    const refused = await service.token({ ...GRANT, scope: 'audit:read' }, account.credentials);
    expect([refused.status, refused.json.error, standingOf(refused)]).toEqual([400, 'invalid_scope', [1000, left - 2]]);
    // RL-04: whoever has only the id uses nothing up.
    const wrong = await service.token(GRANT, { id: account.client_id, secret: 'wrong' });
    expect([wrong.status, standingOf(wrong)]).toEqual([401, [undefined, undefined]]);
    expect(standingOf(await service.token(GRANT, account.credentials))).toEqual([1000, left - 3]);
  });

  it('E9 a signed-in person is charged apart, wherever they turned; a token of their own to its organization', async () => {
    const { here, token, left } = await organization(1000);
    const person = await join(here, `person${made}@example.com`);
    expect(standingOf(await person.get('/session'))).toEqual([1_000_000, 999_999]);
    expect(standingOf(await person.get('/users'))).toEqual([1_000_000, 999_998]);
    expect(standingOf(await companies(token))).toEqual([1000, left - 1]);
    const [, before] = standingOf(await here.get('/service-accounts'));
    expect(standingOf(await here.get('/service-accounts'))).toEqual([1_000_000, Number(before) - 1]);
    const own = {
      label: 'own',
      scopes: ['companies:read'],
      expires_at: new Date(Date.now() + 86_400_000).toISOString(),
    };
    const minted = await person.post('/personal-access-tokens', own);
    expect(standingOf(await companies(minted.json.token))).toEqual([1000, left - 2]);
  });

  it('E9 are absent where nobody is charged: no credential, health, metadata, documentation, sign-in', async () => {
    for (const path of [
      '/companies',
      '/health/live',
      '/.well-known/oauth-authorization-server',
      '/openapi.json',
      '/docs',
    ])
      expect([path, standingOf(await service.request('GET', path))]).toEqual([path, [undefined, undefined]]);
    expect(standingOf(await service.request('GET', '/nowhere'))).toEqual([undefined, undefined]);
    expect(standingOf(await service.token(GRANT))).toEqual([undefined, undefined]);
  });
});

describe('E9 past the limit', () => {
  it('E9 429 with Retry-After, as RFC 9457 and RFC 6749 have it, for all accounts of the organization and no other', async () => {
    const { here, account, token, left } = await organization(60);
    const other = await here.createAccount('Other', ['companies:read']);
    const person = await join(here, `person${made}@example.com`);
    const otherToken = await tokenOf(service, other.credentials);
    const bystander = await organization(60);
    expect(
      await flood(
        3 * left,
        () => companies(token),
        () => companies(otherToken),
      ),
    ).toEqual({ 200: left - 1, 429: 2 * left + 1 });

    for (const answer of [await companies(token), await companies(otherToken)]) {
      expect(code(answer)).toEqual([429, 'rate_limited']);
      expect(answer.headers['content-type']).toMatch(/^application\/problem\+json/);
      expect(standingOf(answer)).toEqual([60, 0]);
      expect(answer.headers['retry-after']).toBe(answer.headers['x-ratelimit-reset']);
      expect(answer.headers['retry-after']).toMatch(/^[1-9]\d*$/);
    }
    for (const { credentials } of [account, other]) {
      const answer = await service.token(GRANT, credentials);
      expectOAuthError(answer, 429, 'temporarily_unavailable', /rate limit/);
      expect(standingOf(answer)).toEqual([60, 0]);
      expect(answer.headers['retry-after']).toBe(answer.headers['x-ratelimit-reset']);
    }
    expect((await companies(bystander.token)).status).toBe(200);
    expect((await here.get('/service-accounts')).status).toBe(200);
    const users = await person.get('/users');
    expect([users.status, standingOf(users)[0]]).toEqual([200, 1_000_000]);
  });

  it('E9 the next window begins anew', async () => {
    const { id, token } = await organization(40);
    await platform.patch(`/organizations/${id}`, { rate_limit: { limit: 3, window_seconds: 60 } });
    for (const minute of [0, 1, 2]) {
      await at(service, minute * 60_000, async () => {
        expect(await flood(10, () => companies(token))).toEqual({ 200: 3, 429: 7 });
      });
      atHalfPast(service);
    }
  });

  it('E9 a restart forgets nothing', async () => {
    const { id, account } = await organization(200);
    const start = async () => {
      const another = await TestService.start({ REVOCATION_BOUND_MS: '10000' }, service.database);
      atHalfPast(another);
      return another;
    };
    const before = await start();
    const token = await tokenOf(before, account.credentials);
    const { 200: admitted } = await flood(300, () => companies(token, before));
    expect(admitted).toBeGreaterThan(150);
    await before.stop();
    const [{ used }] = await service.database.query<{ used: number }>(
      'SELECT used FROM rate_limit_window WHERE subject_id = $1',
      [id],
    );
    expect(used).toBeGreaterThanOrEqual(200);
    const after = await start();
    expect((await flood(200, () => companies(token, after)))[200] ?? 0).toBeLessThanOrEqual(10);
    await after.stop();
  });

  it('P1 a signed-in person can still find and end what floods: the bucket is no shield for a stolen secret', async () => {
    const { here, account, token } = await organization(60);
    const person = await join(here, `person${made}@example.com`);
    await flood(100, () => companies(token));
    const path = `/service-accounts/${account.id}`;
    expect(code(await companies(token))).toEqual([429, 'rate_limited']);
    for (const found of [path, `${path}/secrets`, '/audit-events', '/revocations', '/session'])
      expect([found, (await person.get(found)).status]).toEqual([found, 200]);
    expect(code(await service.request('POST', `/api/v1${path}/disable`, { headers: bearer(token), body: {} }))).toEqual(
      [429, 'rate_limited'],
    );
    expect((await person.post(`${path}/secrets/${account.secret.id}/revoke`)).status).toBe(200);
    expect((await person.post(`${path}/disable`)).status).toBe(200);
    expect((await person.delete('/session')).status).toBe(204);
    expect((await companies(token)).status).toBe(401);
  });

  it('P1 a person who floods, or whose session does, is limited alone, and can still end things', async () => {
    const small = await TestService.start({ RATE_LIMIT: '60/3600' }, service.database);
    try {
      atHalfPast(small);
      const [flooding, other] = [await small.signIn(), await small.signIn()];
      await other.createOrganization(`Organization ${++made}`);
      const account = await other.createAccount('Concierge', ['companies:read']);
      const token = await tokenOf(small, account.credentials);
      const path = `/service-accounts/${account.id}`;
      const person = await join(other, `person${made}@example.com`);
      const { 200: admitted } = await flood(150, () => person.get(path));
      expect(admitted).toBeGreaterThan(30);
      expect(admitted).toBeLessThanOrEqual(66);
      expect(code(await person.get(path))).toEqual([429, 'rate_limited']);
      expect((await companies(token, small)).status).toBe(200);
      expect((await person.post(`${path}/secrets/${account.secret.id}/revoke`)).status).toBe(200);
      expect((await companies(token, small)).status).toBe(401);
      expect((await flooding.get('/session')).status).toBe(200);
    } finally {
      await small.stop();
    }
  });

  it('P1 a token can still be ended past the limit; refusals of others’ tokens are told, and fill no log', async () => {
    const { account, token } = await organization(40);
    const { token: foreign } = await organization(1000);
    const revoke = (text: string) =>
      service.request('POST', '/oauth/revoke', {
        headers: { authorization: basic(account.credentials), 'content-type': 'application/x-www-form-urlencoded' },
        body: `token=${text}`,
      });
    const recorded = async () =>
      (
        await service.database.query(
          "SELECT FROM audit_event WHERE actor_id = $1 AND action = 'token.revoked' AND outcome = 'failure'",
          [account.id],
        )
      ).length;
    expectOAuthError(await revoke(foreign), 400, 'unauthorized_client');
    expect(await recorded()).toBe(1);
    expect(await flood(100, () => revoke(foreign))).toEqual({ 400: 100 });
    const within = await recorded();
    expect(within).toBeLessThanOrEqual(44); // a tenth more than the limit may pass
    expect(within).toBeGreaterThan(20);
    expect((await revoke(token)).status).toBe(200);
    expect((await companies(token)).status).toBe(401);
    expect((await companies(foreign)).status).toBe(200);
  });
});

describe('CONTRACT §8: rate_limit of an organization', () => {
  it('E9 is set, shown, audited, and given back to the default', async () => {
    const { id, token } = await organization(1000);
    const path = `/organizations/${id}`;
    expect((await platform.get(path)).json.rate_limit).toEqual({ limit: 1000, window_seconds: 3600 });
    expect(await eventsOf(service, 'organization.created')).toMatchObject([
      { changes: { rate_limit: { to: { limit: 1000, window_seconds: 3600 } } } },
    ]);
    const patched = await platform.patch(path, { rate_limit: { limit: 77, window_seconds: 60 } });
    expect([patched.status, patched.json.rate_limit]).toEqual([200, { limit: 77, window_seconds: 60 }]);
    expect(await eventsOf(service, 'organization.updated')).toMatchObject([
      {
        changes: { rate_limit: { from: { limit: 1000, window_seconds: 3600 }, to: { limit: 77, window_seconds: 60 } } },
      },
    ]);
    expect(standingOf(await companies(token))[0]).toBe(77);
    // What is left out stays as it is.
    expect((await platform.patch(path, { name: `Renamed ${made}` })).json.rate_limit).toEqual({
      limit: 77,
      window_seconds: 60,
    });
    expect((await platform.patch(path, { rate_limit: null })).json.rate_limit).toBeNull();
    expect(standingOf(await companies(token))[0]).toBe(1_000_000);
  });

  it('IN-05 CONTRACT §8: is two whole numbers within bounds, and nothing beside them', async () => {
    const { id } = await organization(1000);
    const good = { limit: 1, window_seconds: 1 };
    const bad = [
      { limit: 0, window_seconds: 60 },
      { limit: 1_000_001, window_seconds: 60 },
      { limit: 1, window_seconds: 0 },
      { limit: 1, window_seconds: 3601 },
      { limit: 1.5, window_seconds: 60 },
      { limit: '10', window_seconds: 60 },
      { limit: 10 },
      { window_seconds: 10 },
      {},
      [],
      [good],
      '10/60',
      10,
      true,
      { ...good, burst: 1 },
    ];
    for (const rate_limit of bad) {
      expect([rate_limit, ...code(await platform.patch(`/organizations/${id}`, { rate_limit }))]).toEqual([
        rate_limit,
        400,
        'validation_failed',
      ]);
      expect(code(await platform.post('/organizations', { name: 'Bad', rate_limit }))).toEqual([
        400,
        'validation_failed',
      ]);
    }
    for (const name of ['__proto__', 'constructor', 'toString', 'valueOf']) {
      const body = `{"rate_limit":{"limit":1,"window_seconds":1,"${name}":{"limit":5}}}`;
      const headers = { cookie: platform.cookie, 'content-type': 'application/json' };
      expect((await service.request('PATCH', `/api/v1/organizations/${id}`, { body, headers })).status).toBe(400);
    }
    expect(({} as Record<string, unknown>).limit).toBeUndefined();
    expect((await platform.get(`/organizations/${id}`)).json.rate_limit).toEqual({ limit: 1000, window_seconds: 3600 });
    const repeat = { 'idempotency-key': `rate-${made}` };
    const body = { name: `Repeated ${made}`, rate_limit: good };
    const [first, second] = [
      await platform.post('/organizations', body, repeat),
      await platform.post('/organizations', body, repeat),
    ];
    expect([second.status, second.json]).toEqual([201, first.json]);
  });
});

describe('what a caller can do about it', () => {
  it('RL-02 no header of the caller’s changes whose bucket it is', async () => {
    const { token } = await organization(40);
    let i = 0;
    const spoofed = () => {
      const address = `198.51.100.${++i % 250}`;
      const headers = {
        ...bearer(token),
        'x-forwarded-for': address,
        'x-real-ip': address,
        forwarded: `for=${address}`,
      };
      return service.request('GET', '/companies', { headers, remoteAddress: `192.0.2.${i % 250}` });
    };
    expect(await flood(100, spoofed)).toEqual({ 200: 38, 429: 62 });
  });

  it('RL-02 naming another organization charges one’s own', async () => {
    const { id, token, left } = await organization(1000);
    const root: TestAccount = await platform.createAccount('Root', ['platform:admin', 'companies:read']);
    const rootToken = await tokenOf(service, root.credentials);
    const headers = { ...bearer(rootToken), 'x-organization-id': id };
    const abroad = await service.request('GET', '/api/v1/companies', { headers });
    expect([abroad.status, standingOf(abroad)[0]]).toEqual([200, 1_000_000]);
    expect(standingOf(await companies(token))).toEqual([1000, left - 1]);
    // Refused for what it names, and charged all the same.
    const forbidden = await service.request('GET', '/companies', {
      headers: { ...bearer(token), 'x-organization-id': platform.cookie },
    });
    expect([forbidden.status, standingOf(forbidden)]).toEqual([403, [1000, left - 2]]);
  });

  it('RL-07 a bucket is an organization’s that authenticated: strangers make none, and windows that are over are forgotten', async () => {
    const { token } = await organization(1000);
    const limits = service.app.get(RateLimits) as unknown as { windows: Map<string, unknown>; forget(): void };
    const before = limits.windows.size;
    for (let i = 0; i < 300; i++) {
      await companies(`client_oa2_live_${i}`);
      await service.token(GRANT, { id: `client_${i}`, secret: 'wrong' });
    }
    expect(limits.windows.size).toBe(before);
    await at(service, 2 * 3_600_000, async () => limits.forget());
    expect(limits.windows.size).toBe(0);
    atHalfPast(service);
    expect((await companies(token)).status).toBe(200);
    expect(limits.windows.size).toBe(1);
  });

  it('RL-01 one organization at ten times its limit: 429 and Retry-After for it, and nothing for the next', async () => {
    const a = await organization(100);
    const b = await organization(100_000);
    const sample = async () => {
      const times: number[] = [];
      for (let i = 0; i < 300; i++) {
        const since = performance.now();
        expect((await companies(b.token)).status).toBe(200);
        times.push(performance.now() - since);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      return times.sort((x, y) => x - y);
    };
    await sample(); // warm
    const quiet = await sample();
    let over = false;
    const statuses: Record<number, number> = {};
    // Ten times the limit, spread over the sample, with nobody waiting for an answer before asking again.
    const attack = (async () => {
      const all: Promise<void>[] = [];
      for (let i = 0; i < 1000 && !over; i++) {
        all.push(
          companies(a.token).then(({ status, headers }) => {
            statuses[status] = (statuses[status] ?? 0) + 1;
            if (status === 429) expect(headers['retry-after']).toMatch(/^[1-9]\d*$/);
          }),
        );
        if (i % 5 === 4) await new Promise((resolve) => setTimeout(resolve, 2));
      }
      await Promise.all(all);
    })();
    const busy = await sample();
    over = true;
    await attack;
    expect(statuses[429]).toBeGreaterThan(3 * 98);
    expect(statuses[200]).toBe(98);
    // Who shares a core with whom is left out of it: what is refused is cheap, and the median says so.
    const median = (times: number[]) => times[times.length >> 1];
    expect(median(busy)).toBeLessThan(3 * median(quiet));
  });
});
