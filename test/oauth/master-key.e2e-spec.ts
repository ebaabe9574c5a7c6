import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import pg from 'pg';
import { DataSource } from 'typeorm';
import { Keyring } from '../../src/keyring/keyring.js';
import { MasterKeys } from '../../src/keyring/master-keys.js';
import { Keys } from '../../src/tokens/keys.service.js';
import { MasterKeyRotation } from '../../src/tokens/master-key-rotation.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { eventsOf, GRANT, PATIENT } from '../support/oauth.js';
import { CLI, runToEnd } from '../support/processes.js';
import { bearer, ServiceProcess, serviceEnvironment, type TestAccount, TestService } from '../support/service.js';

jest.setTimeout(180_000);

const key = () => randomBytes(32).toString('base64');
const OLD = key();
const NEW = key();
const idOf = (text: string) => MasterKeys.given(text).currentId;
const ONLY_OLD = { ...PATIENT, MASTER_KEY: OLD };
const BOTH = { ...PATIENT, MASTER_KEY: NEW, MASTER_KEY_PREVIOUS: OLD };
const ONLY_NEW = { ...PATIENT, MASTER_KEY: NEW };
const DONE = `every key is wrapped by the master key with the id ${idOf(NEW)}. MASTER_KEY_PREVIOUS is needed no more, but for backups of the database made before.\n`;

let database: TestDatabase;
/** Those that get traffic. */
let serving: TestService[];
let load: ReturnType<typeof traffic> | undefined;

beforeEach(async () => {
  database = await createDatabase();
  serving = [];
});
afterEach(async () => {
  await load?.stop();
  load = undefined;
  for (const instance of serving) await instance.stop();
  await database.drop();
});

const start = async (settings: Record<string, string>) => {
  const instance = await TestService.start(settings, database);
  serving.push(instance);
  return instance;
};
const gatehouse = (settings: Record<string, string>, ...words: string[]) =>
  runToEnd(serviceEnvironment(database, settings), ...words);
/** How many keys each master key wraps. */
const wrappedBy = async () =>
  Object.fromEntries(
    (
      await database.query<{ id: string; keys: number }>(
        'SELECT master_key_id AS id, count(*)::int AS keys FROM keyring_key WHERE wrapped IS NOT NULL GROUP BY 1',
      )
    ).map(({ id, keys }) => [id === idOf(OLD) ? 'old' : id === idOf(NEW) ? 'new' : id, keys]),
  );

async function accounts(of: TestService): Promise<TestAccount[]> {
  const admin = await of.signIn();
  await admin.createOrganization('Rolling');
  return [
    await admin.createAccount('JWT', ['companies:read'], { token_format: 'jwt' }),
    await admin.createAccount('Opaque', ['companies:read']),
  ];
}

/** Issues on one instance and uses on another, all the while; whatever is not 200 is a failure. */
function traffic(users: TestAccount[]) {
  const failures: string[] = [];
  let going = true;
  let count = 0;
  let turn = 0;
  const busy = Array.from({ length: 4 }, () => new Set<TestService>());
  const worker = async (mine: Set<TestService>) => {
    while (going) {
      turn++;
      const issuer = serving[turn % serving.length];
      const user = serving[(turn + 1) % serving.length];
      mine.add(issuer).add(user);
      const answer = await issuer.token(GRANT, users[turn % users.length].credentials);
      const used = await user.request('GET', '/companies', { headers: bearer(answer.json?.access_token ?? 'none') });
      if (answer.status !== 200 || used.status !== 200) failures.push(`${answer.status} ${used.status} ${used.text}`);
      mine.clear();
      count++;
    }
  };
  const workers = busy.map(worker);
  return {
    failures,
    count: () => count,
    /** Takes an instance out of service as a load balancer does: first no new requests, then its end. */
    async retire(instance: TestService) {
      serving = serving.filter((other) => other !== instance);
      while (busy.some((mine) => mine.has(instance))) await new Promise((resolve) => setTimeout(resolve, 1));
      await instance.stop();
    },
    async stop() {
      going = false;
      await Promise.all(workers);
    },
  };
}

const rotate = (of: TestService) => of.app.get(Keys).rotate('token-seal');

