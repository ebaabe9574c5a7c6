import { Injectable } from '@nestjs/common';
import { Changes } from '../changes/changes.js';
import { Config } from '../config/config.js';
import { PLATFORM_ORGANIZATION } from '../kernel/actor.js';
import { StartupError } from '../kernel/startup-error.js';
import { Keyring } from '../keyring/keyring.js';
import { Revocations } from '../revocation/revocations.js';
import { SYSTEM } from './keys.service.js';

/** Wraps every key anew with the current master key, one by one, beside the running service. What a kill leaves undone the next run does. */
@Injectable()
export class MasterKeyRotation {
  constructor(
    private readonly keyring: Keyring,
    private readonly changes: Changes,
    private readonly revocations: Revocations,
    private readonly config: Config,
  ) {}

  /**
   * Resolves with how many it wrapped, and where the master key before is kept if in a folder, once every instance has opened all of
   * them. `progress` hears of each.
   * Throws a StartupError when an instance lacks the current master key: it could not open what is wrapped with it.
   */
  async run(progress: (done: number, total: number) => void): Promise<{ wrapped: number; kept?: string }> {
    const { masterKeys } = this.config;
    await masterKeys.begin();
    for (let wrapped = 0; ; wrapped++) {
      const { result } = await this.changes.run(SYSTEM, async (change) => {
        const next = await this.keyring.rewrapNext(change.tx);
        if (!next) return undefined;
        const id = masterKeys.registered === null ? null : next.to;
        const { live, lacking } = await this.revocations.lackingMasterKey(change.tx, id);
        if (lacking > 0) {
          throw new StartupError(
            `${lacking} of ${live} instances do not have the new master key: restart each with MASTER_KEY and MASTER_KEY_PREVIOUS as they are here, then run this again. ${next.done - 1} of ${next.total} keys are wrapped by it.`,
          );
        }
        const target = { type: 'key', id: next.id, name: next.kid };
        change.record({
          action: 'key.rewrapped',
          targets: [target],
          changes: { master_key_id: { from: next.from, to: next.to } },
        });
        change.forget('key', target, PLATFORM_ORGANIZATION);
        return next;
      });
      if (!result) return { wrapped, kept: await masterKeys.finish() };
      progress(result.done, result.total);
    }
  }
}
