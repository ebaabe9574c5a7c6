import fs from 'node:fs/promises';
import path from 'node:path';
import { StartupError } from '../kernel/startup-error.js';

/** Makes a folder at or under DATA_DIR, for its user alone, and those above it. Throws a StartupError (78) that names DATA_DIR. */
export async function makeDataFolder(folder: string): Promise<void> {
  await make(folder).catch(({ code }: NodeJS.ErrnoException) => {
    const reason = code === 'EEXIST' || code === 'ENOTDIR' ? 'a file is in its place' : code;
    throw new StartupError(
      `DATA_DIR cannot be used, because the folder ${folder} cannot be made (${reason}): set DATA_DIR to a folder of Gatehouse's own.`,
      78,
    );
  });
}

/** Node's `recursive` never ends where a folder exists and yet every mkdir in it says ENOENT, as in /proc. */
async function make(folder: string): Promise<void> {
  const mkdir = () => fs.mkdir(folder, { mode: 0o700 });
  await mkdir()
    .catch(async (error) => {
      if (error.code !== 'ENOENT' || path.dirname(folder) === folder) throw error;
      await make(path.dirname(folder));
      await mkdir();
    })
    .catch(async (error) => {
      if (error.code !== 'EEXIST' || !(await fs.stat(folder)).isDirectory()) throw error;
    });
}
