import { createHmac, createSecretKey, type KeyObject, randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Config } from '../config/config.js';
import type { PostgresConnection } from '../database/database.module.js';
import { connect } from '../database/migrate.js';
import { StartupError } from '../kernel/startup-error.js';

/** Names a master key without telling of it. */
export const masterKeyId = (key: KeyObject) =>
  createHmac('sha256', key).update('gatehouse master key id').digest('hex').slice(0, 16);

export const WRONG_MASTER_KEY =
  'MASTER_KEY is not the one that this database was set up with: start with the right one. Nothing was changed.';

/**
 * MASTER_KEY, or for the embedded database the one in `DATA_DIR/keys/master.key`, made once. Looks into the database first, before
 * anything is changed there: a missing or wrong key beside keys that it has to open is a StartupError (78).
 */
export async function readMasterKey(config: Config, connection: PostgresConnection): Promise<KeyObject> {
  const wrappedBy = await idInUse(connection);
  const key = config.MASTER_KEY
    ? createSecretKey(config.MASTER_KEY, 'base64')
    : await fromFile(config, wrappedBy === undefined);
  if (wrappedBy !== undefined && wrappedBy !== masterKeyId(key)) throw new StartupError(WRONG_MASTER_KEY, 78);
  return key;
}

/** The id of the master key that wraps what the database holds; undefined when it holds no key yet. */
async function idInUse(connection: PostgresConnection): Promise<string | undefined> {
  const client = await connect(connection);
  try {
    const { rows } = await client.query(`SELECT master_key_id FROM keyring_key WHERE state <> 'retired' LIMIT 1`);
    return rows[0]?.master_key_id;
  } catch (error) {
    if ((error as { code?: string }).code === '42P01') return undefined; // no schema yet
    throw error;
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function fromFile(config: Config, fresh: boolean): Promise<KeyObject> {
  const file = path.join(config.dataDir, 'keys', 'master.key');
  let text = await readFile(file, 'utf8').catch((error) => (error.code === 'ENOENT' ? '' : Promise.reject(error)));
  if (!text) {
    if (!fresh) {
      throw new StartupError(
        `MASTER_KEY is missing: ${file} is gone, and without it the keys in the database cannot be opened. Restore the file, or set MASTER_KEY. Nothing was changed.`,
        78,
      );
    }
    text = `${randomBytes(32).toString('base64')}\n`;
    await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
    await writeFile(file, text, { mode: 0o600, flag: 'wx', flush: true });
  }
  const key = Buffer.from(text.trim(), 'base64');
  if (key.length !== 32)
    throw new StartupError(`${file} does not hold 32 bytes in base64: restore it. Nothing was changed.`, 78);
  return createSecretKey(key);
}
