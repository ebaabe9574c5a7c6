import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { expectOAuthError, GRANT } from '../support/oauth.js';
import { tokenOf } from '../support/people.js';
import { ADMITTED, ADMITTED_AT, atHalfPast, flood, HOURLY, standingOf } from '../support/rate-limits.js';
import { REDIS_SERVER, RedisServer } from '../support/redis.js';
import { bearer, type Session, TestService } from '../support/service.js';

const withServer = REDIS_SERVER
  ? describe
  : (name: string, tests: () => void) =>
      describe.skip(`${name} — NOT RUN: no redis-server or valkey-server here`, tests);

withServer(`rate limits in a real server (${REDIS_SERVER})`, () => {
  let redis: RedisServer;
  let database: TestDatabase;
  let services: TestService[];
  let platform: Session;

  beforeAll(async () => {
    redis = await RedisServer.start();
    database = await createDatabase();
    const settings = { REVOCATION_BOUND_MS: '10000', REDIS_URL: redis.url };
    services = [await TestService.start(settings, database)];
    for (let i = 0; i < 2; i++) services.push(await TestService.start(settings, database));
    atHalfPast(services);
    platform = await services[0].signIn();
    await flood(90, ...(await organization(1_000_000)).uses); // connections are made
  }, 60_000);
  afterAll(async () => {
    await Promise.all((services ?? []).map((service) => service.stop()));
    await redis?.stop();
    await database?.drop();
  });

  let made = 0;
  async function organization(limit: number) {
    const here = await services[0].signIn();
    const { id } = await here.createOrganization(`In Redis ${++made}`);
    const account = await here.createAccount('Concierge', ['companies:read']);
    const token = await tokenOf(services[0], account.credentials);
    expect((await platform.patch(`/organizations/${id}`, HOURLY(limit))).status).toBe(200);
    const use = (service: TestService) => service.request('GET', ADMITTED_AT, { headers: bearer(token) });
    const issue = (service: TestService) => service.token(GRANT, account.credentials);
    return { use, issue, uses: services.map((service) => () => use(service)) };
  }
  const ready = async (service: TestService) => (await service.request('GET', '/health/ready')).status;
  const until = async (condition: () => Promise<boolean>) => {
    while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
  };

  it.each([10, 300])('RL-05 a limit of %i over three instances is exact, and the headers with it', async (limit) => {
    const { use, issue, uses } = await organization(limit);
    for (let i = 1; i <= 5; i++) expect(standingOf(await use(services[i % 3]))).toEqual([limit, limit - i]);
    expect(await flood(2 * limit, ...uses)).toEqual({ [ADMITTED]: limit - 5, 429: limit + 5 });
    expectOAuthError(await issue(services[1]), 429, 'temporarily_unavailable', /rate limit/);
    expect(standingOf(await use(services[2]))).toEqual([limit, 0]);
    expect((await use(services[2])).headers['retry-after']).toMatch(/^[1-9]\d*$/);
  });

  it('RL-05 nothing is counted in PostgreSQL then', async () => {
    const { use } = await organization(100);
    await use(services[0]);
    expect(await database.query('SELECT FROM rate_limit_window')).toEqual([]);
  });

  it('E9 the server gone: 503 with Retry-After on both paths, not ready; it heals by itself', async () => {
    const { use, issue } = await organization(1000);
    expect((await use(services[0])).status).toBe(ADMITTED);
    await redis.stop();
    await until(async () => (await ready(services[0])) === 503);
    const refused = await use(services[0]);
    expect([refused.status, refused.json.code, refused.headers['retry-after']]).toEqual([
      503,
      'temporarily_unavailable',
      '1',
    ]);
    const issuance = await issue(services[1]);
    expectOAuthError(issuance, 503, 'temporarily_unavailable');
    expect(issuance.headers['retry-after']).toBe('1');
    expect((await services[0].request('GET', '/health/live')).status).toBe(200);

    await redis.start();
    for (const service of services) await until(async () => (await ready(service)) === 200);
    expect((await use(services[0])).status).toBe(ADMITTED);
    expect((await issue(services[1])).status).toBe(200);
  });

  it('E9 a server that is silent is given up: 503 within seconds, and it heals when the server speaks again', async () => {
    const { use } = await organization(1000);
    expect((await use(services[0])).status).toBe(ADMITTED);
    redis.signal('SIGSTOP');
    try {
      expect(await flood(20, () => use(services[0]))).toEqual({ 503: 20 });
      expect(await ready(services[0])).toBe(503);
    } finally {
      redis.signal('SIGCONT');
    }
    await until(async () => (await ready(services[0])) === 200);
    expect((await use(services[0])).status).toBe(ADMITTED);
  });

  it('E9 a start while the server is away: it listens, is not ready, and serves when the server is there', async () => {
    await redis.stop();
    const service = await TestService.start({ REVOCATION_BOUND_MS: '10000', REDIS_URL: redis.url }, database);
    expect(await ready(service)).toBe(503);
    await redis.start();
    await until(async () => (await ready(service)) === 200);
    await service.stop();
  });
});
