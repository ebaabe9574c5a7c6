import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { DataSource } from 'typeorm';
import { RevocationFeed } from '../../src/revocation/revocation-feed.js';
import { RevocationView } from '../../src/revocation/revocation-view.js';
import { Keys } from '../../src/tokens/keys.service.js';
import { createDatabase, dataDir, type TestDatabase } from '../support/database.js';
import { bearer, type Session, TestService } from '../support/service.js';

const until = async (condition: () => unknown) => {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
};

/** Holds the feed's next polls until it is released, as a network that is slow for a moment does. */
function holdPolls(service: TestService): () => void {
  const feed = service.app.get(RevocationFeed) as unknown as { poll(): Promise<void> };
  const poll = feed.poll;
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  feed.poll = async function (this: typeof feed) {
    await held;
    return poll.call(this);
  };
  return () => {
    feed.poll = poll;
    release();
  };
}

describe('P1: whoever finds it revoked already waits as well', () => {
  let database: TestDatabase;
  let a: TestService;
  let b: TestService;
  let admin: Session;
  beforeAll(async () => {
    database = await createDatabase();
    const settings = { REVOCATION_BOUND_MS: '5000' };
    a = await TestService.start(settings, database);
    b = await TestService.start(settings, database);
    admin = await a.signIn();
    await admin.createOrganization('Patience');
  });
  afterAll(async () => {
    await a.stop();
    await b.stop();
    await database.drop();
  });

  const second = async (path: string, headers: Record<string, string>) => {
    const account = await admin.createAccount(`Account ${path} ${Object.keys(headers)}`);
    const { json } = await a.token({ grant_type: 'client_credentials' }, account.credentials);
    const use = () => b.request('GET', '/companies', { headers: bearer(json.access_token) });
    expect((await use()).status).toBe(200);
    const release = holdPolls(b);
    await new Promise((resolve) => setTimeout(resolve, 150)); // a poll that was under way has ended
    const first = admin.post(`/service-accounts/${account.id}/disable`, {}, headers);
    await until(async () => {
      const [row] = await database.query('SELECT disabled_at FROM service_account WHERE id = $1', [account.id]);
      return row.disabled_at;
    });
    setTimeout(release, 500);
    const again = await admin.post(`/service-accounts/${account.id}/disable`, {}, headers);
    expect(again.status).toBe(200);
    expect((await use()).status).toBe(401);
    expect((await first).status).toBe(200);
  };

  it('FI-04 a second call to disable', () => second('a', {}));
  it('FI-04 a repeat under an Idempotency-Key', () => second('b', { 'idempotency-key': 'k1' }));
});

describe('a database that went back in time', () => {
  it('FI-08 closes the instance, and stays refused when it is started anew', async () => {
    const database = await createDatabase();
    const settings = { DATA_DIR: dataDir() };
    const service = await TestService.start(settings, database);
    const admin = await service.signIn();
    await admin.createOrganization('Restored');
    const [{ head }] = await database.query('SELECT max(id)::int AS head FROM revocation');
    const view = service.app.get(RevocationView);
    await until(() => view.position >= head);
    await database.query('DELETE FROM revocation WHERE id = $1', [head]);
    await until(() => view.closed);
    await new Promise((resolve) => setTimeout(resolve, 300)); // some polls more
    expect((await admin.get('/service-accounts')).status).toBe(503);
    await service.stop();
    await expect(TestService.start(settings, database)).rejects.toThrow('older than when it was last used here');
    await database.drop();
  });
});

describe('P2: a query without an answer', () => {
  it('FI-07 leaves no transaction that a later one commits', async () => {
    const service = await TestService.start();
    const admin = await service.signIn();
    const organization = await admin.createOrganization('Stalled');
    const pool = service.app.get(DataSource).driver as unknown as { master: pg.Pool };
    const holder = new pg.Client({ ...service.database.superuser });
    await holder.connect();
    await holder.query('BEGIN');
    await holder.query('LOCK TABLE audit_event IN ACCESS EXCLUSIVE MODE'); // the event cannot be appended
    const made = await admin.post('/service-accounts', { name: 'Ghost', scopes: [] });
    expect(made.status).toBe(503);
    await holder.query('ROLLBACK');
    await holder.end();
    await until(() => pool.master.waitingCount === 0);
    await Promise.all(
      Array.from({ length: 12 }, (_, i) => admin.post('/service-accounts', { name: `Later ${i}`, scopes: [] })),
    );
    const rows = await service.database.query(
      `SELECT name FROM service_account WHERE organization_id = $1 AND name = 'Ghost'`,
      [organization.id],
    );
    expect(rows).toEqual([]);
    await service.stop();
  }, 40_000);
});

describe('keys', () => {
  it('a sealing key that another instance published is not used before every instance has it', async () => {
    const database = await createDatabase();
    const settings = { REVOCATION_BOUND_MS: '5000' };
    const a = await TestService.start(settings, database);
    const b = await TestService.start(settings, database);
    await new Promise((resolve) => setTimeout(resolve, 150));
    const release = holdPolls(b); // b is fresh, and has not heard of the key
    await new Promise((resolve) => setTimeout(resolve, 150));
    const rotation = a.app.get(Keys).rotate('token-seal');
    const states = () => database.query(`SELECT state FROM keyring_key WHERE purpose = 'token-seal' ORDER BY id`);
    await until(async () => (await states()).length === 2);
    await Promise.race([a.app.get(Keys).maintain(), new Promise((resolve) => setTimeout(resolve, 300))]);
    expect(await states()).toEqual([{ state: 'active' }, { state: 'pending' }]);
    release();
    await rotation;
    expect(await states()).toEqual([{ state: 'retiring' }, { state: 'active' }]);
    await a.stop();
    await b.stop();
    await database.drop();
  });
});

describe('P1: who floods cannot hold off the revocation', () => {
  it('FI-04 a secret is revoked while its tokens write without a pause', async () => {
    const database = await createDatabase();
    const [a, b] = [await TestService.start({}, database), await TestService.start({}, database)];
    const admin = await a.signIn();
    await admin.createOrganization('Flooded');
    const account = await admin.createAccount('Thief');
    const { json } = await a.token({ grant_type: 'client_credentials' }, account.credentials);
    let flooding = true;
    let n = 0;
    const floods = Array.from({ length: 30 }, async (_, i) => {
      while (flooding) {
        await (i % 2 ? a : b).request('POST', '/companies', {
          body: { name: `c${n++}` },
          headers: bearer(json.access_token),
        });
      }
    });
    await until(() => n > 200);
    const revoked = await admin.post(`/service-accounts/${account.id}/secrets/${account.secret.id}/revoke`);
    flooding = false;
    await Promise.all(floods);
    expect(revoked.status).toBe(200);
    await a.stop();
    await b.stop();
    await database.drop();
  }, 40_000);
});
