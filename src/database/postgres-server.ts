import { existsSync } from 'node:fs';
import fs from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { StartupError } from '../kernel/startup-error.js';
import type { PostgresFolders } from './postgres-folders.js';
import { errorCode, isAlive, ownFolder, processState, run, succeeds, syncFolder } from './postgres-process.js';
import { PORT, ROLES, targetOf } from './postgres-roles.js';

export interface PostgresServerOptions {
  /** gives up durability for speed: only for tests that do not prove it */
  fast?: boolean;
  /** default 100 */
  maxConnections?: number;
  /** the start-up narrative, one short line per step */
  step?: (text: string) => void;
  log?: (text: string) => void;
}

const SILENT_MS = 15_000; // a server that says it is ready and does not answer for so long is not coming back
const START_TIMEOUT_S = 600; // crash recovery replays all WAL since the last checkpoint

/** The server of one data folder: makes that folder, finds a server that runs on it, launches one, ends it. */
export class PostgresServer {
  /** of the server that find() found last */
  private socket: string;
  private stopping = false;

  constructor(
    private readonly folders: PostgresFolders,
    /** the superuser's */
    private readonly password: string,
    private readonly options: PostgresServerOptions,
  ) {
    this.socket = folders.socketDir;
  }

  get socketDir(): string {
    return this.socket;
  }

  /** What a server that runs has to have, or else be restarted. */
  get settings(): Record<string, string> {
    const durable = this.options.fast ? 'off' : 'on';
    return {
      fsync: durable,
      synchronous_commit: durable,
      full_page_writes: durable,
      max_connections: String(this.options.maxConnections ?? 100),
    };
  }

  /** A new client of the superuser, not yet connected. */
  client(database: string, applicationName: string): pg.Client {
    const client = new pg.Client({
      ...targetOf('superuser', this.socket, this.password),
      database,
      application_name: applicationName,
      connectionTimeoutMillis: 5_000,
    });
    // without a listener the loss of the connection would end the process
    client.on('error', (error) => {
      if (!this.stopping) this.options.log?.(`connection to PostgreSQL lost: ${error.message}`);
    });
    return client;
  }

