import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { getMetadataStorage } from 'class-validator';
import { Config, loadConfig } from '../../src/config/config.js';
import { createDatabase, type TestDatabase, urlOf } from '../support/database.js';
import { runToEnd } from '../support/processes.js';
import { freePort, ROOT, ServiceProcess, serviceEnvironment } from '../support/service.js';

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database?.drop());

/** One line, one sentence that says what to do, and an exit code that is not 0. */
async function refusal(settings: Record<string, string>) {
  const { code, stderr, stdout } = await runToEnd({
    ...serviceEnvironment(database),
    PORT: await freePort(),
    ...settings,
  });
  expect(stdout).toBe('');
  const lines = stderr.trim().split('\n');
  expect(lines).toHaveLength(1);
  return { code, said: lines[0] };
}

const tables = () =>
  database.query<{ n: number }>(`SELECT count(*)::int AS n FROM pg_class WHERE relnamespace = 'public'::regnamespace`);

describe('settings', () => {
  it('lists every fault at once and exits 78', async () => {
    const { code, stderr } = await runToEnd({
      DATA_DIR: '/tmp',
      PORT: 'x',
      ISSUER_URL: 'http://auth.gatehouse.test',
      DATABASE_URL: 'mysql://db',
      JWT_ALG: 'none',
      REVOCATION_BOUND_MS: '1',
      BOOTSTRAP_ADMIN_PASSWORD: 'short',
      RATE_LIMIT: '6000',
      REDIS_URL: 'http://redis',
      SABOTAGE: 'serve_stale',
    });
    expect(code).toBe(78);
    expect(stderr).toBe(
      [
        'The configuration has 10 faults:',
        '  - PORT must be a whole number',
        '  - ISSUER_URL must be an https URL without query, fragment or a slash at its end (http for loopback only)',
        '  - DATABASE_URL must be a postgres:// URL',
        '  - JWT_ALG must be ES256, RS256 or PS256',
        '  - BOOTSTRAP_ADMIN_PASSWORD must be 8 to 128 characters',
        '  - REVOCATION_BOUND_MS must be 200 to 10000',
        '  - RATE_LIMIT must be requests/seconds: 1 to 1000000 in 1 to 3600, as in 6000/60',
        '  - REDIS_URL must be a redis:// or rediss:// URL',
        '  - MASTER_KEY is required with DATABASE_URL (openssl rand -base64 32)',
        '  - SABOTAGE is for tests: it needs NODE_ENV=test',
        '',
      ].join('\n'),
    );
  });

  it.each(['abc', '80000', 'a b', '-1'])('PORT=%s is one fault: defaults made from it are not blamed', (PORT) => {
    const faults = /^The configuration has a fault:\n {2}- PORT must [^\n]+$/;
    expect(() => loadConfig({ PORT })).toThrow(faults);
    expect(() => loadConfig({ PORT, ISSUER_URL: 'http://auth.gatehouse.test' })).toThrow(/2 faults.*PORT.*ISSUER_URL/s);
  });

  it('stand in .env.example, all of them, with their true defaults', () => {
    const known = getMetadataStorage()
      .getTargetValidationMetadatas(Config, '', false, false)
      .map(({ propertyName }) => propertyName)
      .filter((name) => name !== 'SABOTAGE');
    const lines = [...readFileSync(path.join(ROOT, '.env.example'), 'utf8').matchAll(/^(#?)([A-Z_]+)=(.*)$/gm)];
    expect(lines.map(([, , name]) => name).sort()).toEqual([...new Set(known)].sort());
    const defaults = loadConfig({}) as unknown as Record<string, unknown>;
    const derived = ['ISSUER_URL', 'AUDIENCE'];
    for (const [, off, name, value] of lines) {
      const byDefault = defaults[name];
      const unset =
        byDefault === undefined || (Array.isArray(byDefault) && byDefault.length === 0) || derived.includes(name);
      expect([name, off === '#']).toEqual([name, unset]);
      if (!off) expect([name, value]).toEqual([name, String(byDefault)]);
    }
    expect(defaults).toMatchObject({ ISSUER_URL: 'http://localhost:3000', AUDIENCE: 'http://localhost:3000' });
  });

  it('are read from the environment in one place', () => {
    const files = readdirSync(path.join(ROOT, 'src'), { recursive: true, encoding: 'utf8' }).filter((f) =>
      f.endsWith('.ts'),
    );
    const readers = files.filter((f) =>
      /process\s*\.\s*env|['"]process\.env/.test(readFileSync(path.join(ROOT, 'src', f), 'utf8')),
    );
    // The other one hands the environment on to PostgreSQL's own programs.
    expect(readers.filter((f) => f !== 'database/postgres-process.ts')).toEqual(['config/config.ts']);
  });

  it('an old Node gets a sentence, not a stack', () => {
    const on = (version: string) =>
      spawnSync(
        process.execPath,
        [
          '-e',
          `Object.defineProperty(process, 'version', { value: 'v${version}' });
           Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '${version}' } });
           require('${path.join(ROOT, 'scripts/require-node.cjs')}');`,
        ],
        { encoding: 'utf8' },
      );
    for (const version of ['18.20.0', '20.18.9', '22.12.0', '24.10.0', '21.7.0', '23.11.0']) {
      const { status, stderr } = on(version);
      expect([version, status]).toEqual([version, 1]);
      expect(stderr).toMatch(
        new RegExp(`^Gatehouse needs Node.js [^\\n]+, and this is v${version}\\. Install Node.js 24 [^\\n]+\\n$`),
      );
    }
    for (const version of ['20.19.0', '22.13.0', '24.11.0', '25.0.0'])
      expect([version, on(version).status, on(version).stderr]).toEqual([version, 0, '']);
  });

  it('an issuer that could not be an audience as well is refused, though AUDIENCE is not set', () => {
    for (const ISSUER_URL of [
      'https://id.example.com/a b',
      ' https://id.example.com',
      'https://id.example.com/a"b',
      'https://idé.example.com',
    ])
      expect(() => loadConfig({ ISSUER_URL })).toThrow(/ISSUER_URL must be an https URL/);
  });
});

describe('a start that cannot be', () => {
  it('port in use', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const PORT = String((other.address() as { port: number }).port);
    const { code, said } = await refusal({ PORT });
    other.close();
    expect(code).toBe(1);
    expect(said).toBe(
      `Port ${PORT} on 127.0.0.1 is in use: stop what listens there, or set PORT to another. Nothing was changed.`,
    );
  });

  it('port in use: npm run up says so before it installs and builds beneath what runs', async () => {
    const { up } = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')).scripts;
    const file = 'scripts/require-port.cjs';
    expect(up.indexOf(file)).toBeGreaterThan(0);
    expect(up.indexOf(file)).toBeLessThan(up.indexOf('npm ci'));
    const run = (PORT: string) => {
      const env = { PATH: process.env.PATH, PORT };
      const child = spawn(process.execPath, [path.join(ROOT, file)], { env, stdio: ['ignore', 'ignore', 'pipe'] });
      return Promise.all([once(child, 'exit'), text(child.stderr)]).then(([[code], said]) => [code, said.trim()]);
    };
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const PORT = String((other.address() as { port: number }).port);
    expect(await run(PORT)).toEqual([
      1,
      `Port ${PORT} on 127.0.0.1 is in use: stop what listens there, or set PORT to another. Nothing was changed.`,
    ]);
    other.close();
    await once(other, 'close');
    for (const free of [PORT, '0', 'abc', '70000']) expect(await run(free)).toEqual([0, '']);
  });

  it('an address that is not of this machine', async () => {
    const { code, said } = await refusal({ HOST: '192.0.2.1' });
    expect(code).toBe(1);
    expect(said).toMatch(
      /^Cannot listen on 192\.0\.2\.1:\d+ \(EADDRNOTAVAIL\): set HOST and PORT to an address of this machine\.$/,
    );
  });

  it.each([
    ['a file', () => path.join(ROOT, 'package.json'), 'a file is in its place'],
    ['beneath a file', () => path.join(ROOT, 'package.json', 'data'), 'a file is in its place'],
    // Here Node's own recursive mkdir never ends.
    ['where none can be made', () => '/proc/nope', 'ENOENT'],
  ])(
    'DATA_DIR is %s, with a database of one’s own and without',
    async (_, folder, reason) => {
      const own = serviceEnvironment(database);
      const { DATABASE_URL, MIGRATION_DATABASE_URL, MASTER_KEY, ...embedded } = own;
      for (const environment of [own, embedded]) {
        const settings = { ...environment, PORT: await freePort(), DATA_DIR: folder() };
        const ran = ServiceProcess.spawn(settings, undefined, [], ROOT);
        const hung = setTimeout(() => ran.child.kill('SIGKILL'), 15_000);
        await once(ran.child, 'close');
        clearTimeout(hung);
        expect([ran.child.exitCode, ran.stdout]).toEqual([78, '']);
        expect(ran.stderr).toMatch(/^DATA_DIR cannot be used, because the folder [^\n]*\n$/);
        expect(ran.stderr).toContain(`${folder()}`);
        expect(ran.stderr).toContain(`(${reason})`);
      }
    },
    40_000,
  );

  it.each([
    ['unreachable', () => 'postgres://x:y@127.0.0.1:1/gatehouse', 'ECONNREFUSED'],
    [
      'wrong password',
      () => urlOf({ ...database.application, password: 'wrong' }),
      'it refuses the user name or password',
    ],
    ['no such database', () => urlOf({ ...database.application, database: 'nowhere' }), 'the database does not exist'],
  ])('PostgreSQL: %s', async (_, url, reason) => {
    const { code, said } = await refusal({ DATABASE_URL: url() });
    expect(code).toBe(1);
    expect(said).toBe(
      `PostgreSQL cannot be reached (${reason}): check DATABASE_URL and MIGRATION_DATABASE_URL and that the server runs.`,
    );
  });

  it.each([
    [
      'under 15',
      { number: '140009', version: '14.9', standby: 'f' },
      'Gatehouse needs PostgreSQL 15 or newer, and DATABASE_URL leads to 14.9: upgrade the server, or unset DATABASE_URL for the embedded one.',
    ],
    [
      'RV-10 a standby',
      { number: '150004', version: '15.4', standby: 't' },
      'DATABASE_URL leads to a standby: revocations are read from the primary only. Point it at the primary.',
    ],
  ])('PostgreSQL: %s', async (_, answer, sentence) => {
    const server = await pretendPostgres({ ...answer, fsync: 't', name: 'gatehouse', superuser: 'f' });
    const { port } = server.address() as { port: number };
    const { code, said } = await refusal({ DATABASE_URL: `postgres://gatehouse:x@127.0.0.1:${port}/gatehouse` });
    server.close();
    expect(code).toBe(1);
    expect(said).toBe(sentence);
  });

  it('a schema newer than the code', async () => {
    await database.query(`INSERT INTO schema_migration (timestamp, name) VALUES (9999999999999, 'Later9999999999999')`);
    const before = await tables();
    const { code, said } = await refusal({});
    expect(code).toBe(1);
    expect(said).toBe(
      "The database's schema is newer than this version of Gatehouse (it has Later9999999999999): run the newer version, or restore the backup made before the upgrade.",
    );
    expect(await tables()).toEqual(before);
    await database.query(`DELETE FROM schema_migration WHERE name = 'Later9999999999999'`);
  });

  it('MD-08 a MASTER_KEY that is wrong, or missing, with DATABASE_URL', async () => {
    const good: Record<string, string> = { ...serviceEnvironment(database), PORT: await freePort() };
    expect((await runToEnd(good, 'keys', 'rotate', 'sealing')).code).toBe(0); // the database has keys now
    const keys = () => database.query('SELECT * FROM keyring_key ORDER BY id');
    const before = await keys();
    const { code, said } = await refusal({ MASTER_KEY: Buffer.alloc(32).toString('base64') });
    expect(code).toBe(78);
    expect(said).toBe(
      'MASTER_KEY is not the one that this database was set up with: start with the right one. Nothing was changed.',
    );
    const { MASTER_KEY: _, ...missing } = good;
    expect(await runToEnd(missing)).toEqual({
      code: 78,
      stdout: '',
      stderr:
        'The configuration has a fault:\n  - MASTER_KEY is required with DATABASE_URL (openssl rand -base64 32)\n',
    });
    expect(await keys()).toEqual(before);
  });
});

/** Says yes to whoever connects, has no tables, and answers the question of what it is: enough of the protocol for a start to be refused. */
function pretendPostgres(facts: Record<string, string>): Promise<Server> {
  const message = (type: string, body: Buffer) => {
    const size = Buffer.alloc(4);
    size.writeInt32BE(body.length + 4);
    return Buffer.concat([Buffer.from(type), size, body]);
  };
  const short = (n: number) => Buffer.from([n >> 8, n & 255]);
  const ready = message('Z', Buffer.from('I'));
  const order = ['version', 'number', 'standby', 'fsync', 'name', 'superuser'];
  const types: Record<string, number> = { number: 23, standby: 16, fsync: 16, superuser: 16 };
  const columns = order.map((name) =>
    Buffer.concat([
      Buffer.from(`${name}\0`),
      Buffer.alloc(6),
      Buffer.from([0, 0, 0, types[name] ?? 25]),
      Buffer.alloc(8),
    ]),
  );
  const values = order.map((name) =>
    Buffer.concat([Buffer.from([0, 0, 0, facts[name].length]), Buffer.from(facts[name])]),
  );
  const row = Buffer.concat([
    message('T', Buffer.concat([short(order.length), ...columns])),
    message('D', Buffer.concat([short(order.length), ...values])),
    message('C', Buffer.from('SELECT 1\0')),
    ready,
  ]);
  const noTable = Buffer.concat([message('E', Buffer.from('SERROR\0C42P01\0Mno such table\0\0')), ready]);
  const talk = (socket: Socket) => {
    let greeted = false;
    socket.on('error', () => undefined);
    socket.on('data', (data) => {
      if (!greeted) socket.write(Buffer.concat([message('R', Buffer.alloc(4)), ready]));
      else if (data[0] === 0x51) socket.write(data.includes('server_version') ? row : noTable);
      greeted = true;
    });
  };
  return new Promise((resolve) => {
    const server = createServer(talk).listen(0, '127.0.0.1', () => resolve(server));
  });
}
