import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import type { InjectOptions } from 'fastify';
import { pino } from 'pino';
import { loadConfig } from '../../src/config/config.js';
import { type RunningService, startService } from '../../src/service.js';
import { createDatabase, dataDir, environment, type TestDatabase, urlOf } from './database.js';

export const ADMIN = { email: 'admin@example.com', password: 'correct horse battery staple' };
export const ISSUER = 'http://localhost:3000';

export interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: whatever the server says; the test asserts on it
  json: any;
}

type Body = Record<string, unknown> | string | undefined;

/** The whole service within the test's process, on a database of its own, reached without a socket. */
export class TestService {
  private constructor(
    readonly running: RunningService,
    readonly database: TestDatabase,
    readonly logs: string[],
    private readonly ownsDatabase: boolean,
  ) {}

  static async start(settings: Record<string, string> = {}, database?: TestDatabase): Promise<TestService> {
    const own = database ?? (await createDatabase());
    const config = loadConfig(serviceEnvironment(own, { ISSUER_URL: ISSUER, PORT: '0', ...settings }));
    const logs: string[] = [];
    const log = pino({ level: config.LOG_LEVEL }, { write: (line: string) => void logs.push(line) });
    return new TestService(await startService(config, log, () => undefined), own, logs, database === undefined);
  }

  get app() {
    return this.running.app;
  }

  async stop(): Promise<void> {
    await this.running.stop();
    if (this.ownsDatabase) await this.database.drop();
  }

  async request(
    method: string,
    url: string,
    { body, headers = {}, ...rest }: { body?: Body; headers?: Record<string, string> } & Partial<InjectOptions> = {},
  ): Promise<Answer> {
    const answer = await this.app.inject({
      method: method as 'GET',
      url,
      headers: { ...(typeof body === 'object' ? { 'content-type': 'application/json' } : {}), ...headers },
      ...(body === undefined ? {} : { payload: body }),
      ...rest,
    });
    return {
      status: answer.statusCode,
      headers: answer.headers as Answer['headers'],
      text: answer.body,
      json: parse(answer.body),
    };
  }

  /** `POST /oauth/token` with a form body and, if given, Basic credentials. */
  token(
    parameters: Record<string, string> | string,
    credentials?: { id: string; secret: string },
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    return this.request('POST', '/oauth/token', {
      body: typeof parameters === 'string' ? parameters : new URLSearchParams(parameters).toString(),
      headers: {
        'content-type': 'application/x-www-form-urlencoded',
        ...(credentials ? { authorization: basic(credentials) } : {}),
        ...headers,
      },
    });
  }

  /** Signs in; the admin of the bootstrap unless told otherwise. */
  async signIn(who: { email: string; password: string } = ADMIN): Promise<Session> {
    const answer = await this.request('POST', '/api/v1/session', {
      body: { email: who.email, password: who.password },
    });
    if (answer.status !== 201) throw new Error(`sign-in: ${answer.status} ${answer.text}`);
    return new Session(this, cookieOf(answer));
  }
}

/** A signed-in person; keeps the newest cookie, as a browser does. */
export class Session {
  constructor(
    readonly service: TestService,
    public cookie: string,
  ) {}

  async call(
    method: string,
    path: string,
    body?: Record<string, unknown>,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    const answer = await this.service.request(method, `/api/v1${path}`, {
      body,
      headers: { cookie: this.cookie, ...headers },
    });
    if (answer.headers['set-cookie']) this.cookie = cookieOf(answer);
    return answer;
  }

  get = (path: string, headers?: Record<string, string>) => this.call('GET', path, undefined, headers);
  post = (path: string, body: Record<string, unknown> = {}, headers?: Record<string, string>) =>
    this.call('POST', path, body, headers);
  patch = (path: string, body: Record<string, unknown>, headers?: Record<string, string>) =>
    this.call('PATCH', path, body, headers);
  delete = (path: string, headers?: Record<string, string>) => this.call('DELETE', path, undefined, headers);

  /** A client account, and this session turned to it. */
  async createOrganization(
    name: string,
    settings: Record<string, unknown> = {},
  ): Promise<{ id: string; name: string }> {
    const made = await this.post('/organizations', { name, ...settings });
    if (made.status !== 201) throw new Error(`organization: ${made.status} ${made.text}`);
    const turned = await this.patch('/session', { organization_id: made.json.id });
    if (turned.status !== 200) throw new Error(`switch: ${turned.status} ${turned.text}`);
    return made.json;
  }

