import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import fs from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, expect, it, jest } from '@jest/globals';
import pg from 'pg';
import { EmbeddedPostgres } from '../../src/database/embedded-postgres.js';
import { dataDir } from '../support/database.js';
import { CLI, runToEnd } from '../support/processes.js';
import { basic, bearer, freePort, ServiceProcess } from '../support/service.js';

jest.setTimeout(180_000);

let environment: Record<string, string>;
let service: ServiceProcess;
let file: string;
let next: string;
let client: { id: string; secret: string };

const start = async () => {
  service = await ServiceProcess.start(environment);
};
const restart = async () => {
  expect(await service.stop()).toBe(0);
  await start();
};

/** Issues and uses until `work` is done; whatever is not 200 is a failure. */
async function underLoad<T>(work: () => Promise<T>): Promise<T> {
  const failures: string[] = [];
  let going = true;
  let count = 0;
  const load = (async () => {
    while (going) {
      const issued = await fetch(`${service.url}/oauth/token`, {
        method: 'POST',
        headers: { authorization: basic(client) },
        body: new URLSearchParams({ grant_type: 'client_credentials' }),
      });
      const { access_token } = (await issued.json()) as { access_token: string };
      const used = await fetch(`${service.url}/companies`, { headers: bearer(access_token) });
      if (issued.status !== 200 || used.status !== 200) failures.push(`${issued.status} ${used.status}`);
      count++;
    }
  })();
  const result = await work().finally(() => {
    going = false;
  });
  await load;
  expect(failures).toEqual([]);
  expect(count).toBeGreaterThan(2);
  return result;
}

const aWhile = () => new Promise((resolve) => setTimeout(resolve, 300));
const rotate = () => runToEnd(environment, 'master-key', 'rotate');
const DONE =
  /very key is wrapped by the master key with the id [0-9a-f]{16}\. It is in \S+master\.key: back it up\. The one before is kept in \S+\/(master\.key\.until-\S+): backups of the database made before need it, in the place of master\.key\.\n$/;

beforeAll(async () => {
  environment = { DATA_DIR: dataDir(), PORT: await freePort() };
  file = path.join(environment.DATA_DIR, 'keys', 'master.key');
  next = `${file}.new`;
  await start();
  while (!service.stderr.includes('And its use')) await once(service.child.stderr!, 'data');
  const [, id, secret] = /-u '([^:]+):([^']+)'/.exec(service.stderr)!;
  client = { id, secret };
});
afterAll(async () => {
  await service?.stop();
});

it('MD-08 embedded: the command makes the next master key itself, beside the running service, which fails no request', async () => {
  const before = readFileSync(file, 'utf8');
  const { code, stdout, stderr } = await underLoad(rotate);
  expect([code, stderr]).toEqual([0, '']);
  expect(stdout).toMatch(/^1 of 4\n2 of 4\n3 of 4\n4 of 4\nEvery key/);
  expect(stdout).toMatch(DONE);
  expect([existsSync(next), readFileSync(file, 'utf8') === before]).toEqual([false, false]);
  expect((await fs.stat(file)).mode & 0o777).toBe(0o600);
  const [, kept] = DONE.exec(stdout)!;
  expect(kept).toMatch(/^master\.key\.until-\d{4}-\d\d-\d\dT\d{6}\.\d{3}Z$/);
  const names = (await fs.readdir(path.dirname(file))).filter((name) => name.startsWith('master'));
  expect(names.sort()).toEqual(['master.key', kept]);
  const copy = path.join(path.dirname(file), kept);
  expect([readFileSync(copy, 'utf8'), (await fs.stat(copy)).mode & 0o777]).toEqual([before, 0o600]);
  // New keys are wrapped by the new one too, by the service that was never restarted.
  expect((await runToEnd(environment, 'keys', 'rotate', 'sealing')).code).toBe(0);
  await underLoad(aWhile);
});

it('MD-08 embedded: killed in the middle, it goes on where it was, whatever was restarted meanwhile', async () => {
  const before = readFileSync(file, 'utf8');
  const embedded = new EmbeddedPostgres({ dataDir: environment.DATA_DIR });
  await embedded.attach();
  const blocker = new pg.Client({ ...embedded.superuser, database: embedded.application.database });
  await blocker.connect();
  await blocker.query('BEGIN');
  await blocker.query(
    'SELECT 1 FROM keyring_key WHERE id = (SELECT id FROM keyring_key WHERE wrapped IS NOT NULL ORDER BY id OFFSET 2 LIMIT 1) FOR UPDATE',
  );
  await underLoad(async () => {
    const command = ServiceProcess.spawn(environment, CLI, ['master-key', 'rotate']);
    while (!command.stdout.includes('2 of 5')) await Promise.race([once(command.child.stdout!, 'data'), command.exit]);
    command.child.kill('SIGKILL');
    await command.exit;
  });
  await blocker.query('ROLLBACK');
  await blocker.end();
  const made = readFileSync(next, 'utf8');
  expect(readFileSync(file, 'utf8')).toBe(before);
  await restart();
  await underLoad(aWhile);

  // Without the one that wraps half of them it does not start, and says which.
  await service.stop();
  await fs.rename(next, `${next}.away`);
  const refused = await runToEnd(environment);
  expect(refused.code).toBe(78);
  expect(refused.stderr).toMatch(
    /Some keys in the database are wrapped by the master key with the id [0-9a-f]{16}, which is missing: restore \S+master\.key and \S+master\.key\.new\. Nothing was changed\.\n$/,
  );
  await fs.rename(`${next}.away`, next);
  await start();

  const { code, stdout } = await underLoad(rotate);
  expect([code, stdout]).toEqual([0, expect.stringMatching(/^3 of 5\n4 of 5\n5 of 5\nEvery key/)]);
  expect([existsSync(next), readFileSync(file, 'utf8')]).toEqual([false, made]);
});

it('MD-08 embedded: killed before the first key was wrapped, or after the last', async () => {
  // After the last: everything is wrapped by the new one, which has not taken the old one's place yet.
  const made = readFileSync(file, 'utf8');
  await fs.rename(file, next);
  await fs.writeFile(file, `${Buffer.alloc(32, 7).toString('base64')}\n`, { mode: 0o600 });
  await restart();
  const last = await underLoad(rotate);
  expect([last.code, last.stdout]).toEqual([0, expect.stringMatching(/^Nothing was left to do: every key/)]);
  expect([existsSync(next), readFileSync(file, 'utf8')]).toEqual([false, made]);

  // Before the first: the new one is there and wraps nothing. The service may make keys meanwhile.
  const prepared = `${Buffer.alloc(32, 8).toString('base64')}\n`;
  await fs.writeFile(next, prepared, { mode: 0o600 });
  await restart();
  expect((await runToEnd(environment, 'keys', 'rotate', 'sealing')).code).toBe(0);
  const first = await underLoad(rotate);
  expect(first.stdout).toMatch(/^1 of 6\n(?:.*\n){4}6 of 6\nEvery key/);
  expect([existsSync(next), readFileSync(file, 'utf8')]).toEqual([false, prepared]);
  await restart();
  await underLoad(aWhile);
});
