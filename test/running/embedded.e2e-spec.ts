import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import fs from 'node:fs/promises';
import { connect } from 'node:net';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { dataDir } from '../support/database.js';
import { processesIn, runToEnd } from '../support/processes.js';
import { basic, bearer, freePort, ServiceProcess } from '../support/service.js';

jest.setTimeout(60_000);

// One life of one DATA_DIR, from the first start to a restored backup; each test goes on where the one before ended.
let environment: Record<string, string>;
let service: ServiceProcess;
let folder: string;
let url: string;
const client = { id: '', secret: '' };
const sibling = { id: '', secret: '' };
let cookie: string;
let account: string;
const tokens: Record<string, string> = {};

const start = async () => {
  service = await ServiceProcess.start(environment);
  while (!service.stderr.includes('Documentation:')) await once(service.child.stderr!, 'data');
};
const token = async (credentials = client): Promise<string> => {
  const answer = await fetch(`${url}/oauth/token`, {
    method: 'POST',
    headers: { authorization: basic(credentials) },
    body: new URLSearchParams({ grant_type: 'client_credentials' }),
  });
  expect(answer.status).toBe(200);
  return ((await answer.json()) as { access_token: string }).access_token;
};
const use = async (text: string) => (await fetch(`${url}/companies`, { headers: bearer(text) })).status;
const call = async (method: string, route: string, body?: unknown) => {
  const answer = await fetch(`${url}/api/v1${route}`, {
    method,
    headers: { ...(cookie && { cookie }), ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  cookie = answer.headers.get('set-cookie')?.split(';', 1)[0] ?? cookie;
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${route}: ${answer.status} ${text}`);
  return text ? JSON.parse(text) : undefined;
};

beforeAll(async () => {
  folder = dataDir();
  const PORT = await freePort();
  url = `http://localhost:${PORT}`;
  environment = { DATA_DIR: folder, PORT, LOG_LEVEL: 'debug' };
});
afterAll(async () => {
  await service?.stop();
});

describe('on the embedded database', () => {
  it('LG-20 the first start prints last what a newcomer needs, and its two commands work as they stand', async () => {
    await start();
    const said = service.stderr;
    const tail = said.slice(said.indexOf('Gatehouse is ready'));
    const shape =
      /^Gatehouse is ready at (\S+)\nDocumentation: \1\/docs\n\nAdmin: admin@localhost\nPassword: (\w{16,}) {3}\(shown once; .*\)\n\nFor the README's examples, .*:\n\n {2}(ADMIN_EMAIL=.*\n {2}ADMIN_PASSWORD=.*\n {2}CLIENT_ID=.*\n {2}CLIENT_SECRET=.*)\n\nA token for the service account Concierge .*:\n\n {2}(TOKEN=.*)\n\nAnd its use:\n\n {2}(curl .*)\n\n$/;
    expect(tail).toMatch(shape);
    const [, at, password, lines, first, second] = shape.exec(tail)!;
    expect(at).toBe(url);
    for (const step of said.slice(0, said.indexOf('Gatehouse is ready')).trimEnd().split('\n'))
      expect(step).toMatch(/^ {2}✓ \S/);
    const answer = execFileSync('bash', ['-c', `${first}\n${second}\necho "\n$TOKEN"`], { encoding: 'utf8' });
    const [list, shown] = answer.trim().split('\n');
    expect(JSON.parse(list)).toEqual({ data: [], next_cursor: null });
    expect(shown).toMatch(/^client_oa2_live_[\w-]+$/);
    tokens.printed = shown;

    [, client.id, client.secret] = /-u '([^:]+):([^']+)'/.exec(first)!;
    const assigned = `${lines}\necho "$ADMIN_EMAIL $ADMIN_PASSWORD $CLIENT_ID $CLIENT_SECRET"`;
    expect(execFileSync('sh', ['-c', assigned], { encoding: 'utf8' }).trim().split(' ')).toEqual([
      'admin@localhost',
      password,
      client.id,
      client.secret,
    ]);
    await call('POST', '/session', { email: 'admin@localhost', password });
    await call('PATCH', '/users/me', { password: 'correct horse battery staple' });
    const { organizations } = await call('GET', '/session');
    const acme = organizations.find(({ name }: { name: string }) => name === 'Acme');
    await call('PATCH', '/session', { organization_id: acme.id });
    [{ id: account }] = (await call('GET', '/service-accounts')).data;
    sibling.id = client.id;
    sibling.secret = (await call('POST', `/service-accounts/${account}/secrets`, { label: 'sibling' })).secret;
    tokens.sibling = await token(sibling);
  });

  it('a data directory in use', async () => {
    const { code, stderr } = await runToEnd({ ...environment, PORT: await freePort() });
    expect(code).toBe(1);
    expect(stderr).toBe(
      `The data directory ${await fs.realpath(folder)} is in use by process ${service.child.pid}: stop that one first, or give this one a DATA_DIR of its own.\n`,
    );
    expect(await use(tokens.printed)).toBe(200);
  });

  it('P2 kill -9 of service and database: what was acknowledged is there, tokens from before work', async () => {
    await call('POST', '/service-accounts', { name: 'Acknowledged', scopes: [] });
    const postmaster = await processesIn(folder);
    expect(postmaster.length).toBeGreaterThan(1);
    service.child.kill('SIGKILL');
    for (const pid of postmaster) process.kill(pid, 'SIGKILL');
    await service.exit;
    await start();
    expect(service.stderr).not.toContain('Password');
    expect(service.stderr.trimEnd()).toMatch(/Gatehouse is ready at \S+\nDocumentation: \S+\/docs$/);
    const names = (await call('GET', '/service-accounts')).data.map(({ name }: { name: string }) => name);
    expect(names).toEqual(['Acknowledged', 'Concierge']);
    expect([await use(tokens.printed), await use(tokens.sibling)]).toEqual([200, 200]);
    const issued = (await call('GET', '/audit-events?action=token.issued')).data;
    expect(issued).toHaveLength(2);
  });

  it('AU-14 logs are JSON lines with the request id, without query, header or secret', async () => {
    const canary = 'canary0123456789';
    const answers = await Promise.all([
      fetch(`${url}/companies?access_token=${canary}`, { headers: { 'x-canary': canary, ...bearer(canary) } }),
      fetch(`${url}/oauth/token?client_secret=${canary}`, {
        method: 'POST',
        body: new URLSearchParams({ code: canary }),
      }),
      fetch(`${url}/api/v1/session`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', cookie: `session=${canary}` },
        body: JSON.stringify({ email: 'admin@localhost', password: canary }),
      }),
    ]);
    const ids = answers.map((answer) => answer.headers.get('x-request-id'));
    const logged = () =>
      service.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
    while (!ids.every((id) => logged().some((line) => line.request_id === id)))
      await new Promise((resolve) => setTimeout(resolve, 20));
    const requests = logged().filter(({ msg }) => msg === 'request');
    for (const line of requests)
      expect(Object.keys(line).sort()).toEqual([
        'address',
        'level',
        'method',
        'ms',
        'msg',
        'path',
        'request_id',
        'status',
        'time',
      ]);
    expect(requests.find(({ request_id }) => request_id === ids[0])).toMatchObject({
      path: '/companies',
      method: 'GET',
    });
    expect(requests.find(({ request_id }) => request_id === ids[1])).toMatchObject({
      path: '/oauth/token',
      status: 400,
    });
    for (const secret of [canary, client.secret, sibling.secret, tokens.printed, tokens.sibling, cookie.split('=')[1]])
      expect([service.stdout.includes(secret), service.stderr.includes(secret)]).toEqual([false, false]);
  });

  it('SIGTERM drains: what is in flight is answered, an idle connection does not hold it up, no process is left', async () => {
    const { port } = new URL(url);
    const idle = connect(Number(port), '127.0.0.1');
    idle.write('GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(idle, 'data');
    const flight = connect(Number(port), '127.0.0.1');
    const body = 'grant_type=client_credentials';
    flight.write(
      `POST /oauth/token HTTP/1.1\r\nHost: x\r\nAuthorization: ${basic(client)}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: ${body.length}\r\n\r\n${body.slice(0, 5)}`,
    );
    await use(tokens.printed); // the one before it has arrived by now
    service.child.kill('SIGTERM');
    await once(idle, 'close'); // while the other is still in flight
    let answer = '';
    flight.on('data', (chunk) => {
      answer += chunk;
    });
    flight.write(body.slice(5));
    await once(flight, 'close');
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
    expect(answer).toContain('"access_token":"client_oa2_live_');
    expect(await service.exit).toBe(0);
    expect(await processesIn(folder)).toEqual([]);
  });

  it('MD-08 a master key that is gone or altered: nothing is changed, and the right one works again', async () => {
    const file = path.join(folder, 'keys', 'master.key');
    const key = await fs.readFile(file, 'utf8');
    const real = path.join(await fs.realpath(folder), 'keys', 'master.key');
    await fs.rm(file);
    expect(await runToEnd(environment)).toMatchObject({
      code: 78,
      stderr: expect.stringContaining(
        `MASTER_KEY is missing: ${real} is gone, and without it the keys in the database cannot be opened. Restore the file, or set MASTER_KEY. Nothing was changed.\n`,
      ),
    });
    expect(existsSync(file)).toBe(false);
    await fs.writeFile(file, `${Buffer.alloc(32, 7).toString('base64')}\n`, { mode: 0o600 });
    expect(await runToEnd(environment)).toMatchObject({
      code: 78,
      stderr: expect.stringMatching(
        /MASTER_KEY is not the one that this database was set up with: start with the right one\. Nothing was changed\.\n$/,
      ),
    });
    await fs.writeFile(file, 'short');
    expect(await runToEnd(environment)).toMatchObject({
      code: 78,
      stderr: expect.stringContaining(`${real} does not hold 32 bytes in base64: restore it. Nothing was changed.\n`),
    });
    expect(await processesIn(folder)).toEqual([]);
    await fs.writeFile(file, key);
    await start();
    expect(await use(tokens.printed)).toBe(200);
  });

  it('FI-25 a restored backup does not start; era raise makes it start, and every token from before is dead', async () => {
    await service.stop();
    const data = path.join(folder, 'pg');
    execFileSync('cp', ['-a', data, `${folder}-backup`]);
    await start();
    const [secret] = (await call('GET', `/service-accounts/${account}/secrets`)).data.filter(
      ({ label }: { label: string }) => label === 'first secret',
    );
    await call('POST', `/service-accounts/${account}/secrets/${secret.id}/revoke`);
    expect([await use(tokens.printed), await use(tokens.sibling)]).toEqual([401, 200]);
    await service.stop();

    await fs.rm(data, { recursive: true });
    execFileSync('cp', ['-a', `${folder}-backup`, data]);
    const refused = await runToEnd(environment);
    expect(refused.code).toBe(1);
    expect(refused.stderr.trim().split('\n').at(-1)).toBe(
      'The database is older than when it was last used here: revocations may be missing, so nothing was started. If you restored a backup, run "npm run gatehouse -- era raise", which ends every token issued before, personal access tokens too, and start again.',
    );
    expect(await processesIn(folder)).toEqual([]);

    expect(await runToEnd(environment, 'era', 'raise')).toMatchObject({
      code: 0,
      stdout:
        'The era is 2: every token issued before is dead, personal access tokens too, and everybody is signed out. After a restored backup, revoke again what was revoked since it was made: those secrets and keys are alive again.\n',
    });
    await start();
    expect([await use(tokens.printed), await use(tokens.sibling)]).toEqual([401, 401]);
    expect(await use(await token(sibling))).toBe(200);
  });

  it('era raise is news to a running instance, and stands in the audit log', async () => {
    const before = await token(sibling);
    expect(await use(before)).toBe(200);
    expect(await runToEnd(environment, 'era', 'raise')).toMatchObject({
      code: 0,
      stdout:
        'The era is 3: every token issued before is dead, personal access tokens too, and everybody is signed out. After a restored backup, revoke again what was revoked since it was made: those secrets and keys are alive again.\n',
    });
    expect(await use(before)).toBe(401); // at once: the command waited for every instance
    expect(await use(await token(sibling))).toBe(200);
    expect((await fetch(`${url}/health/ready`)).status).toBe(200);
    await expect(call('GET', '/session')).rejects.toThrow('GET /session: 401');
    await call('POST', '/session', { email: 'admin@localhost', password: 'correct horse battery staple' });
    await call('PATCH', '/session', { organization_id: (await call('GET', '/organizations')).data[0].id });
    const { data } = await call('GET', '/audit-events?action=era.raised');
    expect(data.map(({ actor, changes }: Record<string, unknown>) => ({ actor, changes }))).toMatchObject([
      { actor: { type: 'system', name: 'gatehouse' }, changes: { era: { from: 2, to: 3 } } },
      { actor: { type: 'system', name: 'gatehouse' }, changes: { era: { from: 1, to: 2 } } },
    ]);
  });
});
