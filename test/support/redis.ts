import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createClient } from '@redis/client';
import { temporaryFolder } from './database.js';
import { freePort } from './service.js';

/** A server of this machine's, Redis or Valkey; undefined when it has none. */
export const REDIS_SERVER = ['redis-server', 'valkey-server'].find(
  (name) => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0,
);

/** A server of the test's own on a loopback port; it keeps nothing. */
export class RedisServer {
  private child: ChildProcess | undefined;

  private constructor(
    private readonly port: string,
    private readonly folder: string,
  ) {}

  static async start(): Promise<RedisServer> {
    const server = new RedisServer(await freePort(), temporaryFolder('redis-'));
    await server.start();
    return server;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  async start(): Promise<void> {
    const settings = [
      '--port',
      this.port,
      '--bind',
      '127.0.0.1',
      '--save',
      '',
      '--appendonly',
      'no',
      '--dir',
      this.folder,
    ];
    const child = spawn(REDIS_SERVER!, settings, { stdio: 'ignore' });
    this.child = child;
    const probe = createClient({ url: this.url, socket: { reconnectStrategy: 20 } });
    probe.on('error', () => undefined);
    await probe.connect();
    probe.destroy();
  }

  signal(signal: NodeJS.Signals): void {
    this.child?.kill(signal);
  }

  async stop(): Promise<void> {
    const child = this.child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL'); // also when it is frozen
    await ended;
  }
}
