import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { ADMIN, basic, freePort, ServiceProcess, serviceEnvironment } from '../support/service.js';

const ROUNDS = 4;
const JSON_TYPE = { 'content-type': 'application/json' };

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

it('AU-11 kill -9 between commit and answer: whoever saw a 2xx finds its event, and an event tells of what is there', async () => {
  const settings = serviceEnvironment(database, { PORT: await freePort() });
  const acknowledged: string[] = [];
  let credentials: { id: string; secret: string } | undefined;
  for (let round = 0; round < ROUNDS; round++) {
    const service = await ServiceProcess.start(settings);
    credentials ??= await account(service.url);
    const headers = { authorization: basic(credentials), 'content-type': 'application/x-www-form-urlencoded' };
    const body = 'grant_type=client_credentials';
    const first = await fetch(`${service.url}/oauth/token`, { method: 'POST', headers, body });
    const { access_token } = (await first.json()) as { access_token: string };
    acknowledged.push(first.headers.get('x-request-id')!);
    let dead = false;
    const client = async (n: number) => {
      while (!dead) {
        const change = n % 4 === 0;
        const answer = await (change
          ? fetch(`${service.url}/companies`, {
              method: 'POST',
              headers: { ...JSON_TYPE, authorization: `Bearer ${access_token}` },
              body: '{"name":"Killed"}',
            })
          : fetch(`${service.url}/oauth/token`, { method: 'POST', headers, body })
        ).catch(() => undefined);
        if (!answer?.ok) continue;
        // The head of the answer has come; whatever becomes of its body, it was acknowledged.
        acknowledged.push(answer.headers.get('x-request-id')!);
        await answer.arrayBuffer().catch(() => undefined);
      }
    };
    const clients = Array.from({ length: 16 }, (_, n) => client(n));
    const goal = acknowledged.length + 300;
    while (acknowledged.length < goal) await new Promise((resolve) => setTimeout(resolve, 5));
    await service.stop('SIGKILL');
    dead = true;
    await Promise.all(clients);
  }
  const events = await database.query<{ request_id: string }>(
    `SELECT request_id FROM audit_event WHERE action IN ('token.issued', 'company.created') AND outcome = 'success'`,
  );
  const recorded = new Set(events.map(({ request_id }) => request_id));
  expect(recorded.size).toBe(events.length);
  expect(acknowledged.filter((id) => !recorded.has(id))).toEqual([]);
  expect(acknowledged.length).toBeGreaterThan(ROUNDS * 300);
  const [{ orphans, silent }] = await database.query<{ orphans: number; silent: number }>(
    `SELECT (SELECT count(*)::int FROM audit_event e WHERE action = 'company.created' AND NOT EXISTS (SELECT FROM company c WHERE c.id::text = ANY(e.target_ids))) AS orphans,
            (SELECT count(*)::int FROM company c WHERE NOT EXISTS (SELECT FROM audit_event e WHERE e.target_ids @> ARRAY[c.id::text])) AS silent`,
  );
  expect({ orphans, silent }).toEqual({ orphans: 0, silent: 0 });
}, 120_000);

/** An organization with an account, over the API. */
async function account(url: string): Promise<{ id: string; secret: string }> {
  const signIn = await fetch(`${url}/api/v1/session`, {
    method: 'POST',
    headers: JSON_TYPE,
    body: JSON.stringify(ADMIN),
  });
  let cookie = signIn.headers.get('set-cookie')!.split(';')[0];
  const call = async (method: string, path: string, body: object) => {
    const answer = await fetch(`${url}/api/v1${path}`, {
      method,
      headers: { ...JSON_TYPE, cookie },
      body: JSON.stringify(body),
    });
    cookie = answer.headers.get('set-cookie')?.split(';')[0] ?? cookie;
    return (await answer.json()) as { id: string; client_id: string; secret: string };
  };
  const organization = await call('POST', '/organizations', { name: 'Killed' });
  await call('PATCH', '/session', { organization_id: organization.id });
  const made = await call('POST', '/service-accounts', {
    name: 'Survivor',
    scopes: ['companies:read', 'companies:write'],
  });
  const { secret } = await call('POST', `/service-accounts/${made.id}/secrets`, {});
  return { id: made.client_id, secret };
}
