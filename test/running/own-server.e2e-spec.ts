import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import pg from 'pg';
import { MIGRATIONS } from '../../src/database/database.module.js';
import { EmbeddedPostgres } from '../../src/database/embedded-postgres.js';
import { dataDir } from '../support/database.js';
import { runToEnd } from '../support/processes.js';
import { ADMIN, bearer, freePort, ServiceProcess } from '../support/service.js';

jest.setTimeout(180_000);

/** Debian's PostgreSQL 15, the oldest that will do; where it is not installed, the embedded one plays a server of one's own. */
const BIN = '/usr/lib/postgresql/15/bin';
const OLDEST = existsSync(`${BIN}/initdb`);

let folder: string;
let stopServer: () => Promise<void>;
/** As the superuser, to a database. */
let connect: (database: string) => pg.Client;
/** `postgres://` over TCP, or over the socket of the embedded one. */
let urlOf: (user: string, password: string, database: string) => string;
const MASTER_KEY = randomBytes(32).toString('base64');

const run = async (database: string, ...statements: string[]) => {
  const client = connect(database);
  await client.connect();
  for (const statement of statements) await client.query(statement);
  const { rows } = await client.query('SELECT current_setting($1)::int AS version', ['server_version_num']);
  await client.end();
  return rows[0].version as number;
};

async function startOldest(): Promise<void> {
  const port = await freePort();
  const data = path.join(folder, 'data');
  // PostgreSQL refuses to run as root; nobody owns the folder then.
  const as = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
  if (as.uid) await fs.chown(folder, as.uid, as.gid);
  const options = { ...as, stdio: 'ignore' as const, cwd: folder };
  execFileSync(`${BIN}/initdb`, ['-D', data, '-U', 'root', '-A', 'trust', '-E', 'UTF8', '--locale=C', '-N'], options);
  const settings = `-p ${port} -k ${folder} -c listen_addresses=127.0.0.1`;
  execFileSync(`${BIN}/pg_ctl`, ['-D', data, '-w', '-o', settings, '-l', path.join(folder, 'log'), 'start'], options);
  stopServer = async () => void execFileSync(`${BIN}/pg_ctl`, ['-D', data, '-w', '-m', 'fast', 'stop'], options);
  connect = (database) => new pg.Client({ host: '127.0.0.1', port: Number(port), user: 'root', database });
  urlOf = (user, password, database) => `postgres://${user}:${password}@127.0.0.1:${port}/${database}`;
  // Roles of one's own prove themselves.
  await fs.writeFile(
    path.join(data, 'pg_hba.conf'),
    'host all root 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n',
  );
  await run('postgres', 'SELECT pg_reload_conf()');
}

async function startEmbedded(): Promise<void> {
  const server = new EmbeddedPostgres({ dataDir: path.join(folder, 'data') });
  await server.start();
  stopServer = () => server.stop();
  connect = (database) => new pg.Client({ ...server.superuser, database });
  urlOf = (user, password, database) =>
    `postgres://${user}:${password}@${encodeURIComponent(server.superuser.host)}:${server.superuser.port}/${database}`;
}

beforeAll(async () => {
  folder = await fs.mkdtemp(path.join(os.tmpdir(), 'gatehouse-own-'));
  await fs.chmod(folder, 0o755);
  await (OLDEST ? startOldest() : startEmbedded());
}, 60_000);
afterAll(async () => {
  await stopServer?.();
  await fs.rm(folder, { recursive: true, force: true });
});

