import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import pg from 'pg';
import ts from 'typescript';
import {
  EmbeddedPostgres,
  type EmbeddedPostgresOptions,
  type PostgresTarget,
} from '../../src/database/embedded-postgres.js';
import { StartupError } from '../../src/kernel/startup-error.js';

jest.setTimeout(60_000);

const ROOT = process.getuid?.() === 0;
const rooms: string[] = [];
const servers = new Set<EmbeddedPostgres>();

/** A room that other users can pass through, as the folder of a service usually is. */
async function room(mode = 0o711): Promise<string> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'gatehouse-test-'));
  await fs.chmod(folder, mode);
  rooms.push(folder);
  return path.join(folder, 'data');
}

function server(dataDir: string, options: Partial<EmbeddedPostgresOptions> = { fast: true }): EmbeddedPostgres {
  const made = new EmbeddedPostgres({ dataDir, ...options });
  servers.add(made);
  return made;
}

async function query(target: PostgresTarget, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(target);
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query(text)).rows as Record<string, unknown>[];
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** What a kill -9 of the service does to its server: the connection that holds the lock is gone. */
const dropLock = (target: PostgresTarget) =>
  query(target, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7315`);

/** The processes that work inside the data folder: the postmaster and its children. */
async function processesIn(folder: string): Promise<number[]> {
  const pids = (await fs.readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = pids.map(async (pid) =>
    (await fs.readlink(`/proc/${pid}/cwd`).catch(() => '')) === folder ? [pid] : [],
  );
  return (await Promise.all(found)).flat().map(Number);
}

const mode = async (file: string) => ((await fs.stat(file)).mode & 0o777).toString(8);
const socketDir = (made: EmbeddedPostgres) => made.superuser.host;

async function refusal(made: EmbeddedPostgres, how: 'start' | 'attach' = 'start'): Promise<string> {
  const error = await made[how]().then(
    () => undefined,
    (failure: unknown) => failure,
  );
  expect(error).toBeInstanceOf(StartupError);
  return (error as Error).message;
}

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
let program: Promise<string> | undefined;
const children = new Set<ChildProcess>();

/** A program that starts the server of a data directory and says 'ready': there need not be a build to run this test. */
async function compile(): Promise<string> {
  const folder = path.dirname(await room());
  const parts = ['folders', 'process', 'roles', 'server'].map((part) => `database/postgres-${part}`);
  for (const file of ['database/embedded-postgres', ...parts, 'config/data-dir', 'kernel/startup-error']) {
    const source = await fs.readFile(path.join(REPOSITORY, 'src', `${file}.ts`), 'utf8');
    const { outputText } = ts.transpileModule(source, {
      compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022, verbatimModuleSyntax: true },
    });
    await fs.mkdir(path.join(folder, path.dirname(file)), { recursive: true });
    await fs.writeFile(path.join(folder, `${file}.js`), outputText);
  }
  await fs.symlink(path.join(REPOSITORY, 'node_modules'), path.join(folder, 'node_modules'));
  await fs.writeFile(path.join(folder, 'package.json'), '{"type":"module"}');
  await fs.writeFile(
    path.join(folder, 'main.js'),
    `import { EmbeddedPostgres } from './database/embedded-postgres.js';
     const db = new EmbeddedPostgres({ dataDir: process.argv[2], fast: true });
     try { await db.start(); console.log('ready'); } catch (error) { console.log(error.message); process.exit(1); }
     process.on('SIGTERM', () => db.stop());`,
  );
  return path.join(folder, 'main.js');
}

/** Another process with the service's database; `said` is its first line. */
async function service(dataDir: string) {
  program ??= compile();
  const child = spawn(process.execPath, [await program, dataDir], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.add(child);
  const exited = once(child, 'exit').then(() => children.delete(child));
  const silent = exited.then(() => Promise.reject(new Error('it ended without a word')));
  const said = Promise.race([once(child.stdout, 'data').then(([data]) => String(data).trim()), silent]);
  said.catch(() => undefined);
  return { child, said, exited };
}

const stopAll = async () => {
  for (const made of servers) await made.stop('immediate');
  servers.clear();
  for (const child of children) {
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
};

afterAll(async () => {
  await stopAll();
  for (const folder of rooms) await fs.rm(folder, { recursive: true, force: true });
});

describe('roles', () => {
  let db: EmbeddedPostgres;
  let dataDir: string;
  const steps: string[] = [];

  beforeAll(async () => {
    dataDir = await room();
    db = server(dataDir, { step: (text) => steps.push(text) });
    await db.start();
  });
  afterAll(stopAll);

  it('narrates, in one line per step', () => {
    expect(steps.at(-1)).toMatch(/^PostgreSQL 18\.\d+ is running \(process \d+\)$/);
    expect(steps.join('')).not.toContain('\n');
  });

  it('are three, of which only postgres is a superuser', async () => {
    const rows = await query(
      db.superuser,
      `SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin FROM pg_roles
       WHERE rolname !~ '^pg_' ORDER BY 1`,
    );
    const none = {
      rolsuper: false,
      rolcreaterole: false,
      rolcreatedb: false,
      rolreplication: false,
      rolbypassrls: false,
    };
    expect(rows).toEqual([
      { rolname: 'gatehouse', ...none, rolcanlogin: true },
      { rolname: 'gatehouse_owner', ...none, rolcanlogin: true },
      expect.objectContaining({ rolname: 'postgres', rolsuper: true, rolcanlogin: true }),
    ]);
    expect(new Set([db.superuser.password, db.owner.password, db.application.password]).size).toBe(3);
    expect(await query(db.superuser, 'SELECT FROM pg_auth_members WHERE member >= 16384')).toEqual([]);
  });

  it('let the owner own the database and its schema', async () => {
    const [row] = await query(
      db.owner,
      `SELECT pg_get_userbyid(datdba) AS database, (SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'public') AS schema,
        pg_encoding_to_char(encoding) AS encoding, datlocprovider AS provider, datlocale AS locale
       FROM pg_database WHERE datname = current_database()`,
    );
    expect(row).toEqual({
      database: 'gatehouse_owner',
      schema: 'gatehouse_owner',
      encoding: 'UTF8',
      provider: 'b',
      locale: 'C.UTF-8',
    });
    await query(db.owner, 'CREATE TABLE thing (id int); GRANT SELECT ON thing TO gatehouse');
  });

  it('let the application use what the owner grants and make nothing', async () => {
    expect(await query(db.application, 'SELECT * FROM thing')).toEqual([]);
    for (const text of [
      'CREATE TABLE mine (id int)',
      'CREATE TEMPORARY TABLE mine (id int)',
      'CREATE SCHEMA mine',
      'INSERT INTO thing VALUES (1)',
      'CREATE ROLE friend',
      'CREATE DATABASE mine',
      'SET ROLE gatehouse_owner',
    ])
      await expect(query(db.application, text)).rejects.toThrow(/permission denied/);
    expect(
      await query(db.superuser, `SELECT FROM pg_shdepend WHERE deptype = 'o' AND refobjid = 'gatehouse'::regrole`),
    ).toEqual([]);
  });

  it.each(['postgres', 'template1'])('keep the others out of the database %s', async (database) => {
    for (const target of [db.owner, db.application])
      await expect(query({ ...target, database }, 'SELECT')).rejects.toThrow(/permission denied for database/);
  });

  it('need their passwords', async () => {
    for (const target of [db.superuser, db.owner, db.application])
      await expect(query({ ...target, password: 'x' }, 'SELECT')).rejects.toThrow(/password authentication failed/);
  });

  it('are durable unless asked otherwise, and reached by no network', async () => {
    const settings = ['fsync', 'synchronous_commit', 'full_page_writes', 'listen_addresses'];
    const values = settings.map((name) => `current_setting('${name}') AS ${name}`).join();
    expect(await query(db.superuser, `SELECT ${values}`)).toEqual([
      { fsync: 'on', synchronous_commit: 'on', full_page_writes: 'on', listen_addresses: '' },
    ]);
  });

  it('have their passwords where only the service can read them', async () => {
    expect(await mode(dataDir)).toBe(ROOT ? '711' : '700');
    expect(await mode(path.join(dataDir, 'keys'))).toBe('700');
    expect((await fs.stat(path.join(dataDir, 'keys'))).uid).toBe(process.getuid?.());
    const keys = await fs.readdir(path.join(dataDir, 'keys'));
    expect(keys.sort()).toEqual(['postgres-application', 'postgres-owner', 'postgres-superuser']);
    for (const key of keys) expect(await mode(path.join(dataDir, 'keys', key))).toBe('600');
    expect(await mode(path.join(dataDir, 'pg'))).toBe('700');
    expect(await mode(socketDir(db))).toBe('700');
    if (!ROOT) return;
    // even the database's superuser cannot reach them
    const file = path.join(dataDir, 'keys/postgres-superuser');
    await expect(query(db.superuser, `SELECT pg_read_file('${file}')`)).rejects.toThrow(/Permission denied/);
  });
});

describe('life', () => {
  afterEach(stopAll);

  it('keeps data and passwords over a restart, and leaves no process and no socket behind', async () => {
    const dataDir = await room();
    const first = server(dataDir);
    await first.start();
    const folder = socketDir(first);
    await query(first.owner, 'CREATE TABLE thing AS SELECT 7 AS id');
    await first.stop();
    expect(first.postmasterPid).toBeUndefined();
    expect(await processesIn(path.join(dataDir, 'pg/18'))).toEqual([]);
    expect(existsSync(folder)).toBe(false);

    const second = server(dataDir);
    await second.start();
    expect(second.adopted).toBe(false);
    expect(second.owner).toEqual(first.owner);
    expect(await query(second.owner, 'SELECT id FROM thing')).toEqual([{ id: 7 }]);
  });

  it('adopts the server that a service killed with -9 left running', async () => {
    const dataDir = await room();
    const { child, said, exited } = await service(dataDir);
    expect(await said).toBe('ready');
    child.kill('SIGKILL');
    await exited;
    const db = server(dataDir);
    await db.start();
    expect(db.adopted).toBe(true);
    await db.stop();
    expect(await processesIn(path.join(dataDir, 'pg/18'))).toEqual([]);
  });

  it('leaves the server alone that another service adopted when the lock was lost', async () => {
    const dataDir = await room();
    const first = server(dataDir);
    await first.start();
    await dropLock(first.superuser);
    const second = server(dataDir);
    await second.start();
    expect(second.adopted).toBe(true);
    expect(second.postmasterPid).toBe(first.postmasterPid);
    await first.stop();
    expect(await query(second.application, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    await second.stop();
    expect(await processesIn(path.join(dataDir, 'pg/18'))).toEqual([]);
  });

  it('does not adopt settings: a server left running without durability is restarted', async () => {
    const dataDir = await room();
    const first = server(dataDir);
    await first.start();
    await dropLock(first.superuser);
    const second = server(dataDir, {});
    await second.start();
    expect(second.adopted).toBe(false);
    expect(await query(second.superuser, `SELECT current_setting('fsync') AS fsync`)).toEqual([{ fsync: 'on' }]);
  });

  it('recovers committed rows after kill -9 of the server and its children', async () => {
    const dataDir = await room();
    const first = server(dataDir, {});
    await first.start();
    await query(first.owner, 'CREATE TABLE thing (id int)');
    await query(first.owner, 'INSERT INTO thing SELECT generate_series(1, 1000)');
    // the postmaster first, lest it restarts its children
    process.kill(first.postmasterPid!, 'SIGKILL');
    for (const pid of await processesIn(path.join(dataDir, 'pg/18')))
      try {
        process.kill(pid, 'SIGKILL');
      } catch {} // gone by itself
    const second = server(dataDir, {});
    await second.start();
    expect(second.adopted).toBe(false);
    expect(await query(second.owner, 'SELECT count(*)::int AS count FROM thing')).toEqual([{ count: 1000 }]);
    await first.stop();
    expect(await query(second.owner, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  it('takes a postmaster.pid that names another program, or nothing, for stale', async () => {
    const dataDir = await room();
    const db = server(dataDir);
    await db.start();
    await db.stop();
    for (const text of [`${process.pid}\n${dataDir}/pg/18\n`, '']) {
      await fs.writeFile(path.join(dataDir, 'pg/18/postmaster.pid'), text);
      await db.start();
      expect(db.adopted).toBe(false);
      await db.stop();
    }
  });

  it('refuses a second service while the first lives', async () => {
    const dataDir = await room();
    const first = server(dataDir);
    await first.start();
    expect(await refusal(server(dataDir))).toBe(
      `The data directory ${dataDir} is in use by process ${process.pid}: stop that one first, or give this one a DATA_DIR of its own.`,
    );
    expect(await query(first.application, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  it('lets only one of two services that start at once have an empty folder', async () => {
    const dataDir = await room();
    const both = await Promise.all([service(dataDir), service(dataDir)]);
    const said = await Promise.all(both.map((one) => one.said));
    const holder = both[said.indexOf('ready')]?.child.pid;
    expect(said.sort()).toEqual([expect.stringContaining(` is in use by process ${holder}: `), 'ready']);
  });
});

describe('a tool attaches', () => {
  afterEach(stopAll);

  /** Names, owners, modes and times of everything under the folder but what the running server itself writes. */
  async function snapshot(folder: string): Promise<string[]> {
    const entries = await fs.readdir(folder, { recursive: true });
    const lines = entries
      .filter((name) => !/^pg\/(18\/|server\.log)/.test(name))
      .map(async (name) => {
        const { uid, mode, mtimeMs, ctimeMs } = await fs.lstat(path.join(folder, name));
        return [name, uid, mode.toString(8), mtimeMs, ctimeMs].join(' ');
      });
    return (await Promise.all(lines)).sort();
  }

  it('beside a running service, changes nothing and leaves the server running', async () => {
    const dataDir = await room();
    const steps: string[] = [];
    const { child, said, exited } = await service(dataDir);
    expect(await said).toBe('ready');
    await fs.chmod(path.join(dataDir, 'keys/postgres-owner'), 0o644);
    const before = await snapshot(dataDir);
    const tool = server(dataDir, { step: (text) => steps.push(text) });
    await tool.attach();
    expect(tool.adopted).toBe(true);
    for (const target of [tool.superuser, tool.owner, tool.application])
      expect(await query(target, 'SELECT current_user AS name')).toEqual([{ name: target.user }]);
    const pid = tool.postmasterPid!;
    await tool.stop();
    expect(tool.postmasterPid).toBeUndefined();
    expect(await processesIn(path.join(dataDir, 'pg/18'))).toContain(pid);
    expect(await query(tool.application, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    expect(await snapshot(dataDir)).toEqual(before);
    expect(steps).toEqual([]);
    child.kill('SIGTERM');
    await exited;
    expect(await processesIn(path.join(dataDir, 'pg/18'))).toEqual([]);
  });

  it('finds the server by its own word when TMPDIR has changed since', async () => {
    const dataDir = await room();
    const db = server(dataDir);
    await db.start();
    const before = process.env.TMPDIR;
    process.env.TMPDIR = path.dirname(dataDir);
    try {
      const tool = server(dataDir);
      await tool.attach();
      expect(tool.owner).toEqual(db.owner);
      await tool.stop();
    } finally {
      if (before === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before;
    }
    expect(await query(db.application, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  it('leaves a server running that a service killed with -9 left behind', async () => {
    const dataDir = await room();
    const { child, said, exited } = await service(dataDir);
    expect(await said).toBe('ready');
    child.kill('SIGKILL');
    await exited;
    const tool = server(dataDir);
    await tool.attach();
    await tool.stop();
    expect(await query(tool.application, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    await server(dataDir).start(); // for stopAll to stop
  });

  it('to a stopped data directory, starts the server under the lock and stops it', async () => {
    const dataDir = await room();
    const first = server(dataDir);
    await first.start();
    await query(first.owner, 'CREATE TABLE thing AS SELECT 7 AS id');
    await first.stop();
    const tool = server(dataDir);
    await tool.attach();
    expect(tool.adopted).toBe(false);
    expect(await query(tool.owner, 'SELECT id FROM thing')).toEqual([{ id: 7 }]);
    const guest = server(dataDir);
    await guest.attach();
    await guest.stop();
    expect(await refusal(server(dataDir))).toContain(` is in use by process ${process.pid}: `);
    await tool.stop();
    expect(await processesIn(path.join(dataDir, 'pg/18'))).toEqual([]);
    expect(existsSync(socketDir(tool))).toBe(false);
  });

  it('together with another, and one of them starts the server', async () => {
    const dataDir = await room();
    const db = server(dataDir);
    await db.start();
    await db.stop();
    const tools = [server(dataDir), server(dataDir)];
    await Promise.all(tools.map((tool) => tool.attach()));
    for (const tool of tools) expect(await query(tool.application, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    for (const tool of tools) await tool.stop();
    expect(await processesIn(path.join(dataDir, 'pg/18'))).toEqual([]);
  });

  it('nowhere when there was no first start, and makes nothing', async () => {
    const sentence = 'There is no Gatehouse here yet: run "npm run up" first.';
    const dataDir = await room();
    expect(await refusal(server(dataDir), 'attach')).toBe(sentence);
    expect(existsSync(dataDir)).toBe(false);
    await fs.mkdir(dataDir, { mode: 0o700 });
    expect(await refusal(server(dataDir), 'attach')).toBe(sentence);
    expect(await fs.readdir(dataDir)).toEqual([]);
    expect(await mode(dataDir)).toBe('700');
  });

  it('by the rules of a start', async () => {
    const dataDir = await room();
    const db = server(dataDir);
    await db.start();
    const keys = path.join(dataDir, 'keys');
    const key = path.join(keys, 'postgres-superuser');
    await fs.rename(key, `${key}.aside`);
    expect(await refusal(server(dataDir), 'attach')).toContain(`${key} is missing`);
    await fs.rename(`${key}.aside`, key);
    await fs.rename(keys, `${keys}.aside`);
    await fs.symlink(`${keys}.aside`, keys);
    expect(await refusal(server(dataDir), 'attach')).toContain(`${keys} must be a folder, and is a symbolic link`);
    await fs.unlink(keys);
    await fs.rename(`${keys}.aside`, keys);
    await server(dataDir).attach();
  });
});

describe('an interrupted first start heals', () => {
  afterEach(stopAll);

  it('within initdb', async () => {
    const dataDir = await room();
    const { child, exited } = await service(dataDir);
    const unfinished = path.join(dataDir, `pg/18.${child.pid}.part`);
    while (!existsSync(path.join(unfinished, 'PG_VERSION'))) await sleep(2);
    child.kill('SIGKILL');
    await exited;
    expect(existsSync(path.join(dataDir, 'pg/18'))).toBe(false);
    const db = server(dataDir);
    await db.start();
    expect(await query(db.application, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    expect((await fs.readdir(path.join(dataDir, 'pg'))).sort()).toEqual(['18', 'server.log']);
  });

  it('before the roles and the database', async () => {
    const db = server(await room());
    await db.start();
    await query({ ...db.superuser, database: 'postgres' }, 'DROP DATABASE gatehouse');
    await query({ ...db.superuser, database: 'postgres' }, 'DROP ROLE gatehouse');
    await query({ ...db.superuser, database: 'postgres' }, `ALTER ROLE gatehouse_owner CREATEDB PASSWORD 'other'`);
    await db.stop();
    await db.start();
    await query(db.owner, 'CREATE TABLE thing (id int)');
    await expect(query(db.owner, 'CREATE DATABASE mine')).rejects.toThrow(/permission denied/);
    await expect(query(db.application, 'CREATE TABLE mine (id int)')).rejects.toThrow(/permission denied/);
  });
});

describe('folders', () => {
  afterEach(stopAll);

  it('refuses a planted symbolic link as socket folder, keys/ or pg/', async () => {
    const dataDir = await room();
    const db = server(dataDir);
    await db.start();
    const socket = socketDir(db);
    await db.stop();
    const elsewhere = path.join(path.dirname(dataDir), 'elsewhere');
    await fs.mkdir(elsewhere, { mode: 0o755 });
    for (const folder of [socket, path.join(dataDir, 'pg'), path.join(dataDir, 'keys')]) {
      if (existsSync(folder)) await fs.rename(folder, `${folder}.aside`);
      await fs.symlink(elsewhere, folder);
      expect(await refusal(db)).toBe(`${folder} must be a folder, and is a symbolic link or a file: move it away.`);
      await fs.unlink(folder);
      if (existsSync(`${folder}.aside`)) await fs.rename(`${folder}.aside`, folder);
    }
    expect(await fs.readdir(elsewhere)).toEqual([]);
    expect(await mode(elsewhere)).toBe('755');
    await db.start();
  });

  it('closes keys that stand open', async () => {
    const dataDir = await room();
    const keys = path.join(dataDir, 'keys');
    const db = server(dataDir);
    await db.start();
    await db.stop();
    await fs.chmod(keys, 0o755);
    await fs.chmod(path.join(keys, 'postgres-owner'), 0o644);
    await db.start();
    expect(await mode(keys)).toBe('700');
    expect(await mode(path.join(keys, 'postgres-owner'))).toBe('600');
  });

  it('refuses data of another major version, and data whose key is gone', async () => {
    const dataDir = await room();
    const db = server(dataDir);
    await db.start();
    await db.stop();
    const key = path.join(dataDir, 'keys/postgres-superuser');
    await fs.rename(key, `${key}.aside`);
    expect(await refusal(db)).toContain(`${key} is missing`);
    await fs.rename(`${key}.aside`, key);
    await fs.rename(path.join(dataDir, 'pg/18'), path.join(dataDir, 'pg/17'));
    await fs.writeFile(path.join(dataDir, 'pg/17/PG_VERSION'), '17\n');
    expect(await refusal(db)).toContain('was written by PostgreSQL 17 and this is PostgreSQL 18');
  });

  const asRoot = ROOT ? it : it.skip;

  asRoot('refuses folders of other users', async () => {
    const dataDir = await room();
    await fs.mkdir(path.join(dataDir, 'keys'), { recursive: true });
    await fs.chown(path.join(dataDir, 'keys'), 12345, 12345);
    expect(await refusal(server(dataDir))).toMatch(/keys belongs to uid 12345, not to root: /);
  });

  asRoot('moves data and binaries to /var/lib when PostgreSQL cannot reach DATA_DIR', async () => {
    const dataDir = await room(0o700);
    const steps: string[] = [];
    const db = server(dataDir, { fast: true, step: (text) => steps.push(text) });
    try {
      await db.start();
      await query(db.owner, 'CREATE TABLE thing AS SELECT 7 AS id');
      await db.stop();
      expect((await fs.readdir(dataDir)).sort()).toEqual(['keys', 'pg.location']);
      expect(steps[0]).toMatch(/^The database is in \/var\/lib\/gatehouse-\w+, because user \w+ /);
      // and stays there when DATA_DIR can be reached after all
      await fs.chmod(path.dirname(dataDir), 0o711);
      await db.start();
      expect(await query(db.owner, 'SELECT id FROM thing')).toEqual([{ id: 7 }]);
      const tool = server(dataDir);
      await tool.attach();
      expect(tool.owner).toEqual(db.owner);
      await tool.stop();
      await db.stop();
    } finally {
      const moved = (await fs.readFile(path.join(dataDir, 'pg.location'), 'utf8')).trim();
      await fs.rm(moved, { recursive: true, force: true });
    }
  });
});
