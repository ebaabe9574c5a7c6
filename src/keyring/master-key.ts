import path from 'node:path';
import type { Config } from '../config/config.js';
import type { PostgresConnection } from '../database/database.module.js';
import { connect } from '../database/migrate.js';
import { MasterKeys } from './master-keys.js';

/**
 * MASTER_KEY, or for the embedded database the one in `DATA_DIR/keys/master.key`, made once. Looks into the database first, before
 * anything is changed there: a missing or wrong key beside keys that it has to open is a StartupError (78).
 */
export async function readMasterKeys(config: Config, connection: PostgresConnection): Promise<MasterKeys> {
  const inUse = await idsInUse(connection);
  const keys = config.MASTER_KEY
    ? MasterKeys.given(config.MASTER_KEY, config.MASTER_KEY_PREVIOUS)
    : await MasterKeys.in(path.join(config.dataDir, 'keys'), inUse.length === 0);
  await keys.know(inUse);
  return keys;
}

/** The ids of the master keys that wrap what the database holds; none when it holds no key yet. */
async function idsInUse(connection: PostgresConnection): Promise<string[]> {
  const client = await connect(connection);
  try {
    const { rows } = await client.query('SELECT DISTINCT master_key_id FROM keyring_key WHERE wrapped IS NOT NULL');
    return rows.map(({ master_key_id }) => master_key_id);
  } catch (error) {
    if ((error as { code?: string }).code === '42P01') return []; // no schema yet
    throw error;
  } finally {
    await client.end().catch(() => undefined);
  }
}
