import cluster, { type Worker } from 'node:cluster';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Config } from './config/config.js';
import type { PostgresConnection } from './database/database.module.js';
import { drain } from './http.js';
import { StartupError } from './kernel/startup-error.js';
import { type FirstStart, prepare, type Running, serve } from './service.js';

/** What a worker says to the primary: it wants to begin; it listens; it cannot start. */
type Said = 'begin' | { listens: { firstStart: FirstStart | undefined } } | { refused: string; exitCode: number };

interface Forked {
  pid: number | undefined;
  /** Settles when it listens, or with why it never will. */
  listens: Promise<FirstStart | undefined>;
  /** Settles with how it ended. */
  ended: Promise<string>;
}

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 10_000;
/** A worker that lived so long was sound: the pause after its end is the first one again. */
const SOUND_AFTER_MS = 60_000;
/** Draining cuts connections after ten seconds and ends the modules then. Who is not done by now is stuck. */
const STUCK_AFTER_MS = 20_000;
/** What a worker said may be read after its end. That its channel is closed Node does not always tell. */
const LAST_WORDS_MS = 1000;
const CLEAN_ENDS = ['exit code 0', 'SIGTERM']; // the signal itself ends whoever is still starting

/** The service in several processes: this one prepares and looks after the workers, which share the port. Throws like startService. */
export async function startWorkers(config: Config, log: Logger, step: (text: string) => void): Promise<Running> {
  // Each accepts by itself. Handed on by the primary (Node's default), a connection on its way to a worker that dies hangs for ever.
  cluster.schedulingPolicy = cluster.SCHED_NONE;
  const { connection, release } = await prepare(config, log, step);
  const workers = new Workers(connection, log);
  const stop = () => workers.stop().finally(release);
  try {
    const firstStart = await workers.start(config.WORKERS);
    step(`Listening on port ${config.PORT} of ${config.HOST} with ${config.WORKERS} workers`);
    return { firstStart, stop };
  } catch (error) {
    await stop().catch(() => undefined);
    throw error;
  }
}

/** One worker, a whole instance. */
export async function startWorker(config: Config, log: Logger): Promise<Running> {
  const worker = cluster.worker!;
  tell('begin');
  const [connection] = (await once(worker, 'message')) as [PostgresConnection];
  const { app, firstStart } = await serve(config, connection, log, () => undefined);
  tell({ listens: { firstStart } });
  return { firstStart, stop: () => drain(app) };
}

/** Leaves it to the primary to say why this worker cannot start. */
export const refuse = ({ message, exitCode }: StartupError) => tell({ refused: message, exitCode });

const tell = (said: Said) => new Promise<void>((resolve) => cluster.worker!.send(said, () => resolve()));

class Workers {
  private readonly alive = new Map<Worker, Promise<string>>();
  private stopping = false;

  constructor(
    private readonly connection: PostgresConnection,
    private readonly log: Logger,
  ) {}

  /**
   * Resolves when all listen. The first starts alone: it makes what a first start makes, and what keeps it from starting keeps the
   * service, and is thrown once. From then on the service is up, and a worker that fails is replaced.
   */
  async start(count: number): Promise<FirstStart | undefined> {
    const first = this.fork();
    const firstStart = await first.listens;
    this.keep(first, () => undefined);
    const others = Array.from({ length: count - 1 }, () => new Promise<void>((up) => this.keep(this.fork(), up)));
    await Promise.all(others);
    return firstStart;
  }

  async stop(): Promise<void> {
    this.stopping = true;
    const signal = (name: NodeJS.Signals) => {
      for (const worker of this.alive.keys()) worker.process.kill(name);
    };
    signal('SIGTERM');
    const impatience = setTimeout(() => signal('SIGKILL'), STUCK_AFTER_MS);
    const ends = await Promise.all(this.alive.values());
    clearTimeout(impatience);
    const unclean = ends.find((end) => !CLEAN_ENDS.includes(end));
    if (unclean) throw new Error(`a worker ended with ${unclean}`);
  }

  /** Has another take the place of a worker that ended, and so on. `up` when one listens for the first time. */
  private async keep(worker: Forked, up: () => void): Promise<void> {
    let pause = FIRST_PAUSE_MS;
    for (let current = worker; ; current = this.fork()) {
      const since = performance.now();
      const refused = await current.listens.then(up, (error: StartupError) => error.message);
      const end = await current.ended;
      if (this.stopping) return;
      if (performance.now() - since > SOUND_AFTER_MS) pause = FIRST_PAUSE_MS;
      const facts = { worker: current.pid, ended: end, replaced_in_ms: pause };
      this.log.warn(facts, refused ?? 'a worker ended, and another takes its place');
      await sleep(pause);
      if (this.stopping) return;
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    }
  }

  private fork(): Forked {
    const worker = cluster.fork();
    let refused: StartupError | undefined;
    const disconnected = new Promise((resolve) => worker.once('disconnect', resolve));
    const ended = new Promise<string>((resolve) => {
      worker.once('exit', async (code, signal) => {
        await Promise.race([disconnected, sleep(LAST_WORDS_MS)]);
        resolve(signal ?? `exit code ${code}`);
      });
      // Without a process id there was no process to be had. Any other error an end will follow; unheard it would end this process.
      worker.on('error', (error) => worker.process.pid ?? resolve(error.message));
    });
    const listens = new Promise<FirstStart | undefined>((resolve, reject) => {
      worker.on('message', (said: Said) => {
        if (said === 'begin') worker.send(this.connection, () => undefined);
        else if ('listens' in said) resolve(said.listens.firstStart);
        else refused = new StartupError(said.refused, said.exitCode);
      });
      ended.then((end) => reject(refused ?? new StartupError(`A worker ended before it listened (${end}).`)));
    });
    this.alive.set(worker, ended);
    ended.then(() => this.alive.delete(worker));
    return { pid: worker.process.pid, listens, ended };
  }
}
