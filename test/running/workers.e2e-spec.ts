import { once } from 'node:events';
import fs from 'node:fs/promises';
import { connect } from 'node:net';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import pg from 'pg';
import { EmbeddedPostgres } from '../../src/database/embedded-postgres.js';
import { type HttpAnswer, HttpClient } from '../faults/http-client.js';
import { childrenOf, sleep, until } from '../faults/processes.js';
import { createDatabase, dataDir } from '../support/database.js';
import { processesIn, runToEnd } from '../support/processes.js';
import { ADMIN, basic, bearer, freePort, ServiceProcess, serviceEnvironment } from '../support/service.js';

jest.setTimeout(60_000);

// One life of one DATA_DIR with two workers; each test goes on where the one before ended.
const BOUND_MS = 500;
const FORM = { 'content-type': 'application/x-www-form-urlencoded' };
const GRANT = 'grant_type=client_credentials';

let environment: Record<string, string>;
let folder: string;
let service: ServiceProcess;
let admin: HttpClient;
let cookie = '';
let account: { id: string; client_id: string };
const open: HttpClient[] = [];
let stopLoad: (() => Promise<void>) | undefined;

const start = async () => {
  service = await ServiceProcess.start(environment);
  await until(
    () => service.stderr.includes('Documentation:'),
    () => service.stderr,
  );
};
const workers = () => childrenOf(service.child.pid!);
/** A connection of its own, to whichever worker takes it. */
const client = () => {
  const made = new HttpClient('client', Number(environment.PORT));
  open.push(made);
  return made;
};
/** Connections to every worker, as the log tells of them. */
const clientsOfAll = async (): Promise<HttpClient[]> => {
  const clients: HttpClient[] = [];
  const ids: string[] = [];
  const reached = () => new Set(logged().flatMap(({ request_id, pid }) => (ids.includes(request_id) ? [pid] : [])));
  while (reached().size < workers().length) {
    if (clients.length > 100) throw new Error(`only ${[...reached()]} of ${workers()} answer`);
    const more = Array.from({ length: 6 }, client);
    const answers = await Promise.all(more.map((each) => each.request('GET', '/health/ready')));
    expect(answers.map((answer) => answer?.status)).toEqual(more.map(() => 200));
    ids.push(...answers.map((answer) => answer!.headers['x-request-id'] as string));
    clients.push(...more);
    await sleep(50); // the log comes by another way
  }
  return clients;
};
const call = async (method: string, route: string, body?: object): Promise<HttpAnswer['json']> => {
  let answer = await admin.request(method, `/api/v1${route}`, { cookie }, body);
  answer ??= await admin.request(method, `/api/v1${route}`, { cookie }, body); // its worker was killed
  if (!answer || answer.status >= 300) throw new Error(`${method} ${route}: ${answer?.status}`);
  cookie = answer.headers['set-cookie']?.[0].split(';', 1)[0] ?? cookie;
  return answer.json;
};
const newSecret = async (): Promise<{ id: string; headers: Record<string, string> }> => {
  const { id, secret } = await call('POST', `/service-accounts/${account.id}/secrets`, {});
  return { id, headers: { ...FORM, authorization: basic({ id: account.client_id, secret }) } };
};
const tokenOver = async (over: HttpClient, headers: Record<string, string>): Promise<string> =>
  (await over.request('POST', '/oauth/token', headers, GRANT))!.json.access_token;
/** What every token is answered over every connection, as a set of statuses. */
const tryAll = async (tokens: string[], over: HttpClient[]) => {
  const uses = over.map(async (each) => {
    const statuses: (number | undefined)[] = [];
    for (const token of tokens) statuses.push((await each.request('GET', '/companies', bearer(token)))?.status);
    return statuses;
  });
  return [...new Set((await Promise.all(uses)).flat())];
};
const logged = () =>
  service.stdout
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line));
const query = async (sql: string, values: unknown[] = []) => {
  const server = new EmbeddedPostgres({ dataDir: folder });
  await server.attach();
  const database = new pg.Client(server.application);
  await database.connect();
  const { rows } = await database.query(sql, values);
  await database.end();
  return rows;
};
/** How many are in the registry, and of them how many were seen of late. */
const instances = async () =>
  (
    await query(
      `SELECT count(*)::int AS known, count(*) FILTER (WHERE seen_at > clock_timestamp() - interval '3 s')::int AS live FROM instance`,
    )
  )[0];