  /** A service account with one secret. */
  async createAccount(
    name: string,
    scopes: string[] = ['companies:read', 'companies:write', 'employees:write'],
    settings: Record<string, unknown> = {},
  ): Promise<TestAccount> {
    const account = await this.post('/service-accounts', { name, scopes, ...settings });
    if (account.status !== 201) throw new Error(`account: ${account.status} ${account.text}`);
    const secret = await this.createSecret(account.json.id);
    return {
      id: account.json.id,
      client_id: account.json.client_id,
      name,
      secret,
      credentials: { id: account.json.client_id, secret: secret.secret },
    };
  }

  async createSecret(
    accountId: string,
    settings: Record<string, unknown> = {},
  ): Promise<{ id: string; secret: string; hint: string }> {
    const made = await this.post(`/service-accounts/${accountId}/secrets`, settings);
    if (made.status !== 201) throw new Error(`secret: ${made.status} ${made.text}`);
    return made.json;
  }
}

export interface TestAccount {
  id: string;
  client_id: string;
  name: string;
  secret: { id: string; secret: string; hint: string };
  credentials: { id: string; secret: string };
}

export const basic = ({ id, secret }: { id: string; secret: string }) =>
  `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`;
export const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

function cookieOf(answer: Answer): string {
  const set = [answer.headers['set-cookie'] ?? []].flat();
  return set.map((line) => line.split(';', 1)[0]).join('; ');
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The environment of a service on a test database. */
export function serviceEnvironment(
  database: Pick<TestDatabase, 'owner' | 'application'>,
  settings: Record<string, string> = {},
): Record<string, string> {
  return {
    NODE_ENV: 'test',
    DATABASE_URL: urlOf(database.application),
    MIGRATION_DATABASE_URL: urlOf(database.owner),
    MASTER_KEY: environment().masterKey,
    DATA_DIR: dataDir(),
    BOOTSTRAP_ADMIN_EMAIL: ADMIN.email,
    BOOTSTRAP_ADMIN_PASSWORD: ADMIN.password,
    LOG_LEVEL: 'info',
    RATE_LIMIT: '1000000/1', // tests that are about something else ask for thousands at a time
    ...settings,
  };
}

export const ROOT = path.resolve(__dirname, '../..');
const MAIN = path.join(ROOT, 'dist/src/main.js');

/** A process of the built service, as a user starts it. */
export class ServiceProcess {
  stdout = '';
  stderr = '';
  exit: Promise<number | null>;

  constructor(
    readonly child: ChildProcess,
    readonly url: string,
  ) {
    child.stdout!.on('data', (chunk) => {
      this.stdout += chunk;
    });
    child.stderr!.on('data', (chunk) => {
      this.stderr += chunk;
    });
    this.exit = once(child, 'exit').then(([code]) => code as number | null);
  }

  /** Spawns without waiting. The environment is the given one alone, plus what Node needs. */
  static spawn(environment: Record<string, string>, file = MAIN, args: string[] = [], cwd?: string): ServiceProcess {
    const port = environment.PORT ?? '3000';
    const child = spawn(process.execPath, [file, ...args], {
      cwd: cwd ?? environment.DATA_DIR ?? ROOT,
      env: { PATH: process.env.PATH, HOME: process.env.HOME, TMPDIR: process.env.TMPDIR, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return new ServiceProcess(child, `http://127.0.0.1:${port}`);
  }

  /** Spawns and waits until it is ready. Throws with what it said when it ends instead. */
  static async start(environment: Record<string, string>): Promise<ServiceProcess> {
    const service = ServiceProcess.spawn(environment);
    const ended = service.exit.then((code) => {
      throw new Error(`the service ended (${code}): ${service.stderr}\n${service.stdout}`);
    });
    await Promise.race([ended, service.ready()]);
    return service;
  }

  async ready(): Promise<void> {
    while (this.child.exitCode === null) {
      const answer = await fetch(`${this.url}/health/ready`).catch(() => undefined);
      if (answer?.ok) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal);
    return this.exit;
  }
}

/** A port that nobody listens on now. */
export async function freePort(): Promise<string> {
  const { createServer } = await import('node:net');
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return String(port);
}
