import { afterAll, describe, expect, it } from '@jest/globals';
import { claimsOf, jwt, makeKey } from '../support/assertions.js';
import { type Credential, presentAssertion, use } from './admin.js';
import { dawdle, waiting } from './dawdle.js';
import { asksOfTheBlind, type Violations } from './invariants.js';
import { Load, obtain } from './load.js';
import { sleep, until } from './processes.js';
import { Rig, unique } from './rig.js';

/** Each scenario runs twice: with its safeguard it is green, without it is red. So the safeguard is what makes it green. */
describe('negative controls', () => {
  let rig: Rig;
  let account: Credential;
  afterAll(() => rig?.stop());

  const start = async (sabotage: string, bound: number) => {
    const options = { instances: 2, bound, settings: sabotage ? { SABOTAGE: sabotage } : undefined };
    if (rig) await rig.begin(options);
    else rig = await Rig.start(options);
    await rig.admin.createOrganization(unique('Acme'));
    account = await rig.admin.createAccount('Concierge');
  };

  /** The sabotaged run must find its invariant breached, the other one nothing at all. */
  const judge = (violations: Violations, sabotage: string, invariant: string) => {
    const breached = [...new Set(violations.map((text) => text.split(':', 1)[0]))];
    if (sabotage) expect(breached).toContain(invariant);
    else expect(violations).toEqual([]);
  };

  it.each(['', 'synchronous_commit_off'])(
    'I1 kill -9 of PostgreSQL under load, SABOTAGE=%s',
    async (sabotage) => {
      await start(sabotage, 500);
      // What a commit did not wait for is on disk only after this long: no luck decides.
      await rig.query(`ALTER SYSTEM SET wal_writer_delay = '10s'`);
      await rig.query('SELECT pg_reload_conf()');
      const load = new Load(rig, [account]);
      await until(
        () => rig.history.ok('token').length > 200,
        () => 'no load',
      );
      const crash = rig.crashPostgres();
      await load.stop();
      await crash;
      await rig.query('ALTER SYSTEM RESET ALL');
      await rig.query('SELECT pg_reload_conf()');
      judge(await rig.violations(), sabotage, 'I1');
    },
    60_000,
  );

  it.each(['', 'stamp_at_completion'])(
    'I3 news that was 0.8 of the bound on its way, then none, SABOTAGE=%s',
    async (sabotage) => {
      const bound = 1000;
      await start(sabotage, bound);
      const secret = await rig.admin.createSecret(account);
      const tokens = await obtain(rig, secret, 5);
      const [revoking, slow] = rig.instances;
      for (const token of tokens) expect((await use(rig.history, slow, token))?.status).toBe(200);
      // The database has answered, so it has not seen what comes next; the answer takes its time, and there is no other.
      slow.proxy.set({ down: 0.8 * bound }, { kinds: ['feed'] });
      await slow.proxy.seen('feed', 'down');
      slow.proxy.set({ up: 'hold' }, { kinds: ['feed'] });
      await rig.admin.revoke(secret, revoking);
      const statuses = new Set<number | undefined>();
      for (const until = performance.now() + bound; performance.now() < until; await sleep(20))
        for (const token of tokens) statuses.add((await use(rig.history, slow, token))?.status);
      if (!sabotage) expect([...statuses]).toEqual([503]);
      judge(await rig.violations(), sabotage, 'I3');
    },
    60_000,
  );

  it.each(['', 'cursor_without_lock'])(
    'I3 a revocation that drew its id before another and commits after it, SABOTAGE=%s',
    async (sabotage) => {
      await start(sabotage, 500);
      const [slow, quick] = [account, await rig.admin.createAccount('Portal')];
      const tokens = await obtain(rig, slow, 5);
      const { stopped, release } = await dawdle(rig);
      const first = rig.admin.revoke(slow, rig.instances[0], 'slow');
      await stopped();
      // The other one overtakes it, or with the lock waits behind it.
      let returned = false;
      const second = rig.admin.revoke(quick, rig.instances[1]).finally(() => {
        returned = true;
      });
      await until(
        async () => returned || (await waiting(rig)) === 2,
        () => 'the second neither waits nor returns',
      );
      expect(returned).toBe(sabotage !== '');
      await release();
      await Promise.all([first, second]);
      for (const instance of rig.instances) for (const token of tokens) await use(rig.history, instance, token);
      judge(await rig.violations(), sabotage, 'I3');
    },
    60_000,
  );

  it.each(['', 'jti_in_memory'])(
    'I5 each assertion is presented to two instances at once, and again, SABOTAGE=%s',
    async (sabotage) => {
      await start(sabotage, 10_000); // nothing here is about news of revocations
      const key = makeKey('EdDSA');
      await rig.admin.registerKey(account, key.jwk);
      const client = { client_id: account.clientId };
      const assertions = Array.from({ length: 50 }, (_, n) => ({ n, text: jwt(key, {}, claimsOf(client)) }));
      const offer = (some: typeof assertions) =>
        Promise.all(
          some.flatMap((assertion) =>
            rig.instances.flatMap((instance) =>
              [1, 2].map(() => presentAssertion(rig.history, instance, account, assertion)),
            ),
          ),
        );
      const waves = [];
      for (let at = 0; at < assertions.length; at += 10) waves.push(await offer(assertions.slice(at, at + 10)));
      waves.push(await offer(assertions));
      const answers = waves.flat().map((answer) => answer?.status);
      const given = answers.filter((status) => status === 200).length;
      expect(given).toBe(assertions.length * (sabotage ? 2 : 1));
      expect(answers.filter((status) => status === 401)).toHaveLength(answers.length - given);
      judge(await rig.violations(), sabotage, 'I5');
    },
    60_000,
  );

  it.each(['', 'serve_stale'])(
    'I4 an instance is cut off from news alone, SABOTAGE=%s',
    async (sabotage) => {
      const bound = 500;
      await start(sabotage, bound);
      const tokens = await obtain(rig, account, 5);
      const cut = rig.instances[1];
      await rig.blind(
        cut,
        { up: 'hold', down: 'hold' },
        async () => {
          await sleep(bound + 100);
          for (const token of tokens) await use(rig.history, cut, token);
        },
        ['feed', 'listener'],
      );
      expect(asksOfTheBlind(rig.history, bound).length).toBeGreaterThanOrEqual(tokens.length);
      judge(await rig.violations(), sabotage, 'I4');
    },
    60_000,
  );
});
