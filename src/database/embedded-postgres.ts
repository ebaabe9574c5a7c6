import fs from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { StartupError } from '../kernel/startup-error.js';
import {
  locateFolders,
  type PostgresFolders,
  prepareFolders,
  preparePasswords,
  readPasswords,
} from './postgres-folders.js';
import { type Passwords, type PostgresTarget, prepareDatabase, type Role, targetOf } from './postgres-roles.js';
import { PostgresServer, type PostgresServerOptions } from './postgres-server.js';

export type { PostgresTarget };

export interface EmbeddedPostgresOptions extends PostgresServerOptions {
  /** absolute DATA_DIR */
  dataDir: string;
}

/** Advisory lock in the database postgres: "I am the one service on this data directory". */
const LOCK = [7315, 1];
const LOCK_WAIT_MS = 5_000; // the connections of a service killed -9 take a moment to vanish

class InUse extends StartupError {}

/**
 * A real PostgreSQL under DATA_DIR. Its process is a session of its own: Ctrl-C reaches only Node, Node drains, and then
 * stop() ends the server. If Node was killed -9, the next start() adopts the server that lives on; if that died too,
 * PostgreSQL recovers from its WAL.
 */
export class EmbeddedPostgres {
  private folders?: PostgresFolders;
  private passwords?: Passwords;
  private server?: PostgresServer;
  private lock?: pg.Client;
  private pid?: number;
  private wasAdopted = false;
  /** the server is another's to stop */
  private isGuest = false;

  constructor(private readonly options: EmbeddedPostgresOptions) {}

  get superuser(): PostgresTarget {
    return this.target('superuser');
  }

  /** owns the database and its schema */
  get owner(): PostgresTarget {
    return this.target('owner');
  }

  /** may log in, and use what the owner grants */
  get application(): PostgresTarget {
    return this.target('application');
  }

  /** whether start() or attach() found the server running */
  get adopted(): boolean {
    return this.wasAdopted;
  }

  get postmasterPid(): number | undefined {
    return this.pid;
  }

  private target(role: Role): PostgresTarget {
    if (!this.passwords || !this.server) throw new Error('The embedded PostgreSQL has not been started');
    return targetOf(role, this.server.socketDir, this.passwords[role]);
  }

  private get dataDir(): string {
    return this.folders?.dataDir ?? this.options.dataDir;
  }

  async start(): Promise<void> {
    try {
      this.isGuest = false;
      this.folders = await prepareFolders(this.options);
      this.passwords = await preparePasswords(this.folders, !this.options.fast);
      const server = new PostgresServer(this.folders, this.passwords.superuser, this.options);
      this.server = server;
      await server.initialize();
      await this.serve(server);
      await prepareDatabase((database) => server.client(database, 'gatehouse start'), this.passwords);
    } catch (error) {
      if (this.lock) await this.stop().catch((failure: Error) => this.options.log?.(failure.message));
      if (error instanceof StartupError) throw error;
      throw new StartupError(`PostgreSQL could not be started in ${this.dataDir}: ${(error as Error).message}`);
    }
    const origin = this.wasAdopted ? ', left running by an earlier process' : '';
    this.options.step?.(`PostgreSQL ${this.folders.bin.version} is running (process ${this.pid}${origin})`);
  }

  /**
   * For command-line tools that run beside the service. Uses the server that runs, changes nothing, and stop() lets it
   * run on. If none runs, does what start() does, and stop() ends it.
   */
  async attach(): Promise<void> {
    if (this.lock) return;
    if (await this.visit()) return;
    try {
      await this.start();
    } catch (error) {
      // a service, or another tool, was starting at the same time and was faster
      if (!(error instanceof InUse && (await this.visit()))) throw error;
    }
  }

  private async visit(): Promise<boolean> {
    try {
      const folders = await locateFolders(this.options.dataDir);
      if (!folders) throw new StartupError('There is no Gatehouse here yet: run "npm run up" first.');
      this.folders = folders;
      this.passwords = await readPasswords(folders);
      this.server = new PostgresServer(folders, this.passwords.superuser, this.options);
      this.pid = await this.server.find();
    } catch (error) {
      if (error instanceof StartupError) throw error;
      throw new StartupError(`PostgreSQL could not be reached in ${this.dataDir}: ${(error as Error).message}`);
    }
    this.isGuest = this.wasAdopted = this.pid !== undefined;
    return this.isGuest;
  }

