import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type Credential, issue, type Token, use } from './admin.js';
import { dawdle } from './dawdle.js';
import { asksOfTheBlind } from './invariants.js';
import { Load, obtain, tryAll } from './load.js';
import { sleep, until } from './processes.js';
import { Rig } from './rig.js';

const BOUND = 500;
const QUERY_TIMEOUT_MS = 5000;

describe('the network fails', () => {
  let rig: Rig;
  let account: Credential;
  let living: Token[];

  beforeAll(async () => {
    rig = await Rig.start({ instances: 2, bound: BOUND });
    await rig.admin.createOrganization('Acme');
    account = await rig.admin.createAccount('Concierge');
    living = await obtain(rig, account, 10);
  }, 60_000);
  afterAll(() => rig?.stop());

  it.each([
    ['to PostgreSQL', { up: 'hold' } as const],
    ['from PostgreSQL', { down: 'hold' } as const],
    ['both ways', { up: 'hold', down: 'hold' } as const],
  ])(
    'FI-08 P5 I4 all is dropped %s: past the bound it says 503, revocations elsewhere return, and it heals by itself',
    async (_, how) => {
      const [healthy, cut] = rig.instances;
      const secret = await rig.admin.createSecret(account);
      const revoked = await obtain(rig, secret, 10);
      expect(await tryAll(rig, revoked)).toEqual({ 200: 20 });
      const load = new Load(rig, [account], 4, [cut]);
      const asked = asksOfTheBlind(rig.history, BOUND).length;
      await rig.blind(cut, how, async () => {
        const since = performance.now();
        const receipt = await rig.admin.revoke(secret, healthy);
        expect(receipt.instances).toEqual({ live: 2, confirmed: 1 });
        expect(receipt.waited_ms).toBeGreaterThanOrEqual(Math.floor(BOUND * 1.1));
        for (const token of [...revoked, ...living]) {
          const answer = await use(rig.history, cut, token);
          expect(answer?.status).toBe(503);
          expect(answer?.headers['retry-after']).toBe('1');
          expect(answer?.headers['content-type']).toMatch(/^application\/problem\+json\b/);
        }
        const { answer } = await issue(rig.history, cut, account);
        expect(answer?.status).toBe(503);
        expect(answer?.headers['retry-after']).toBe('1');
        expect(answer?.json.error).toBe('temporarily_unavailable');
        expect(await cut.isReady()).toBe(false);
        await sleep(Math.max(0, 3 * BOUND - (performance.now() - since)));
      });
      await rig.healed(5000);
      await load.stop();
      expect(asksOfTheBlind(rig.history, BOUND).length).toBeGreaterThan(asked + 20);
      expect(await tryAll(rig, revoked)).toEqual({ 401: 20 });
      expect(await tryAll(rig, living)).toEqual({ 200: 20 });
      expect(await rig.violations()).toEqual([]);
    },
  );

  it('FI-08 an instance is cut off, or freezes, while it holds the lock of the feed: revocations elsewhere still return', async () => {
    const [healthy, stuck] = rig.instances;
    const { stopped, release } = await dawdle(rig);
    const other = await rig.admin.createAccount('Portal');
    const tokens = await obtain(rig, other, 10);
    const theirs = rig.admin.tryRevoke(await rig.admin.createSecret(account), stuck, 'slow');
    await stopped();
    await rig.blind(stuck, { up: 'hold', down: 'hold' }, async () => {
      await release(); // its transaction goes on, and nobody hears that it waits for its commit
      const receipt = await rig.admin.revoke(other, healthy);
      expect(receipt.instances).toEqual({ live: 2, confirmed: 1 });
    });
    await rig.healed(5000);
    expect((await theirs).operation.outcome).toBe('unknown');
    expect(await tryAll(rig, tokens)).toEqual({ 401: 20 });
    expect(await rig.violations()).toEqual([]);
  });

  it('every connection is reset, again and again: errors only meanwhile', async () => {
    const [healthy, cut] = rig.instances;
    const secret = await rig.admin.createSecret(account);
    const revoked = await obtain(rig, secret, 10);
    const load = new Load(rig, [account], 4);
    for (let i = 0; i < 3; i++) {
      cut.proxy.refuse(true);
      await sleep(100);
      cut.proxy.refuse(false);
      await sleep(100);
    }
    await rig.admin.revoke(secret, healthy);
    await rig.healed(5000);
    await load.stop();
    expect(await tryAll(rig, revoked)).toEqual({ 401: 20 });
    expect(await rig.violations()).toEqual([]);
  });

  it('FI-09 RV-02 the LISTEN connection is dead without a sign: polling finds every revocation, and it is replaced', async () => {
    const [healthy, deaf] = rig.instances;
    const opened = deaf.proxy.opened.listener;
    deaf.proxy.holdOpen('listener');
    for (let i = 0; i < 3; i++) {
      const secret = await rig.admin.createSecret(account);
      const tokens = await obtain(rig, secret, 5);
      const receipt = await rig.admin.revoke(secret, healthy);
      expect(receipt.instances).toEqual({ live: 2, confirmed: 2 });
      expect(await tryAll(rig, tokens)).toEqual({ 401: 10 });
    }
    await until(
      async () =>
        deaf.proxy.opened.listener > opened &&
        (await rig.query(`SELECT FROM pg_stat_activity WHERE application_name = 'gatehouse listener'`)).length >= 2,
      () => 'the listener was not replaced',
      5000,
    );
    expect(await rig.violations()).toEqual([]);
  });

  it('FI-06 PostgreSQL freezes for 3 s: 503 past the bound, no request hangs beyond the query timeout, and all heal', async () => {
    const load = new Load(rig, [account], 6);
    rig.freezePostgres();
    const from = performance.now();
    const windows = rig.instances.map(({ name }) => ({ instance: name, from, to: Number.POSITIVE_INFINITY }));
    rig.history.blind.push(...windows);
    await sleep(BOUND + 50);
    for (const instance of rig.instances) {
      const answer = await use(rig.history, instance, living[0]);
      expect([answer?.status, answer?.headers['retry-after']]).toEqual([503, '1']);
      expect((await issue(rig.history, instance, account)).answer?.status).toBe(503);
      // Nothing that the instance does for them waits for the database.
      expect((await instance.http.request('GET', '/health/live'))?.status).toBe(200);
    }
    await sleep(3000 - (performance.now() - from));
    for (const window of windows) window.to = performance.now();
    rig.thawPostgres();
    await rig.healed(5000);
    await load.stop();
    const caught = rig.history.operations.filter(
      ({ t_invoke, t_return }) => t_return > from && t_invoke < windows[0].to,
    );
    const slowest = Math.max(...caught.map(({ t_invoke, t_return }) => t_return - t_invoke));
    expect(slowest).toBeLessThan(QUERY_TIMEOUT_MS + 1000); // and a second to get a connection
    expect(await tryAll(rig, living)).toEqual({ 200: 20 });
    expect(await rig.violations()).toEqual([]);
  });

  it('an instance that is cut off ends when it is told to, also while it is trying to connect', async () => {
    const cut = rig.instances.pop()!;
    const opened = cut.proxy.opened.listener;
    cut.proxy.set('hold');
    await until(
      () => cut.proxy.opened.listener > opened,
      () => 'it does not try to connect',
    );
    expect(await cut.process.stop()).toBe(0);
    cut.http.close();
    await cut.proxy.stop();
    expect(await rig.violations()).toEqual([]);
  });
});
