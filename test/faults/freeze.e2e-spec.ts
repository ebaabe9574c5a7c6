import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { type Credential, use } from './admin.js';
import { obtain, tryAll } from './load.js';
import { sleep, until } from './processes.js';
import { Rig } from './rig.js';

const BOUND = 400;
const TOKENS = 40;

describe('an instance freezes', () => {
  let rig: Rig;
  let account: Credential;

  beforeAll(async () => {
    rig = await Rig.start({ instances: 2, bound: BOUND });
    await rig.admin.createOrganization('Acme');
    account = await rig.admin.createAccount('Concierge');
  }, 60_000);
  afterEach(() => rig.instances[1].thaw());
  afterAll(() => rig?.stop());

  it.each([
    [0.5, 1],
    [2, 4],
    [8, 4],
  ])(
    'FI-07 RV-07 for %f times the bound: revocations elsewhere return, and nothing revoked is accepted when it wakes',
    async (times, count) => {
      const [healthy, frozen] = rig.instances;
      const secrets: Credential[] = [];
      for (let i = 0; i < count; i++) secrets.push(await rig.admin.createSecret(account));
      const revoked = (await Promise.all(secrets.map((secret) => obtain(rig, secret, TOKENS)))).flat();
      const living = await obtain(rig, account, TOKENS);
      expect(await tryAll(rig, revoked)).toEqual({ 200: 2 * count * TOKENS });

      frozen.freeze();
      const thaw = sleep(times * BOUND);
      // Asked while it is frozen and the revocation is on its way: whatever it says to these may be either.
      const early = revoked.slice(0, 5).map((token) => use(rig.history, frozen, token));
      const revocations = Promise.all(secrets.map((secret) => rig.admin.revoke(secret, healthy)));
      if (times > 1) {
        for (const receipt of await revocations) {
          expect(receipt).toMatchObject({ instances: { live: 2, confirmed: 1 }, bound_ms: BOUND });
          expect(receipt.waited_ms).toBeGreaterThanOrEqual(Math.floor(BOUND * 1.1));
        }
      }
      // Queued at it before it wakes, on connections of its own and on kept ones.
      const late = times > 1 ? [...revoked, ...living].map((token) => use(rig.history, frozen, token)) : [];
      await thaw;
      frozen.thaw();
      const receipts = await revocations;
      for (const { instances } of receipts) expect(instances.live).toBe(2);
      await Promise.all(early);
      const answers = (await Promise.all(late)).map((answer) => answer?.status);
      for (const status of answers.slice(0, revoked.length)) expect([401, 503]).toContain(status);
      for (const status of answers.slice(revoked.length)) expect([200, 503]).toContain(status);

      await rig.healed();
      expect(await tryAll(rig, revoked)).toEqual({ 401: 2 * count * TOKENS });
      expect(await tryAll(rig, living)).toEqual({ 200: 2 * TOKENS });
      expect(await rig.violations()).toEqual([]);
    },
  );

  it('FI-07 an instance that was taken off the registry while it froze registers anew before it accepts anything', async () => {
    const [healthy, frozen] = rig.instances;
    const secret = await rig.admin.createSecret(account);
    const tokens = await obtain(rig, secret, TOKENS);
    expect(await tryAll(rig, tokens)).toEqual({ 200: 2 * TOKENS });
    frozen.freeze();
    await sleep(BOUND);
    // What the others do after ten seconds to whoever shows no sign of life; the frozen one is as blind now as it would be then.
    const seen = () =>
      rig.query<{ id: string; at: string }>('SELECT id, seen_at::text AS at FROM instance ORDER BY id');
    const before = await seen();
    let silent = before;
    await until(
      async () => {
        const now = await seen();
        silent = before.filter(({ at }, i) => now[i].at === at);
        return silent.length === 1;
      },
      () => 'the healthy one shows no sign of life',
    );
    await rig.query('DELETE FROM instance WHERE id = $1', [silent[0].id]);
    const receipt = await rig.admin.revoke(secret, healthy);
    expect(receipt.instances).toEqual({ live: 1, confirmed: 1 });
    const queued = tokens.map((token) => use(rig.history, frozen, token));
    frozen.thaw();
    for (const answer of await Promise.all(queued)) expect([401, 503]).toContain(answer?.status);
    await rig.healed();
    expect(await tryAll(rig, tokens)).toEqual({ 401: 2 * TOKENS });
    expect((await rig.admin.revoke(await rig.admin.createSecret(account))).instances).toEqual({
      live: 2,
      confirmed: 2,
    });
    expect(await rig.violations()).toEqual([]);
  });
});