  async stop(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    const { pid, server } = this;
    if (!pid || !server) return;
    if (this.isGuest) {
      this.pid = undefined;
      return;
    }
    // Without the lock the server may by now be another service's.
    if (!this.lock && !(await this.mayStop(server, pid))) {
      this.options.log?.(`PostgreSQL (process ${pid}) is used by another process and keeps running`);
      this.pid = undefined;
      return;
    }
    try {
      await server.stop(pid, mode);
    } finally {
      await this.lock?.end().catch(() => undefined);
      this.lock = undefined;
    }
    this.pid = undefined;
  }

  private async mayStop(server: PostgresServer, pid: number): Promise<boolean> {
    if (!(await server.runsAs(pid))) return false;
    return this.acquireLock(server, 0).then(
      () => true,
      (error) => !(error instanceof StartupError),
    );
  }

  /** Adopts or launches the server until this process holds its lock. */
  private async serve(server: PostgresServer): Promise<void> {
    for (let attempt = 1; !this.lock; attempt++) {
      await this.adoptOrLaunch(server);
      try {
        await this.acquireLock(server, LOCK_WAIT_MS);
      } catch (error) {
        // it was just being stopped by its former service
        if (error instanceof StartupError || attempt === 3) throw error;
      }
    }
    if (this.wasAdopted && !(await this.runsAsWanted(server))) {
      this.options.step?.('Restarting PostgreSQL, which an earlier process left running with other settings');
      await this.stop();
      this.lock = undefined;
      return this.serve(server);
    }
    // old copies of the binaries can go once nothing runs from them
    const copy = this.folders!.bin.copy;
    if (copy && !this.wasAdopted)
      for (const name of await fs.readdir(path.dirname(copy)))
        if (name !== path.basename(copy))
          await fs.rm(path.join(path.dirname(copy), name), { recursive: true, force: true });
  }

  private async adoptOrLaunch(server: PostgresServer): Promise<void> {
    this.pid = await server.find();
    this.wasAdopted = this.pid !== undefined;
    const deadline = Date.now() + LOCK_WAIT_MS;
    while (!this.pid) {
      const failure = await server.launch().catch((error: Error) => error);
      this.pid = await server.find();
      if (this.pid)
        this.wasAdopted = failure instanceof Error; // another process launched it meanwhile
      // children of a killed server need a moment to notice
      else if (failure instanceof Error && !(/shared memory block/.test(failure.message) && Date.now() < deadline))
        throw failure;
      else await sleep(200);
    }
  }

  /** The lock lives and dies with its connection, and so with this process, however that ends. */
  private async acquireLock(server: PostgresServer, waitMs: number): Promise<void> {
    const client = server.client('postgres', `gatehouse ${process.pid}`);
    await client.connect();
    try {
      const deadline = Date.now() + waitMs;
      while (!(await client.query('SELECT pg_try_advisory_lock($1, $2) AS held', LOCK)).rows[0].held) {
        if (Date.now() < deadline) {
          await sleep(100);
          continue;
        }
        const { rows } = await client.query(
          `SELECT application_name AS name FROM pg_locks JOIN pg_stat_activity USING (pid)
           WHERE locktype = 'advisory' AND granted AND classid = $1 AND objid = $2`,
          LOCK,
        );
        const holder = /\d+$/.exec(rows[0]?.name ?? '')?.[0];
        throw new InUse(
          `The data directory ${this.dataDir} is in use by ${holder ? `process ${holder}` : 'another process'}: stop that one first, or give this one a DATA_DIR of its own.`,
        );
      }
    } catch (error) {
      await client.end().catch(() => undefined);
      throw error;
    }
    this.lock = client;
    client.on('end', () => {
      if (this.lock === client) this.lock = undefined;
    });
  }

  private async runsAsWanted(server: PostgresServer): Promise<boolean> {
    const wanted = { ...server.settings, server_version: this.folders!.bin.version };
    const { rows } = await this.lock!.query(
      'SELECT name, setting FROM pg_settings WHERE name = ANY($1) AND setting <> $2::jsonb ->> name',
      [Object.keys(wanted), JSON.stringify(wanted)],
    );
    return rows.length === 0;
  }
}
