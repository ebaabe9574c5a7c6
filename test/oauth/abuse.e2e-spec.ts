import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Attempts } from '../../src/kernel/attempts.js';
import { ClientAuthentication } from '../../src/oauth/client-authentication.js';
import { eventsOf, expectOAuthError, expectToken, GRANT, PATIENT } from '../support/oauth.js';
import { type Answer, basic, type TestAccount, TestService } from '../support/service.js';

const PROXY = '10.1.2.3';

let service: TestService;
let account: TestAccount;

beforeAll(async () => {
  service = await TestService.start({ ...PATIENT, TRUSTED_PROXIES: '10.0.0.0/8', LOG_LEVEL: 'error' });
  const admin = await service.signIn();
  await admin.createOrganization('Abuse');
  account = await admin.createAccount('Victim', ['companies:read']);
});
afterAll(() => service?.stop());

/** A token request that came over this connection, with the right secret or a wrong one. */
const from = (remoteAddress: string, secret = 'wrong', headers: Record<string, string> = {}): Promise<Answer> =>
  service.request('POST', '/oauth/token', {
    body: new URLSearchParams(GRANT).toString(),
    headers: {
      'content-type': 'application/x-www-form-urlencoded',
      authorization: basic({ id: account.client_id, secret }),
      ...headers,
    },
    remoteAddress,
  });
const forwarded = (value: string) => ({ 'x-forwarded-for': value });

const burst = (send: (i: number) => Promise<Answer>, count = 40) =>
  Promise.all(Array.from({ length: count }, (_, i) => send(i)));

/** Sends until it is refused by number: 600 a minute may fail, and ten more for each second that this takes. */
async function exhaust(send: (i: number) => Promise<Answer>): Promise<void> {
  let failed = 0;
  for (;;) {
    const answers = await burst((i) => send(failed + i));
    expect(answers.filter(({ status }) => status !== 401 && status !== 429)).toEqual([]);
    failed += answers.filter(({ status }) => status === 401).length;
    if (answers.some(({ status }) => status === 429)) break;
  }
  expect(failed).toBeGreaterThanOrEqual(600);
}

/** A bucket that is empty lets through what has refilled since; of a burst that is little. */
async function expectThrottled(send: (i: number) => Promise<Answer>): Promise<void> {
  const answers = await burst(send);
  const throttled = answers.filter(({ status }) => status === 429);
  expect(throttled.length).toBeGreaterThan(answers.length / 2);
  for (const answer of throttled) {
    expectOAuthError(answer, 429, 'temporarily_unavailable', 'Too many failed attempts from this address');
    expect(answer.headers['retry-after']).toMatch(/^[1-9]\d*$/);
  }
}

describe('whom a failure is charged to', () => {
  it('RL-02 headers of an untrusted peer change nothing, rotate them as it may', async () => {
    const spoof = (i: number) => ({
      'x-forwarded-for': i % 2 ? `198.51.100.${i % 250}` : `\t203.0.113.${i % 250}\t, 192.0.2.1`,
      'x-real-ip': `198.51.100.${i % 250}`,
      forwarded: `for=198.51.100.${i % 250}`,
    });
    await exhaust((i) => from('192.0.2.10', 'wrong', spoof(i)));
    await expectThrottled((i) => from('192.0.2.10', 'wrong', spoof(7777 + i)));
    expect((await from('192.0.2.11')).status).toBe(401);
  });

  it('RL-02 behind a trusted proxy the address that it saw counts, not what the caller put before it', async () => {
    await exhaust((i) => from(PROXY, 'wrong', forwarded(`198.51.100.${i % 250}, 192.0.2.20`)));
    await expectThrottled((i) => from(PROXY, 'wrong', forwarded(`203.0.113.${i}, 192.0.2.20`)));
    // The same proxy, written as IPv4 in IPv6; and tabs around the address.
    await expectThrottled(() => from(`::ffff:${PROXY}`, 'wrong', forwarded('198.51.100.252, 192.0.2.20')));
    await expectThrottled(() => from(PROXY, 'wrong', forwarded('198.51.100.253,\t192.0.2.20\t')));
    const neighbour = await from(PROXY, 'wrong', forwarded('192.0.2.21'));
    expectOAuthError(neighbour, 401, 'invalid_client');
    expect(await eventsOf(service, 'client.authenticated')).toMatchObject([{ address: '192.0.2.21' }]);
  });

  it('RL-04 wrong secrets never lock the rightful client out, not even from the same address', async () => {
    await exhaust(() => from('192.0.2.30'));
    await expectThrottled(() => from('192.0.2.30'));
    for (const address of ['192.0.2.30', '192.0.2.31']) {
      expectToken(await from(address, account.credentials.secret), 'companies:read');
    }
    await expectThrottled(() => from('192.0.2.30'));
  });
});

it('AU-19 past the bound refusals are counted, not written one by one, and the count is an event', async () => {
  const written = async () =>
    Number(
      (
        await service.database.query<{ count: string }>(
          `SELECT count(*) FROM audit_event WHERE action = 'client.authenticated'`,
        )
      )[0].count,
    );
  const authentication = service.app.get(ClientAuthentication) as unknown as { recordThrottled(): void };
  authentication.recordThrottled(); // what the tests before this one left
  await exhaust(() => from('192.0.2.40'));
  authentication.recordThrottled();
  const before = await written();
  const flood = await burst(() => from('192.0.2.40'), 500);
  const throttled = flood.filter(({ status }) => status === 429).length;
  expect(throttled).toBeGreaterThan(250);
  expect((await written()) - before).toBe(flood.length - throttled);
  // The victim's issuance is not held up by it, and is recorded as ever.
  expectToken(await from('192.0.2.40', account.credentials.secret), 'companies:read');

  authentication.recordThrottled(); // as it does every ten seconds
  const latest = async () => (await eventsOf(service, 'authentication.throttled'))[0];
  const isOfFlood = (event: Awaited<ReturnType<typeof latest>>) => event?.changes?.refusals.to === throttled;
  while (!isOfFlood(await latest())) await new Promise(setImmediate);
  expect(await latest()).toMatchObject({
    outcome: 'failure',
    actor_type: 'system',
    changes: { refusals: { to: throttled }, networks: { to: 1 }, most_from: { to: { '192.0.2.40': throttled } } },
  });
});

it('RL-07 a million keys take the room of some thousands, and a hot offender stays among them', () => {
  let now = 0;
  const attempts = new Attempts(5, 60_000, 1000, () => now);
  const hot = () => attempts.take('hot');
  for (let i = 0; i < 5; i++) expect(hot()).toBe(0);
  for (let i = 0; i < 1_000_000; i++) {
    attempts.take(`key ${i}`);
    if (i % 500 === 0) expect(hot()).toBeGreaterThan(0);
  }
  const { buckets } = attempts as unknown as { buckets: Iterable<unknown> };
  expect([...buckets].length).toBeLessThanOrEqual(2000); // quick-lru keeps up to twice what it was given
  now = 60_000;
  expect(hot()).toBe(0);
});
