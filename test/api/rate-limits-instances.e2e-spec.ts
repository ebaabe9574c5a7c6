import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { RateLimits } from '../../src/rate-limits/rate-limits.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { GRANT } from '../support/oauth.js';
import { startPatient, tokenOf } from '../support/people.js';
import { ADMITTED, ADMITTED_AT, atHalfPast, flood, HOURLY, standingOf } from '../support/rate-limits.js';
import { bearer, type Session, TestService } from '../support/service.js';

let database: TestDatabase;
let services: TestService[];
let platform: Session;

beforeAll(async () => {
  database = await createDatabase();
  const settings = { REVOCATION_BOUND_MS: '10000' };
  services = [await TestService.start(settings, database)];
  for (let i = 0; i < 2; i++) services.push(await TestService.start(settings, database));
  atHalfPast(services);
  platform = await services[0].signIn();
  const { uses, issues } = await organization(1_000_000);
  await flood(90, ...uses, ...issues); // connections are made, and each instance has heard of the others
}, 60_000);
afterAll(async () => {
  await Promise.all(services.map((service) => service.stop()));
  await database.drop();
});

interface Inside {
  shareOf(limit: number): number;
  flush(): Promise<boolean>;
  land(window: { total: number; inFlight: number }): void;
}
const inside = (service: TestService) => service.app.get(RateLimits) as unknown as Inside;

let made = 0;
/** An organization with this limit an hour and a token of it; the token came from a bucket of a million, so nothing of the limit is used. */
async function organization(limit: number) {
  const here = await services[0].signIn();
  const { id } = await here.createOrganization(`Shared ${++made}`);
  const account = await here.createAccount('Concierge', ['companies:read'], { token_ttl_seconds: 86_400 });
  const token = await tokenOf(services[0], account.credentials);
  const patched = await platform.patch(`/organizations/${id}`, HOURLY(limit));
  expect(patched.status).toBe(200);
  const use = (service: TestService) => service.request('GET', ADMITTED_AT, { headers: bearer(token) });
  const issue = (service: TestService) => service.token(GRANT, account.credentials);
  const uses = services.map((service) => () => use(service));
  const issues = services.map((service) => () => issue(service));
  return { id, use, uses, issues };
}