beforeAll(async () => {
  folder = dataDir();
  environment = {
    DATA_DIR: folder,
    PORT: await freePort(),
    WORKERS: '2',
    LOG_LEVEL: 'debug',
    BOOTSTRAP_ADMIN_EMAIL: ADMIN.email,
    BOOTSTRAP_ADMIN_PASSWORD: ADMIN.password,
  };
  admin = client();
});
afterAll(async () => {
  await stopLoad?.();
  for (const each of open) each.close();
  await service?.stop();
});

describe('WORKERS=2', () => {
  it('two processes serve one port, each an instance; what a newcomer needs is printed once, and last', async () => {
    await start();
    expect(service.stderr).toMatch(/ {2}✓ Listening on port \d+ of 127\.0\.0\.1 with 2 workers\n\nGatehouse is ready/);
    for (const words of ['Gatehouse is ready', 'Admin:', "-u 'sa_", 'schema made'])
      expect([words, service.stderr.split(words).length - 1]).toEqual([words, 1]);
    expect(workers()).toHaveLength(2);
    expect(await instances()).toEqual({ known: 2, live: 2 });
    await clientsOfAll();
    expect(logged().filter(({ pid }) => ![service.child.pid, ...workers()].includes(pid))).toEqual([]);
  });

  it('P1 a revocation over one connection holds on both before it returns, for its secret alone', async () => {
    await call('POST', '/session', ADMIN);
    const acme = (await call('GET', '/session')).organizations.find(({ name }: { name: string }) => name === 'Acme');
    await call('PATCH', '/session', { organization_id: acme.id });
    [account] = (await call('GET', '/service-accounts')).data;
    const over = await clientsOfAll();
    const [stolen, sibling] = [await newSecret(), await newSecret()];
    const tokens = await Promise.all(over.map((each) => tokenOver(each, stolen.headers)));
    const others = await Promise.all(over.map((each) => tokenOver(each, sibling.headers)));
    expect(await tryAll([...tokens, ...others], over)).toEqual([200]);
    const receipt = await call('POST', `/service-accounts/${account.id}/secrets/${stolen.id}/revoke`, {});
    const answers = [await tryAll(tokens, over), await tryAll(others, over)];
    expect(receipt.instances).toEqual({ live: 2, confirmed: 2 });
    expect(answers).toEqual([[401], [200]]);
  });

  it('P2 kill -9 of a worker: replaced, after a longer pause the second time; nothing acknowledged is lost, and a revocation waits no longer than the bound', async () => {
    const secret = await newSecret();
    const others = [(await newSecret()).id, (await newSecret()).id];
    const acknowledged: string[] = [];
    let running = true;
    const load = Array.from({ length: 6 }, client).map(async (each) => {
      while (running) {
        const answer = await each.request('POST', '/oauth/token', secret.headers, GRANT);
        if (answer?.status === 200) acknowledged.push(answer.headers['x-request-id'] as string);
        else await sleep(10);
      }
    });
    /** Kills a worker under load; resolves with that one and the one that took its place. */
    const kill = async (victim: number) => {
      const goal = acknowledged.length + 100;
      await until(
        () => acknowledged.length > goal,
        () => `${acknowledged.length} of ${goal}`,
      );
      const before = workers();
      process.kill(victim, 'SIGKILL');
      const revoked = await call('POST', `/service-accounts/${account.id}/secrets/${others.pop()}/revoke`, {});
      const successor = () => workers().find((pid) => !before.includes(pid));
      await until(
        () => successor() !== undefined,
        () => `workers: ${workers()}, before: ${before}`,
      );
      return { revoked, successor: successor()! };
    };
    stopLoad = async () => {
      running = false;
      await Promise.all(load);
    };
    const [victim] = workers();
    const first = await kill(victim);
    const second = await kill(first.successor);
    await stopLoad();

    for (const { revoked } of [first, second]) expect(revoked.waited_ms).toBeLessThan(BOUND_MS * 1.1 + 100);
    // Who is dead and in the registry confirms nothing: it was waited for, and no longer.
    expect(first.revoked.instances.confirmed).toBe(first.revoked.instances.live - 1);
    const ends = logged().filter(({ ended }) => ended !== undefined);
    expect(ends).toMatchObject([
      { level: 40, pid: service.child.pid, worker: victim, ended: 'SIGKILL', replaced_in_ms: 100 },
      { level: 40, pid: service.child.pid, worker: first.successor, ended: 'SIGKILL', replaced_in_ms: 200 },
    ]);
    const events = await query(
      `SELECT request_id FROM audit_event WHERE action = 'token.issued' AND request_id = ANY($1)`,
      [acknowledged],
    );
    const recorded = new Set(events.map(({ request_id }) => request_id));
    expect(acknowledged.filter((id) => !recorded.has(id))).toEqual([]);
  });

  it('kill -9 of the primary: what is in flight is answered, the workers go, and the next start finds all in order', async () => {
    const { headers } = await newSecret();
    const token = await tokenOver(client(), headers);
    const orphans = workers();
    const flight = connect(Number(environment.PORT), '127.0.0.1');
    const body = { 'Content-Length': GRANT.length, Expect: '100-continue' };
    const head = { Host: 'x', Connection: 'close', ...headers, ...body };
    const lines = Object.entries(head).map(([name, value]) => `${name}: ${value}\r\n`);
    flight.write(`POST /oauth/token HTTP/1.1\r\n${lines.join('')}\r\n`);
    expect(String(await once(flight, 'data'))).toBe('HTTP/1.1 100 Continue\r\n\r\n'); // a worker has it
    await service.stop('SIGKILL');
    let answer = '';
    flight.on('data', (chunk) => {
      answer += chunk;
    });
    flight.write(GRANT);
    await once(flight, 'close');
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
    await until(
      async () => !(await processesIn(folder)).some((pid) => orphans.includes(pid)),
      () => 'a worker lives on',
    );
    await start();
    expect(service.stderr).toContain('left running by an earlier process');
    expect(service.stderr).not.toContain('Admin:');
    expect(await tryAll([token], await clientsOfAll())).toEqual([200]);
    // Who was killed is taken off the registry; who drained took itself off.
    await until(
      async () => (await instances()).known === 2,
      () => 'the registry still has who was killed',
      20_000,
    );
  });

  it('SIGTERM drains both and leaves no process', async () => {
    const draining = workers();
    expect(await service.stop('SIGTERM')).toBe(0);
    expect(await processesIn(folder)).toEqual([]);
    const said = logged().filter(({ msg }) => msg === 'draining');
    expect(new Set(said.map(({ pid }) => pid))).toEqual(new Set([service.child.pid, ...draining]));
  });

  it('what keeps a worker from starting ends the service, and is said once', async () => {
    const database = await createDatabase();
    const settings = serviceEnvironment(database, { PORT: environment.PORT, WORKERS: '2' });
    await fs.mkdir(path.join(settings.DATA_DIR, 'keys'));
    // What another database has left there.
    await fs.writeFile(path.join(settings.DATA_DIR, 'keys', 'floor-1-7.json'), '{"system":"1","era":1,"head":7}');
    const { code, stderr } = await runToEnd(settings);
    expect(code).toBe(1);
    expect(stderr.split('The database is not the one that was last used here').length - 1).toBe(1);
    expect(stderr).not.toContain('ready');
    await database.drop();
  });

  it('a fault of the configuration is said once', async () => {
    expect(await runToEnd({ ...environment, WORKERS: '65' })).toEqual({
      code: 78,
      stdout: '',
      stderr: 'The configuration has a fault:\n  - WORKERS must be 1 to 64\n',
    });
  });
});
