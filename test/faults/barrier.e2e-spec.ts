import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type Credential, issue, use } from './admin.js';
import { obtain, tryAll } from './load.js';
import { sleep, until } from './processes.js';
import { Rig } from './rig.js';

const BOUND = 1000;

describe('the feed and the barrier', () => {
  let rig: Rig;
  let account: Credential;

  beforeAll(async () => {
    rig = await Rig.start({ instances: 2, bound: BOUND });
    await rig.admin.createOrganization('Acme');
    account = await rig.admin.createAccount('Concierge');
  }, 60_000);
  afterAll(() => rig?.stop());

  it('RV-04 an instance that starts answers nobody before it has loaded what is revoked', async () => {
    const secret = await rig.admin.createSecret(account);
    const [revoked] = await obtain(rig, secret, 1);
    const [good] = await obtain(rig, account, 1);
    await rig.admin.revoke(secret);
    // Its feed is slow, so that there is a long while in which the process runs and has not loaded.
    const instance = await rig.addInstance({ waitUntilReady: false, modes: { feed: 150 } });
    let answered = await use(rig.history, instance, revoked);
    for (; !answered; answered = await use(rig.history, instance, revoked)) await sleep(5);
    expect(answered.status).toBe(401);
    expect(answered.headers['www-authenticate']).toContain('revoked');
    expect((await use(rig.history, instance, good))?.status).toBe(200);
    instance.proxy.set('pass');
    await rig.healed();
    // Gone as it came: it says so, and no barrier waits for it.
    rig.instances.pop();
    expect(await instance.process.stop()).toBe(0);
    instance.http.close();
    await instance.proxy.stop();
    expect((await rig.admin.revoke(await rig.admin.createSecret(account))).instances).toEqual({
      live: 2,
      confirmed: 2,
    });
  });

  it('RV-08 RV-07 whoever has not confirmed the very row is waited out: neither early nor for ever', async () => {
    const bound = 1700;
    const secrets = [await rig.admin.createSecret(account), await rig.admin.createSecret(account)];
    const tokens = await obtain(rig, secrets[0], 20);
    // A registered instance that is behind by one row, with a bound of its own.
    await rig.query(
      `INSERT INTO instance (id, bound_ms, confirmed) SELECT '00000000-0000-0000-0000-000000000001', $1, max(id) FROM revocation`,
      [bound],
    );
    const receipt = await rig.admin.revoke(secrets[0]);
    expect(receipt).toMatchObject({ instances: { live: 3, confirmed: 2 }, bound_ms: bound });
    expect(receipt.waited_ms).toBeGreaterThanOrEqual(Math.floor(bound * 1.1));
    expect(await tryAll(rig, tokens)).toEqual({ 401: 40 });
    // Revoking again is asked of the first one's row, and now that everyone has it nobody is waited for.
    await rig.query(`UPDATE instance SET confirmed = $1 WHERE id = '00000000-0000-0000-0000-000000000001'`, [
      receipt.revocation_id,
    ]);
    const path = `/service-accounts/${account.accountId}/secrets/${secrets[0].secretId}/revoke`;
    const again = await rig.admin.change('POST', path, {});
    expect(again).toMatchObject({ revocation_id: receipt.revocation_id, revoked_at: receipt.revoked_at });
    expect(again.instances).toEqual({ live: 3, confirmed: 3 });
    await rig.query(`DELETE FROM instance WHERE id = '00000000-0000-0000-0000-000000000001'`);
  });

  it('RV-05 an entry matters for longer than any token from before can live', async () => {
    const [{ seconds }] = await rig.query<{ seconds: number }>(
      'SELECT min(extract(epoch FROM matters_until - revoked_at))::int AS seconds FROM revocation WHERE epoch IS NOT NULL',
    );
    expect(seconds).toBeGreaterThanOrEqual(86_400 + 300);
  });

  it('RV-11 issuing tells nobody; a change does, once', async () => {
    const ear = await rig.connect();
    let heard = 0;
    ear.on('notification', () => heard++);
    await ear.query('LISTEN revocation');
    await obtain(rig, account, 200);
    for (const instance of rig.instances) await issue(rig.history, instance, { ...account, secret: 'wrong' });
    await ear.query('SELECT 1'); // what was sent before is delivered with this answer
    expect(heard).toBe(0);
    await rig.admin.revoke(await rig.admin.createSecret(account));
    await until(
      async () => !!(await ear.query('SELECT 1')) && heard === 2,
      () => `${heard} notifications`,
    );
  });

  it('RV-11 with the queue of notifications full, revocations go on: polling finds them', async () => {
    await rig.query('ALTER SYSTEM SET max_notify_queue_pages = 64');
    await rig.crashPostgres();
    await rig.healed();
    const [stuck, flood] = [await rig.connect(), await rig.connect()];
    await stuck.query('LISTEN flood');
    await stuck.query('BEGIN'); // a listener in a transaction reads nothing, and what it has not read stays in the queue
    await stuck.query('SELECT 1');
    const full = await flood
      .query(`DO $$ BEGIN FOR i IN 1 .. 500 LOOP PERFORM pg_notify('flood', i || repeat('x', 7900)); END LOOP; END $$`)
      .catch((error) => error.message);
    // One transaction that is too large leaves nothing: many small ones fill it.
    let refused = '';
    for (let i = 0; refused === '' && i < 500; i++)
      await flood.query(`SELECT pg_notify('flood', $1 || repeat('x', 7900))`, [i]).catch((error) => {
        refused = error.message;
      });
    expect([full, refused].join()).toContain('NOTIFY queue');

    const secret = await rig.admin.createSecret(account);
    const tokens = await obtain(rig, secret, 20);
    const receipt = await rig.admin.revoke(secret);
    expect(receipt.instances).toEqual({ live: 2, confirmed: 2 });
    expect(await tryAll(rig, tokens)).toEqual({ 401: 40 });
    await stuck.end();
  });

  it('I1 I2 I3 I4 I7 I13 hold in all of it', async () => {
    expect(await rig.violations()).toEqual([]);
  });
});
