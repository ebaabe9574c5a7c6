import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Credential } from './admin.js';
import { Load, obtain, tryAll } from './load.js';
import { until } from './processes.js';
import { Rig } from './rig.js';

describe('PostgreSQL is killed', () => {
  let rig: Rig;
  let accounts: Credential[];

  beforeAll(async () => {
    rig = await Rig.start({ instances: 2 });
    await rig.admin.createOrganization('Acme');
    accounts = [await rig.admin.createAccount('Opaque'), await rig.admin.createAccount('JWT', 'jwt')];
  }, 60_000);
  afterAll(() => rig?.stop());

  it.each([1, 2])(
    'FI-04 I1 I7 kill -9 under load, time %i: nothing that was acknowledged is lost, and all heal',
    async () => {
      const before = rig.history.ok('token').length;
      const load = new Load(rig, accounts);
      await until(
        () => rig.history.ok('token').length > before + 200,
        () => 'no load',
      );
      const [revoked] = await obtain(rig, await rig.admin.createSecret(accounts[0]), 1);
      await rig.admin.revoke(revoked);
      await rig.crashPostgres();
      await rig.healed();
      const healed = rig.history.ok('token').length;
      await until(
        () => rig.history.ok('token').length > healed + 100,
        () => 'the load did not come back',
      );
      await load.stop();
      expect(await tryAll(rig, [revoked])).toEqual({ 401: 2 });
      expect(await rig.violations()).toEqual([]);
      for (const { process } of rig.instances) expect(process.child.exitCode).toBeNull();
    },
    60_000,
  );
});