describe('a new MASTER_KEY', () => {
  it('MD-08 takes over while instances are replaced one by one: no request fails, and new keys are always wrapped by what all have', async () => {
    const a = await start(ONLY_OLD);
    const b = await start(ONLY_OLD);
    load = traffic(await accounts(a));

    // 1. Everywhere both, one instance after the other. What is made meanwhile can be opened by those that have the old one alone.
    const a2 = await start(BOTH);
    await load.retire(a);
    await rotate(a2);
    expect(b.app.get(Keyring).active('token-seal').kid).toBe(a2.app.get(Keyring).active('token-seal').kid);
    await rotate(b);
    expect(await wrappedBy()).toEqual({ old: 6 });
    const early = await gatehouse(BOTH, 'master-key', 'rotate');
    expect(early).toEqual({
      code: 1,
      stdout: '',
      stderr:
        '1 of 2 instances do not have the new master key: restart each with MASTER_KEY and MASTER_KEY_PREVIOUS as they are here, then run this again. 0 of 6 keys are wrapped by it.\n',
    });
    expect(await wrappedBy()).toEqual({ old: 6 });
    const b2 = await start(BOTH);
    await load.retire(b);

    // 2. The command.
    const done = await gatehouse(BOTH, 'master-key', 'rotate');
    expect(done).toEqual({
      code: 0,
      stdout: `${[1, 2, 3, 4, 5, 6].map((n) => `${n} of 6\n`).join('')}E${DONE.slice(1)}`,
      stderr: '',
    });
    expect(await wrappedBy()).toEqual({ new: 6 });
    expect((await eventsOf(a2, 'key.rewrapped', 99)).map(({ changes }) => changes)).toEqual(
      Array.from({ length: 6 }, () => ({ master_key_id: { from: idOf(OLD), to: idOf(NEW) } })),
    );
    await rotate(a2);
    expect(await wrappedBy()).toEqual({ new: 7 });
    expect(await gatehouse(BOTH, 'master-key', 'rotate')).toEqual({
      code: 0,
      stdout: `Nothing was left to do: ${DONE}`,
      stderr: '',
    });

    // 3. Everywhere the new one alone.
    for (const instance of [a2, b2]) {
      await start(ONLY_NEW);
      await load.retire(instance);
    }
    await rotate(serving[0]);
    await load.stop();
    expect(load.failures).toEqual([]);
    expect(load.count()).toBeGreaterThan(100);
    await expect(TestService.start(ONLY_OLD, database)).rejects.toThrow(
      /^MASTER_KEY is not the one that this database/,
    );
  });

  it('MD-08 killed in the middle: instances go on, those with both keys start, what is missing is named, and the next run does what is left', async () => {
    const maker = await start(ONLY_OLD);
    const users = await accounts(maker);
    const [one] = [await start(BOTH), await start(BOTH)];
    serving.shift();
    await maker.stop();
    load = traffic(users);

    const blocker = new pg.Client(database.superuser);
    await blocker.connect();
    await blocker.query('SELECT pg_advisory_lock(7315, 11)'); // as a rotation that is under way does
    expect(await gatehouse(BOTH, 'master-key', 'rotate')).toEqual({
      code: 1,
      stdout: '',
      stderr: 'Another rotation of the master key is under way: wait until it ends.\n',
    });
    await blocker.query('SELECT pg_advisory_unlock_all()');
    await blocker.query('BEGIN');
    await blocker.query(
      'SELECT 1 FROM keyring_key WHERE id = (SELECT id FROM keyring_key ORDER BY id OFFSET 2 LIMIT 1) FOR UPDATE',
    );
    const environment = serviceEnvironment(database, BOTH);
    const command = ServiceProcess.spawn(environment, CLI, ['master-key', 'rotate']);
    while (!command.stdout.includes('2 of 4')) await Promise.race([once(command.child.stdout!, 'data'), command.exit]);
    command.child.kill('SIGKILL');
    await command.exit;
    await blocker.query('ROLLBACK');
    await blocker.end();
    expect(await wrappedBy()).toEqual({ old: 2, new: 2 });

    // Half of it: those that run go on, one with both starts, one with either alone does not, and says what it lacks.
    const fresh = await start(BOTH);
    await load.retire(one);
    await rotate(fresh);
    expect(await wrappedBy()).toEqual({ old: 2, new: 3 });
    for (const [settings, missing] of [
      [ONLY_NEW, OLD],
      [ONLY_OLD, NEW],
    ] as const) {
      await expect(TestService.start(settings, database)).rejects.toThrow(
        `Some keys in the database are wrapped by the master key with the id ${idOf(missing)}, which is missing: set MASTER_KEY_PREVIOUS to it until "npm run gatehouse -- master-key rotate" says that every key is wrapped by MASTER_KEY. Nothing was changed.`,
      );
    }
    expect(await gatehouse(BOTH, 'master-key', 'rotate')).toEqual({
      code: 0,
      stdout: `4 of 5\n5 of 5\nE${DONE.slice(1)}`,
      stderr: '',
    });
    expect(await wrappedBy()).toEqual({ new: 5 });
    await load.stop();
    expect(load.failures).toEqual([]);
    expect(load.count()).toBeGreaterThan(20);
  });

  it('MD-08 a key that is being made while the rotation begins is not left behind', async () => {
    const maker = await start(ONLY_OLD);
    const instance = await start(BOTH);
    serving.shift();
    await maker.stop();
    const keyring = instance.app.get(Keyring);
    const made = await keyring.generate('token-sign', 'ES256');
    let rotation: ReturnType<MasterKeyRotation['run']> | undefined;
    const progress: string[] = [];
    await instance.app.get(DataSource).transaction(async (tx) => {
      await keyring.addPending(tx, made, 60); // wrapped by the old one, and not committed yet
      rotation = instance.app.get(MasterKeyRotation).run((done, total) => progress.push(`${done} of ${total}`));
      await new Promise((resolve) => setTimeout(resolve, 500));
      expect(progress).toEqual([]);
    });
    expect(await rotation).toEqual({ wrapped: 5, kept: undefined });
    expect(progress).toEqual(['1 of 5', '2 of 5', '3 of 5', '4 of 5', '5 of 5']);
    expect(await wrappedBy()).toEqual({ new: 5 });
  });

  it('MD-08 keys without material are none of its business', async () => {
    const instance = await start(ONLY_OLD);
    const kid = instance.app.get(Keyring).active('token-seal').kid;
    await instance.app.get(Keys).revoke(kid);
    await instance.stop();
    serving = [];
    const { stdout } = await gatehouse(BOTH, 'master-key', 'rotate');
    expect(stdout).toMatch(/^1 of 4\n2 of 4\n3 of 4\n4 of 4\nEvery key/);
    await start(ONLY_NEW);
  });
});
