import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { makeDataFolder } from '../config/data-dir.js';
import { StartupError } from '../kernel/startup-error.js';
import {
  type Binaries,
  createKey,
  errorCode,
  executableBinaries,
  hasFolder,
  installedBinaries,
  ownFolder,
  postgresUser,
  readKey,
  type SystemUser,
  serviceUser,
  succeeds,
} from './postgres-process.js';
import type { Passwords, Role } from './postgres-roles.js';

/**
 * Where everything is, and whose:
 *
 *   DATA_DIR/keys  passwords, the service's own      DATA_DIR/pg/18  the data, of the user PostgreSQL runs as
 *
 * DATA_DIR is passable to PostgreSQL's user and no more; its pg/ is that user's, its keys/ ours.
 */
export interface PostgresFolders {
  /** the real path of DATA_DIR */
  dataDir: string;
  data: string;
  logFile: string;
  /** where a server of this data folder is to have its socket; one that runs already may have it elsewhere */
  socketDir: string;
  /** whom PostgreSQL runs as */
  user: SystemUser;
  bin: Binaries;
}

interface Options {
  dataDir: string;
  fast?: boolean;
  step?: (text: string) => void;
}

/** Creates the folders but the data folder itself, and corrects owners and modes. */
export async function prepareFolders(options: Options): Promise<PostgresFolders> {
  const self = serviceUser();
  const user = await postgresUser();
  const asRoot = user.uid !== self.uid;
  await makeDataFolder(options.dataDir);
  const dataDir = await fs.realpath(options.dataDir);
  const stat = await checkDataDir(dataDir, self);
  // a mounted volume may be root's while we are not: then its mode is root's affair
  const mode = asRoot ? 0o711 : 0o700;
  if (stat.uid === self.uid && (stat.mode & 0o777) !== mode) await fs.chmod(dataDir, mode);
  await ownFolder(path.join(dataDir, 'keys'), 0o700, self);

  const base = asRoot ? await chooseBase(dataDir, user, options) : dataDir;
  const bin = await executableBinaries(user, base);
  await ownFolder(path.join(base, 'pg'), 0o700, user);
  const folders = await arrange(dataDir, base, user, bin);
  // pg_ctl hands these to a shell within double quotes
  for (const name of [folders.data, bin.postgres])
    if (/["$`\\\n]/.test(name))
      throw new StartupError(`PostgreSQL cannot work in ${name}: choose a path without quotes, $, \` and \\.`);
  await checkMajor(folders);
  return folders;
}

/** The same folders by the same rules, without changing anything; undefined when no first start got as far as data. */
export async function locateFolders(named: string): Promise<PostgresFolders | undefined> {
  const self = serviceUser();
  const user = await postgresUser();
  const dataDir = await fs.realpath(named).catch((error) => {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (!dataDir) return undefined;
  await checkDataDir(dataDir, self);
  await hasFolder(path.join(dataDir, 'keys'), self);
  const base = user.uid === self.uid ? dataDir : await knownBase(dataDir, user, false);
  if (!base || (base !== dataDir && !(await hasFolder(base, self)))) return undefined;
  if (!(await hasFolder(path.join(base, 'pg'), user))) return undefined;
  const folders = await arrange(dataDir, base, user, await installedBinaries());
  await checkMajor(folders);
  return existsSync(folders.data) ? folders : undefined;
}

async function checkDataDir(dataDir: string, self: SystemUser) {
  const stat = await fs.stat(dataDir);
  if (dataDir === '/' || stat.mode & 0o1000 || ![0, self.uid].includes(stat.uid))
    throw new StartupError(
      `DATA_DIR ${dataDir} must be a folder of Gatehouse's own (it belongs to uid ${stat.uid}, mode ${(stat.mode & 0o7777).toString(8)}): name another, or change its owner to ${self.name}.`,
    );
  return stat;
}

const hashOf = (text: string) => createHash('sha256').update(text).digest('hex').slice(0, 16);

async function arrange(dataDir: string, base: string, user: SystemUser, bin: Binaries): Promise<PostgresFolders> {
  const data = path.join(base, 'pg', bin.major);
  // sun_path holds 107 bytes, so the socket cannot be in DATA_DIR; and its folder's name goes through a shell
  const temporary = os.tmpdir();
  const usable = /^[\w./+-]{1,60}$/.test(temporary) && (await succeeds('test', ['-x', temporary], user));
  return {
    dataDir,
    data,
    logFile: path.join(base, 'pg', 'server.log'),
    socketDir: path.join(usable ? await fs.realpath(temporary) : '/tmp', `gatehouse-${hashOf(data)}`),
    user,
    bin,
  };
}

/** outlives a move of DATA_DIR and a change of modes */
const pointerIn = (dataDir: string) => path.join(dataDir, 'pg.location');

/**
 * As root: where pg/ and pg-bin/ are. PostgreSQL's user cannot get below a 0700 home, so a clone there has its data in
 * /var/lib. Undefined when they have to be there, and it is not yet said where.
 */
async function knownBase(dataDir: string, user: SystemUser, mayCloseKey: boolean): Promise<string | undefined> {
  const reachable = await succeeds('test', ['-x', dataDir], user);
  const known = await readKey(pointerIn(dataDir), mayCloseKey);
  if (known) return known;
  if (reachable) return dataDir;
  if (existsSync(path.join(dataDir, 'pg')))
    throw new StartupError(
      `User ${user.name}, as whom PostgreSQL runs, can no longer reach ${dataDir}/pg: allow passage (chmod o+x) on the folders above it.`,
    );
  return undefined;
}

async function chooseBase(dataDir: string, user: SystemUser, { fast, step }: Options): Promise<string> {
  const known = await knownBase(dataDir, user, true);
  if (known === dataDir) return dataDir;
  const base = known ?? `/var/lib/gatehouse-${hashOf(dataDir)}`;
  await ownFolder(base, 0o755, serviceUser());
  if (!known) await createKey(pointerIn(dataDir), base, !fast);
  step?.(`The database is in ${base}, because user ${user.name} has to reach it and cannot reach ${dataDir}`);
  return base;
}

async function checkMajor({ data, bin: { major } }: PostgresFolders): Promise<void> {
  const folder = path.dirname(data);
  const folders = existsSync(data)
    ? [major]
    : (await fs.readdir(folder)).filter((name) => /^\d+$/.test(name)).sort((a, b) => Number(b) - Number(a));
  for (const name of folders) {
    const found = (await fs.readFile(path.join(folder, name, 'PG_VERSION'), 'utf8').catch(() => '')).trim();
    if (found !== major)
      throw new StartupError(
        `The data in ${path.join(folder, name)} was written by PostgreSQL ${found || '(no PG_VERSION file)'} and this is PostgreSQL ${major}: move it with the release that wrote it, or restore it from a backup.`,
      );
  }
}

const keyFile = ({ dataDir }: PostgresFolders, role: Role) => path.join(dataDir, 'keys', `postgres-${role}`);

const missingKey = (file: string, { data }: PostgresFolders) =>
  new StartupError(`${file} is missing, and ${data} cannot be opened without it: restore it.`);

/** Reads the passwords and makes those that are missing. */
export async function preparePasswords(folders: PostgresFolders, sync: boolean): Promise<Passwords> {
  const key = async (role: Role) => {
    const file = keyFile(folders, role);
    const known = await readKey(file);
    if (known) return known;
    // the other two are set anew from their files at every start; this one opens the door to do so
    if (role === 'superuser' && existsSync(folders.data)) throw missingKey(file, folders);
    return createKey(file, randomBytes(32).toString('base64url'), sync);
  };
  return { superuser: await key('superuser'), owner: await key('owner'), application: await key('application') };
}

/** Reads the passwords without changing anything. */
export async function readPasswords(folders: PostgresFolders): Promise<Passwords> {
  const key = async (role: Role) => {
    const file = keyFile(folders, role);
    const known = await readKey(file, false);
    if (known) return known;
    if (role === 'superuser') throw missingKey(file, folders);
    throw new StartupError(`${file} is missing: restore it, or restart Gatehouse, which then makes another.`);
  };
  return { superuser: await key('superuser'), owner: await key('owner'), application: await key('application') };
}
