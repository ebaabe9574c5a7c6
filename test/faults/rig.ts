import { randomBytes, randomInt } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import { EmbeddedPostgres } from '../../src/database/embedded-postgres.js';
import { migrate } from '../../src/database/migrate.js';
import { temporaryFolder, urlOf } from '../support/database.js';
import { ADMIN, freePort, ISSUER, ServiceProcess, serviceEnvironment } from '../support/service.js';
import { Admin } from './admin.js';
import { History } from './history.js';
import { HttpClient } from './http-client.js';
import {
  closedWhenBlind,
  type Epochs,
  epochs,
  epochsOnlyRise,
  nothingInvented,
  type Query,
  recorded,
  revokedMeansRevoked,
  usedOnce,
  type Violations,
} from './invariants.js';
import { childrenOf, until } from './processes.js';
import { type ConnectionKind, DatabaseProxy, type Mode } from './proxy.js';

/** One process of the built service, with its own link to the database. */
export class Instance {
  constructor(
    readonly name: string,
    readonly process: ServiceProcess,
    readonly http: HttpClient,
    readonly proxy: DatabaseProxy,
  ) {}

  freeze(): void {
    this.process.child.kill('SIGSTOP');
  }

  thaw(): void {
    this.process.child.kill('SIGCONT');
  }

  /** Whether it says that it has news of revocations. */
  async isReady(): Promise<boolean> {
    const answer = await this.http.request('GET', '/health/ready');
    return answer?.status === 200;
  }
}

export interface RigOptions {
  /** How many instances. */
  instances?: number;
  /** REVOCATION_BOUND_MS of each. */
  bound?: number;
  /** Further settings, SABOTAGE among them. */
  settings?: Record<string, string>;
}

/**
 * A durable PostgreSQL of its own, processes of the built service, a proxy between each and the database, and the history of all
 * that was asked of them. A run is named by its seed; FAULTS_SEED replays one.
 */
export class Rig {
  history: History;
  instances: Instance[] = [];
  bound: number;
  private settings: Record<string, string> = {};
  private started = 0;
  admin: Admin;
  private before: Epochs = new Map();
  private readonly superuser: pg.Client[] = [];

  private constructor(
    private readonly dir: string,
    private postgres: EmbeddedPostgres,
  ) {}

  static async start(options: RigOptions = {}): Promise<Rig> {
    const dir = temporaryFolder('faults-');
    const rig = new Rig(dir, new EmbeddedPostgres({ dataDir: path.join(dir, 'database') }));
    try {
      await rig.postgres.start();
      await migrate(rig.postgres.owner, rig.postgres.application);
      await rig.begin(options);
      return rig;
    } catch (error) {
      await rig.stop().catch(() => undefined);
      throw error;
    }
  }

  /** A new run on the same database: other instances, an empty history. */
  async begin({ instances = 2, bound = 500, settings = {} }: RigOptions): Promise<void> {
    await this.end('SIGKILL');
    const seed = Number(process.env.FAULTS_SEED) || randomInt(2 ** 31);
    process.stderr.write(`faults: FAULTS_SEED=${seed} ${JSON.stringify({ instances, bound, ...settings })}\n`);
    this.history = new History(seed);
    Object.assign(this, { bound, settings });
    await this.query('DELETE FROM instance'); // those of the run before were killed
    await Promise.all(Array.from({ length: instances }, () => this.addInstance()));
    this.instances.sort((a, b) => (a.name < b.name ? -1 : 1));
    this.admin = await Admin.signIn(this.history, this.instances[0], ADMIN);
    this.before = await epochs(this.query);
  }

  /** Starts one more, ready unless told otherwise. */
  async addInstance({
    settings = {},
    waitUntilReady = true,
    modes = {},
  }: {
    settings?: Record<string, string>;
    waitUntilReady?: boolean;
    modes?: Partial<Record<ConnectionKind, Mode>>;
  } = {}): Promise<Instance> {
    const name = String.fromCharCode('A'.charCodeAt(0) + this.started++);
    const dataDir = path.join(this.dir, `instance-${name}`);
    mkdirSync(dataDir);
    const proxy = await DatabaseProxy.start(() => path.join(this.postgres.application.host, '.s.PGSQL.5432'));
    for (const [kind, mode] of Object.entries(modes)) proxy.set(mode, { kinds: [kind as ConnectionKind] });
    const port = await freePort();
    const env = serviceEnvironment(this.postgres, {
      PORT: port,
      ISSUER_URL: ISSUER,
      DATA_DIR: dataDir,
      REVOCATION_BOUND_MS: String(this.bound),
      LOG_LEVEL: 'warn',
      ...this.settings,
      ...settings,
      DATABASE_URL: urlOf({ ...this.postgres.application, host: '127.0.0.1', port: proxy.port }),
    });
    const service = ServiceProcess.spawn(env);
    const instance = new Instance(name, service, new HttpClient(name, Number(port)), proxy);
    this.instances.push(instance);
    if (waitUntilReady) {
      const ended = service.exit.then((code) =>
        Promise.reject(new Error(`${name} ended (${code}): ${service.stderr}${service.stdout}`)),
      );
      await Promise.race([ended, service.ready()]);
    }
    return instance;
  }

