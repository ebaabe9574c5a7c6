import { until } from './processes.js';
import type { Rig } from './rig.js';

/** How many sessions wait for an advisory lock: the feed's, or that of `dawdle`. */
export const waiting = async (rig: Rig) =>
  (await rig.query(`SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`)).length;

/**
 * From now on a revocation with the reason `slow` stops after it has drawn its feed id, and goes on to its commit when `release` is
 * called. `stopped` resolves when one has. From outside, by a trigger: the service knows nothing of it.
 */
export async function dawdle(rig: Rig): Promise<{ stopped: () => Promise<void>; release: () => Promise<void> }> {
  await rig.query(`
    CREATE OR REPLACE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.reason = 'slow' THEN PERFORM pg_advisory_xact_lock(1); END IF;
      RETURN NULL;
    END $$;
    CREATE OR REPLACE TRIGGER dawdle AFTER INSERT ON revocation FOR EACH ROW EXECUTE FUNCTION dawdle()`);
  const holder = await rig.connect();
  await holder.query('SELECT pg_advisory_lock(1)');
  return {
    stopped: () =>
      until(
        async () => (await waiting(rig)) === 1,
        () => 'nobody dawdles',
      ),
    release: async () => {
      await holder.query('SELECT pg_advisory_unlock(1)');
    },
  };
}