  /** initdb works beside the data folder and is renamed when complete: killed half way, it leaves nothing that counts. */
  async initialize(): Promise<void> {
    const { user, data, bin } = this.folders;
    const folder = path.dirname(data);
    for (const name of await fs.readdir(folder)) {
      const maker = Number(/^\d+\.(\d+)\.part/.exec(name)?.[1]);
      if (maker && (maker === process.pid || !isAlive(maker))) await this.removeFolder(path.join(folder, name));
    }
    if (existsSync(data)) return;
    const started = performance.now();
    const unfinished = `${data}.${process.pid}.part`;
    const pwfile = `${unfinished}.pw`;
    const handle = await fs.open(pwfile, 'wx', 0o600);
    try {
      await handle.writeFile(this.password + '\n');
      await handle.chown(user.uid, user.gid);
      await run(
        bin.initdb,
        [
          `--pgdata=${unfinished}`,
          `--username=${ROLES.superuser}`,
          `--pwfile=${pwfile}`,
          '--auth=scram-sha-256',
          '--encoding=UTF8',
          '--locale-provider=builtin',
          '--builtin-locale=C.UTF-8',
          '--locale=C',
          ...(this.options.fast ? ['--no-sync'] : []),
        ],
        user,
      );
    } finally {
      await handle.close();
      await fs.rm(pwfile, { force: true });
    }
    await fs.rename(unfinished, data).catch(async (error) => {
      await this.removeFolder(unfinished);
      if (!existsSync(data)) throw error; // else another start was faster, and the lock decides
    });
    if (!this.options.fast) await syncFolder(folder);
    this.options.step?.(`Created the database in ${data} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
  }

  /** As PostgreSQL's user, who might have put a symbolic link there; again, while an orphaned initdb still writes. */
  private async removeFolder(folder: string): Promise<void> {
    for (let tries = 0; tries < 10; tries++) {
      if (await succeeds('rm', ['-rf', '--', folder], this.folders.user)) return;
      await sleep(100);
    }
  }

  /**
   * The process id of the server that runs on the data folder. Waits while one starts or stops; when there is none,
   * clears away what would keep one from starting.
   */
  async find(): Promise<number | undefined> {
    const { data, user, dataDir } = this.folders;
    const deadline = Date.now() + START_TIMEOUT_S * 1000;
    let silentSince: number | undefined;
    for (;;) {
      const { pid, socketDir, ready, exists } = await this.pidFile();
      if (!exists) return undefined;
      const state = pid ? await this.state(pid) : 'gone';
      if (state !== 'postmaster') {
        // PostgreSQL believes in a file that names a zombie, a recycled process id or nothing at all
        const { pid: still } = await sleep(pid ? 0 : 1000).then(() => this.pidFile());
        if (still !== pid) continue;
        this.options.log?.(`removing a stale postmaster.pid (process ${pid ?? 'none'}: ${state})`);
        await run('rm', ['-f', path.join(data, 'postmaster.pid')], user);
        return undefined;
      }
      // its socket is where TMPDIR pointed when it was started
      // Only looked at: that user writes this file, and must not make us hand it a folder.
      const folder = socketDir ? await fs.lstat(socketDir).catch(() => undefined) : undefined;
      if (socketDir && folder?.isDirectory() && folder.uid === user.uid && !(folder.mode & 0o077)) {
        this.socket = socketDir;
        const client = this.client('postgres', 'gatehouse start');
        const failure = await client.connect().catch((error: Error) => error);
        await client.end().catch(() => undefined);
        if (!(failure instanceof Error)) return pid;
        if (errorCode(failure) === '28P01')
          throw new StartupError(
            `PostgreSQL refuses the password in ${dataDir}/keys/postgres-superuser: restore the keys that belong to ${data}.`,
          );
      }
      silentSince = ready ? (silentSince ?? Date.now()) : undefined;
      if (Date.now() > Math.min(deadline, (silentSince ?? Infinity) + SILENT_MS))
        throw new StartupError(
          `PostgreSQL (process ${pid}) runs on ${data} but does not answer on its socket in ${socketDir}: end it with kill -INT ${pid} and start again.`,
        );
      await sleep(50);
    }
  }

  /** Whether the server that runs on the data folder, if any, is this process. */
  async runsAs(pid: number): Promise<boolean> {
    return (await this.pidFile()).pid === pid;
  }

  async launch(): Promise<void> {
    const { user, data, logFile, bin } = this.folders;
    this.stopping = false;
    this.socket = this.folders.socketDir; // never where an earlier server said it had its own
    await ownFolder(this.socket, 0o700, user);
    await this.removeSocket();
    const settings = {
      ...this.settings,
      listen_addresses: "''",
      unix_socket_directories: this.socket,
      port: PORT,
      log_min_messages: 'warning',
      timezone: 'UTC',
      log_timezone: 'UTC',
    };
    const flags = Object.entries(settings).map(([name, value]) => `-c ${name}=${value}`);
    const size = await fs.lstat(logFile).catch(() => ({ size: 0 }));
    if (size.size > 10_000_000) await fs.rename(logFile, `${logFile}.1`);
    const slow = setTimeout(
      () => this.options.step?.(`PostgreSQL is still starting, perhaps recovering from a crash (see ${logFile})`),
      SILENT_MS,
    );
    const wait = ['-w', '-t', String(START_TIMEOUT_S)];
    try {
      await run(bin.pg_ctl, ['start', ...wait, '-D', data, '-l', logFile, '-o', flags.join(' ')], user);
    } catch (error) {
      const tail = await run('tail', ['-n', '20', logFile], user).catch(() => '');
      const reasons = tail.split('\n').filter((line) => /FATAL|PANIC|ERROR/.test(line));
      throw new StartupError(
        `PostgreSQL did not start (${reasons.at(-1)?.trim() ?? (error as Error).message}): see ${logFile}.`,
      );
    } finally {
      clearTimeout(slow);
    }
  }

  /** Ends the server, which is this process, and leaves no socket behind. */
  async stop(pid: number, mode: 'fast' | 'immediate'): Promise<void> {
    const { bin, data, user } = this.folders;
    const stop = (how: string, seconds: number) =>
      run(bin.pg_ctl, ['stop', '-w', '-t', String(seconds), '-m', how, '-D', data], user).then(
        () => undefined,
        async (error: Error) => ((await this.state(pid)) === 'postmaster' ? error : undefined),
      );
    this.stopping = true;
    const failure = (await stop(mode, 300)) && (await stop('immediate', 30));
    if (failure) {
      this.stopping = false;
      throw new Error(`PostgreSQL (process ${pid}) did not stop: ${failure.message}`);
    }
    await this.removeSocket();
    await fs.rmdir(this.socket).catch(() => undefined);
  }

  private async pidFile() {
    const text = await fs.readFile(path.join(this.folders.data, 'postmaster.pid'), 'utf8').catch(() => undefined);
    const lines = text?.split('\n').map((line) => line.trim()) ?? [];
    return {
      exists: text !== undefined,
      pid: Number(lines[0]) || undefined,
      socketDir: lines[4]?.startsWith('/') ? lines[4] : undefined,
      ready: lines[7] === 'ready',
    };
  }

  private state(pid: number) {
    return processState(pid, this.folders.data, this.folders.user);
  }

  /** A socket whose lock file names a recycled process id keeps PostgreSQL from starting. */
  private async removeSocket(): Promise<void> {
    const socket = path.join(this.socket, `.s.PGSQL.${PORT}`);
    const pid = Number((await fs.readFile(`${socket}.lock`, 'utf8').catch(() => '')).split('\n')[0]);
    if (!pid || (await this.state(pid)) !== 'postmaster')
      await run('rm', ['-f', socket, `${socket}.lock`], this.folders.user);
  }
}