  /** As the superuser. The connection is made anew when the database went away. */
  readonly query: Query = async (sql, values) => {
    const client = await this.connect();
    try {
      return (await client.query(sql, values)).rows;
    } finally {
      await client.end();
    }
  };

  /** A connection of the superuser's; closed with the rig. */
  async connect(): Promise<pg.Client> {
    const client = new pg.Client({ ...this.postgres.superuser, application_name: 'rig' });
    client.on('error', () => undefined);
    this.superuser.push(client);
    await client.connect();
    return client;
  }

  /** Every process of PostgreSQL, the postmaster first: once that is stopped it forks no more. */
  private signalPostgres(signal: NodeJS.Signals): void {
    const postmaster = this.postgres.postmasterPid!;
    const send = (pid: number) => {
      try {
        process.kill(pid, signal);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    };
    if (signal === 'SIGKILL') process.kill(postmaster, 'SIGSTOP');
    else send(postmaster);
    for (const child of childrenOf(postmaster)) send(child);
    if (signal === 'SIGKILL') send(postmaster);
  }

  freezePostgres(): void {
    this.signalPostgres('SIGSTOP');
  }

  thawPostgres(): void {
    this.signalPostgres('SIGCONT');
  }

  /** SIGKILL to all of it at one moment, as a power cut does to processes, and a start that recovers. */
  async crashPostgres(): Promise<void> {
    this.signalPostgres('SIGKILL');
    const revived = new EmbeddedPostgres({ dataDir: path.join(this.dir, 'database') });
    await revived.start();
    this.postgres = revived;
  }

  /** Until every instance has news of revocations again, with no hand laid on it. */
  async healed(withinMs = 5000): Promise<number> {
    const since = performance.now();
    await until(
      async () => (await Promise.all(this.instances.map((instance) => instance.isReady()))).every(Boolean),
      () => `not every instance healed within ${withinMs} ms`,
      withinMs,
    );
    return performance.now() - since;
  }

  /** Cuts an instance off from news while `during` runs, and notes the window in the history. */
  async blind<T>(
    instance: Instance,
    how: Partial<Record<'up' | 'down', Mode>>,
    during: () => Promise<T>,
    kinds?: readonly ConnectionKind[],
  ): Promise<T> {
    const window = { instance: instance.name, from: instance.proxy.set(how, { kinds }), to: Number.POSITIVE_INFINITY };
    this.history.blind.push(window);
    try {
      return await during();
    } finally {
      window.to = performance.now();
      instance.proxy.set('pass');
    }
  }

  /** Every invariant on what has happened so far. */
  async violations(): Promise<Violations> {
    if (this.history.pending > 0) throw new Error('what is under way can be judged neither way: stop the load first');
    const found = [
      ...(await recorded(this.history, this.query)),
      ...(await nothingInvented(this.history, this.query)),
      ...revokedMeansRevoked(this.history),
      ...closedWhenBlind(this.history, this.bound),
      ...usedOnce(this.history),
      ...epochsOnlyRise(this.history, this.before, await epochs(this.query)),
    ];
    if (found.length > 0) process.stderr.write(`faults: ${found.length} violations, see ${this.history.save()}\n`);
    return found;
  }

  async stop(): Promise<void> {
    // Drained by SIGTERM as in life: whatever a fault left behind must not keep a process from ending.
    const failed = await this.end('SIGTERM');
    for (const client of this.superuser) await client.end().catch(() => undefined);
    await this.postgres.stop('immediate');
    rmSync(this.dir, { recursive: true, force: true });
    if (failed) throw new Error(failed);
  }

  /** Ends the instances; tells of one that did not end as it should. */
  private async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<string | undefined> {
    const ending = this.instances;
    this.instances = [];
    const results = await Promise.all(
      ending.map(async (instance) => {
        instance.thaw();
        instance.proxy.set('pass');
        instance.http.close();
        const code = await instance.process.stop(signal);
        await instance.proxy.stop();
        return code === 0 || signal === 'SIGKILL'
          ? []
          : [`${instance.name} ended with ${code}: ${instance.process.stderr}${instance.process.stdout}`];
      }),
    );
    return results.flat()[0];
  }
}

/** A name that nothing else has. */
export const unique = (word: string) => `${word} ${randomBytes(6).toString('hex')}`;