describe('three instances on one PostgreSQL', () => {
  it.each([300, 900])('RL-05 a limit of %i: no fewer are admitted, and at most a tenth more', async (limit) => {
    const { uses } = await organization(limit);
    const statuses = await flood(2 * limit, ...uses);
    expect(Object.keys(statuses)).toEqual([String(ADMITTED), '429']);
    expect(statuses[ADMITTED]).toBeGreaterThanOrEqual(limit);
    expect(statuses[ADMITTED]).toBeLessThanOrEqual(1.1 * limit);
    // What is over the limit stays refused, on every instance.
    const late = await flood(60, ...uses);
    expect(late[ADMITTED] ?? 0).toBeLessThanOrEqual(1.1 * limit - statuses[ADMITTED]);
  });

  it('RL-05 control: without the bound on what is unseen, each instance admits the whole limit', async () => {
    const limit = 300;
    for (const service of services) inside(service).shareOf = () => limit;
    try {
      const { uses } = await organization(limit);
      expect((await flood(4 * limit, ...uses))[ADMITTED]).toBeGreaterThan(1.1 * limit);
    } finally {
      for (const service of services) Reflect.deleteProperty(inside(service), 'shareOf');
    }
  });

  it('RL-05 control: instances that do not learn from each other admit the limit each', async () => {
    const limit = 300;
    for (const service of services)
      inside(service).land = (window) => {
        window.total += window.inFlight;
        window.inFlight = 0;
      };
    try {
      const { use } = await organization(limit);
      for (const service of services) {
        inside(service).shareOf = () => limit;
        expect((await flood(limit, () => use(service)))[ADMITTED]).toBe(limit);
      }
    } finally {
      for (const service of services)
        for (const name of ['land', 'shareOf']) Reflect.deleteProperty(inside(service), name);
    }
  });

  it.each([1, 7, 59])('RL-05 a limit of %i, too small for shares, is exact', async (limit) => {
    const { uses, issues } = await organization(limit);
    const statuses = await flood(150, ...uses, ...issues); // both paths share the bucket
    expect((statuses[ADMITTED] ?? 0) + (statuses[200] ?? 0)).toBe(limit);
    expect(await flood(12, ...uses, ...issues)).toEqual({ 429: 12 });
  });

  it('RL-05 one request at a time over all instances: the count that each shows falls behind by no more than the slack', async () => {
    const limit = 600;
    const { use } = await organization(limit);
    let admitted = 0;
    for (let i = 0; i < 90; i++) {
      const answer = await use(services[i % 3]);
      admitted += answer.status === ADMITTED ? 1 : 0;
      const [, remaining] = standingOf(answer) as number[];
      expect(remaining).toBeGreaterThanOrEqual(limit - admitted);
      expect(remaining).toBeLessThanOrEqual(limit - admitted + 0.1 * limit);
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
    // The next request on each goes with the last total that this instance heard; the one after its flush with all.
    for (const service of services) await use(service);
    await new Promise((resolve) => setTimeout(resolve, 200));
    for (const service of services) expect(standingOf(await use(service))[1]).toBeLessThanOrEqual(limit - 91);
  });

  it('E9 a new limit holds on every instance when the PATCH returns', async () => {
    const { id, use } = await organization(500);
    for (const service of services) expect(standingOf(await use(service))[0]).toBe(500);
    await platform.patch(`/organizations/${id}`, HOURLY(40));
    for (const service of services) expect(standingOf(await use(service))[0]).toBe(40);
    await platform.patch(`/organizations/${id}`, { rate_limit: null });
    for (const service of services) expect(standingOf(await use(service))[0]).toBe(1_000_000);
  });

  it('CK-01 an instance that is a little ahead begins the next window, and takes the others along', async () => {
    const { use } = await organization(30);
    expect((await flood(60, () => use(services[0])))[ADMITTED]).toBe(30);
    atHalfPast(services[2], 1);
    expect((await use(services[2])).status).toBe(ADMITTED);
    // The others' clocks say that it is still the old one, which is used up as far as they know.
    expect((await use(services[1])).status).toBe(ADMITTED);
    atHalfPast(services);
  });

  it('E9 old windows are swept', async () => {
    const { id, use } = await organization(30);
    await use(services[0]);
    const rows = () =>
      database.query('SELECT FROM rate_limit_window WHERE subject_id = $1 AND window_seconds = 3600', [id]);
    await services[0].app.get(RateLimits).prune();
    expect(await rows()).toHaveLength(1);
    await database.query(
      `UPDATE rate_limit_window SET starts_at = starts_at - interval '3 hours' WHERE subject_id = $1`,
      [id],
    );
    await services[0].app.get(RateLimits).prune();
    expect(await rows()).toEqual([]);
  });
});

describe('while the database cannot be told', () => {
  it('E9 what may be unseen is served, and then it is 503 with Retry-After: never without a limit', async () => {
    const service = await startPatient();
    atHalfPast(service);
    const admin = await service.signIn();
    await admin.createOrganization('Cut off', HOURLY(400));
    const account = await admin.createAccount('Concierge', ['companies:read']);
    const token = await tokenOf(service, account.credentials);
    const use = () => service.request('GET', ADMITTED_AT, { headers: bearer(token) });
    await use();
    await inside(service).flush();
    await service.database.query('ALTER TABLE rate_limit_window RENAME TO elsewhere');
    const answers = await Promise.all(Array.from({ length: 60 }, use));
    const refused = answers.filter(({ status }) => status === 503);
    expect(answers.filter(({ status }) => status !== 503).length).toBeLessThanOrEqual(20); // a twentieth of the limit
    expect(refused.length).toBeGreaterThanOrEqual(40);
    for (const { headers, json } of refused)
      expect([headers['retry-after'], json.code]).toEqual(['1', 'temporarily_unavailable']);
    await service.database.query('ALTER TABLE elsewhere RENAME TO rate_limit_window');
    const healed = async () => {
      while ((await use()).status === 503) await new Promise((resolve) => setTimeout(resolve, 50));
    };
    await healed();
    await service.stop();
  });
});