/** The service on it, to a token and its use, and back. */
async function roundTrip(environment: Record<string, string>): Promise<ServiceProcess> {
  const service = await ServiceProcess.start(environment);
  let cookie = '';
  // biome-ignore lint/suspicious/noExplicitAny: whatever the server says; the test asserts on it
  const call = async (method: string, route: string, body?: unknown): Promise<any> => {
    const answer = await fetch(`${service.url}/api/v1${route}`, {
      method,
      headers: { cookie, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    cookie = answer.headers.get('set-cookie')?.split(';', 1)[0] ?? cookie;
    return answer.json();
  };
  await call('POST', '/session', ADMIN);
  const { id: organization_id } = await call('POST', '/organizations', { name: 'Acme' });
  await call('PATCH', '/session', { organization_id });
  const account = await call('POST', '/service-accounts', { name: 'Portal', scopes: ['companies:read'] });
  const { id, secret } = await call('POST', `/service-accounts/${account.id}/secrets`, {});
  const body = new URLSearchParams({
    grant_type: 'client_credentials',
    client_id: account.client_id,
    client_secret: secret,
  });
  const issued = await fetch(`${service.url}/oauth/token`, { method: 'POST', body });
  const { access_token } = (await issued.json()) as { access_token: string };
  const use = async () => (await fetch(`${service.url}/companies`, { headers: bearer(access_token) })).status;
  expect(await use()).toBe(200);
  const receipt = await call('POST', `/service-accounts/${account.id}/secrets/${id}/revoke`, {});
  expect(receipt.instances).toEqual({ live: 1, confirmed: 1 });
  expect(await use()).toBe(401);
  expect(await service.stop()).toBe(0);
  return service;
}

const settings = async (more: Record<string, string>): Promise<Record<string, string>> => ({
  PORT: await freePort(),
  DATA_DIR: dataDir(),
  MASTER_KEY,
  BOOTSTRAP_ADMIN_EMAIL: ADMIN.email,
  BOOTSTRAP_ADMIN_PASSWORD: ADMIN.password,
  ...more,
});

describe('a PostgreSQL of one’s own', () => {
  it('with an owner and an application role: all works, and the application cannot rewrite the log', async () => {
    const version = await run(
      'postgres',
      `CREATE ROLE own_owner LOGIN PASSWORD 'o1'`,
      `CREATE ROLE own_app LOGIN PASSWORD 'a1'`,
      'CREATE DATABASE two_roles OWNER own_owner',
    );
    if (OLDEST) expect(Math.floor(version / 10_000)).toBe(15);
    const environment = await settings({
      DATABASE_URL: urlOf('own_app', 'a1', 'two_roles'),
      MIGRATION_DATABASE_URL: urlOf('own_owner', 'o1', 'two_roles'),
    });
    const { stdout } = await roundTrip(environment);
    expect(stdout).not.toContain('"level":40');
    const application = new pg.Client({ connectionString: environment.DATABASE_URL });
    await application.connect();
    for (const statement of [
      'DELETE FROM audit_event',
      'UPDATE audit_event SET outcome = outcome',
      'TRUNCATE audit_event',
    ])
      await expect(application.query(statement)).rejects.toMatchObject({ code: '42501' });
    await application.end();
    // Without the owner once the schema is there: the tables are still another's.
    const again = await ServiceProcess.start({ ...environment, MIGRATION_DATABASE_URL: '' });
    expect(await again.stop()).toBe(0);
    expect(again.stdout).not.toContain('"level":40');
  });

  it('of two roles the owner left out: one sentence that names what to set', async () => {
    await run(
      'postgres',
      `CREATE ROLE left_owner LOGIN PASSWORD 'o2'`,
      `CREATE ROLE left_app LOGIN PASSWORD 'a2'`,
      'CREATE DATABASE left_out OWNER left_owner',
    );
    const environment = await settings({ DATABASE_URL: urlOf('left_app', 'a2', 'left_out') });
    expect(await runToEnd(environment)).toEqual({
      code: 1,
      stdout: '',
      stderr:
        'The role left_app may not change the schema (permission denied for schema public): set MIGRATION_DATABASE_URL to the role that owns the database and its tables.\n',
    });
  });

  it('with one role for both: all works, and the log says which promise that weakens', async () => {
    await run('postgres', `CREATE ROLE own_only LOGIN PASSWORD 'b1'`, 'CREATE DATABASE one_role OWNER own_only');
    const { stdout } = await roundTrip(await settings({ DATABASE_URL: urlOf('own_only', 'b1', 'one_role') }));
    const warnings = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
      .filter(({ level }) => level === 40);
    expect(warnings.map(({ msg }) => msg)).toEqual([
      'The application connects as the owner of its tables: set MIGRATION_DATABASE_URL to a role of its own, or P3 (recorded stays recorded) rests on a trigger alone.',
    ]);
  });
});

describe('the operator’s commands', () => {
  it('show, run and revert migrations, rotate keys and raise the era', async () => {
    await run('postgres', `CREATE ROLE own_cli LOGIN PASSWORD 'c1'`, 'CREATE DATABASE commands OWNER own_cli');
    const environment = await settings({ DATABASE_URL: urlOf('own_cli', 'c1', 'commands') });
    const said = async (...words: string[]) => {
      const { code, stdout, stderr } = await runToEnd(environment, ...words);
      return [code, stdout, stderr];
    };
    const names = MIGRATIONS.map(({ name }) => name);
    const shown = (landed: number) => names.map((name, i) => `[${i < landed ? 'x' : ' '}] ${name}\n`).join('');
    expect(await said('migration', 'show')).toEqual([0, shown(0), '']);
    expect(await said('migration', 'run')).toEqual([0, `Ran ${names.join(', ')}.\n`, '']);
    expect(await said('migration', 'run')).toEqual([0, 'The schema is up to date.\n', '']);
    expect(await said('migration', 'show')).toEqual([0, shown(names.length), '']);
    expect(await said('keys', 'rotate', 'sealing')).toEqual([0, 'The next key is in use.\n', '']);
    const [code, stdout] = await said('keys', 'rotate', 'signing');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^The next signing key is published, and signs from \d{4}-\S+Z on\. .*\n$/);
    expect(await said('keys', 'rotate', 'signing')).toEqual([0, stdout, '']); // under way already
    expect(await said('era', 'raise')).toEqual([
      0,
      'The era is 2: every token issued before is dead, personal access tokens too, and everybody is signed out. After a restored backup, revoke again what was revoked since it was made: those secrets and keys are alive again.\n',
      '',
    ]);
    for (const NODE_ENV of ['', 'production']) {
      const { code, stdout, stderr } = await runToEnd({ ...environment, NODE_ENV }, 'migration', 'revert');
      expect([code, stdout]).toEqual([64, '']);
      expect(stderr).toMatch(/^"migration revert" drops .* NODE_ENV is production: set NODE_ENV=development .*\n$/);
      expect(await said('migration', 'show')).toEqual([0, shown(names.length), '']);
    }
    Object.assign(environment, { NODE_ENV: 'development' });
    expect(await said('migration', 'revert')).toEqual([0, 'Took back the newest migration.\n', '']);
    expect(await said('migration', 'show')).toEqual([0, shown(names.length - 1), '']);
    expect(await said('keys', 'list')).toEqual([
      1,
      '',
      `The database's schema is older than this version of Gatehouse (it lacks ${names.at(-1)}): run \`npm run gatehouse -- migration run\`.\n`,
    ]);
  });

  it('MD-07 list and revoke keys', async () => {
    const environment = await settings({ DATABASE_URL: urlOf('own_only', 'b1', 'one_role') });
    const listed = (await runToEnd(environment, 'keys', 'list')).stdout.trimEnd().split('\n');
    expect(listed.map((line) => line.split(/ +/).slice(0, 2).join(' '))).toEqual([
      'PURPOSE STATE',
      'token-sign active',
      'token-seal active',
      'cursor active',
      'credential-hash active',
    ]);
    const kid = /token-seal +active +\S+ +(\S+)/.exec(listed.join('\n'))![1];
    expect(await runToEnd(environment, 'keys', 'revoke', '--reason', 'a drill', '--', kid)).toEqual({
      code: 0,
      stdout: expect.stringMatching(
        new RegExp(`^Revoked\\. Every token made with ${kid} is dead on every instance: 0 of 0`),
      ),
      stderr: '',
    });
    expect((await runToEnd(environment, 'keys', 'list', '--all')).stdout).toMatch(
      new RegExp(`token-seal +revoked +A256GCM +${kid}`),
    );
    // A kid may begin with a dash.
    expect(await runToEnd(environment, 'keys', 'revoke', '-nobody')).toEqual({
      code: 1,
      stdout: '',
      stderr: 'There is no such key\n',
    });
  });

  const LIST = /Usage: npm run gatehouse -- <command>\n\n {2}migration run .*\n(?: {2}\S.*\n){9,}$/;

  it.each([['frobnicate'], ['constructor'], ['er'], ['keys rotate everything'], ['frobnicate --help']])(
    'unknown: %s',
    async (words) => {
      const { code, stdout, stderr } = await runToEnd(await settings({}), ...words.split(' '));
      expect([code, stdout]).toEqual([64, '']);
      expect(stderr.split('\n')[0]).toBe(`Unknown command: "${words.replace(' --help', '')}"`);
      expect(stderr).toMatch(LIST);
    },
  );

  it.each([
    ['keys rotate', 3],
    ['keys', 5],
    ['era', 1],
  ])('the group %s has its own list: asked for it is help, else something is missing', async (words, count) => {
    const list = new RegExp(`^Usage: npm run gatehouse -- <command>\\n\\n(?: {2}${words} \\S.*\\n){${count}}$`);
    const run = async (...more: string[]) => runToEnd(await settings({}), ...words.split(' '), ...more);
    for (const help of ['--help', '-h'])
      expect(await run(help)).toEqual({ code: 0, stdout: expect.stringMatching(list), stderr: '' });
    const { code, stdout, stderr } = await run();
    const [fault, , ...rest] = stderr.split('\n');
    expect([code, stdout, fault]).toEqual([64, '', `Incomplete command: "${words}"`]);
    expect(rest.join('\n')).toMatch(list);
  });

  it.each([
    ['keys revoke', 'kid is missing'],
    ['keys revoke --reason why', 'kid is missing'],
    ['keys revoke one two', 'Unknown argument: "two"'],
    ['keys revoke one --because', "Unknown option '--because'"],
    ['keys list --all=1', "Option '--all' does not take an argument"],
    ['era raise twice', 'Unknown argument: "twice"'],
  ])('misused: %s', async (words, fault) => {
    const { code, stdout, stderr } = await runToEnd(await settings({}), ...words.split(' '));
    expect([code, stdout]).toEqual([64, '']);
    expect(stderr).toMatch(
      /^[^\n]*\n\nUsage: npm run gatehouse -- (keys revoke <kid> \[--reason <text>\]|keys list \[--all\]|era raise)\n\n\S.*\.\n$/,
    );
    expect(stderr).toContain(fault);
  });

  it('say what there is', async () => {
    for (const words of [['help'], ['--help'], ['-h'], ['help', '--help']]) {
      const { code, stdout, stderr } = await runToEnd(await settings({}), ...words);
      expect([code, stderr]).toEqual([0, '']);
      expect(stdout).toMatch(LIST);
    }
    for (const words of ['keys revoke --help', 'help keys revoke']) {
      const { code, stdout } = await runToEnd(await settings({}), ...words.split(' '));
      expect([code, stdout]).toEqual([
        0,
        expect.stringMatching(/^Usage: npm run gatehouse -- keys revoke <kid> \[--reason <text>\]\n\nEmergency: /),
      ]);
    }
  });
});
