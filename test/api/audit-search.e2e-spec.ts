import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { DataSource } from 'typeorm';
import { AuditLog } from '../../src/audit/audit-log.js';
import { join, startPatient, tokenOf } from '../support/people.js';
import type { Answer, Session, TestAccount, TestService } from '../support/service.js';

let service: TestService;
let platform: Session;
let organization: { id: string };
let admin: Session & { userId: string };
let account: TestAccount;

beforeAll(async () => {
  service = await startPatient();
  platform = await service.signIn();
  organization = await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
  account = await admin.createAccount('Concierge');
  await service.token({ grant_type: 'client_credentials' }, { ...account.credentials, secret: 'wrong' });
  await tokenOf(service, account.credentials);
});
afterAll(() => service.stop());

const code = ({ status, json }: Answer) => [status, json?.code ?? json?.error];
const latest = async (query: string) => (await admin.get(`/audit-events?limit=1&${query}`)).json.data[0];

describe('recorded stays recorded', () => {
  it('AU-04 what a caller writes is data: one line of log, one field of an event', async () => {
    const hostile = 'a\r\nb\u001b[31m"},{"action":"x"}\u2028\u0085';
    const description = (await admin.post('/service-accounts', { name: 'Hostile', scopes: [], description: hostile }))
      .json;
    expect(description.description).toBe(hostile);
    expect((await latest(`target_id=${description.id}`)).changes.description).toEqual({ to: hostile });
    for (const name of ['a\r\nb', 'a\u001b[31m', 'a\u2028b', 'a\u0000b', 'a\u0085b'])
      expect(code(await admin.post('/service-accounts', { name, scopes: [] }))[0]).toBe(400);
    await service.token(
      { grant_type: 'client_credentials' },
      { id: hostile, secret: 'x' },
      { 'user-agent': 'a"},{"\u001b[31m' },
    );
    for (const line of service.logs) {
      expect(line.indexOf('\n')).toBe(line.length - 1);
      expect(() => JSON.parse(line)).not.toThrow();
    }
    const long = await admin.get('/companies', { 'user-agent': 'x'.repeat(5000) });
    expect(long.status).toBe(200);
    const made = await admin.post('/companies', { name: 'Long' }, { 'user-agent': 'x'.repeat(5000) });
    expect((await latest(`request_id=${made.headers['x-request-id']}`)).user_agent).toHaveLength(512);
  });

  it('AU-07 P3 the application’s role may add and read, nothing else; the owner meets a trigger', async () => {
    const [{ name: partition }] = await service.database.query<{ name: string }>(
      'SELECT tableoid::regclass::text AS name FROM audit_event LIMIT 1',
    );
    const attempt = async (as: pg.ClientConfig, sql: string) => {
      const client = new pg.Client(as);
      await client.connect();
      try {
        await client.query(sql);
        return 'done';
      } catch (error) {
        return (error as { code: string }).code;
      } finally {
        await client.end();
      }
    };
    const { application, owner } = service.database;
    const DENIED = '42501';
    const RESTRICTED = '23001';
    for (const table of ['audit_event', partition]) {
      for (const sql of [
        `UPDATE ${table} SET reason = 'x'`,
        `DELETE FROM ${table}`,
        `TRUNCATE ${table}`,
        `ALTER TABLE ${table} DISABLE TRIGGER ALL`,
        `ALTER TABLE ${table} ADD COLUMN x text`,
        `DROP TABLE ${table}`,
        `COPY ${table} FROM '/dev/null'`,
        `COPY ${table} FROM PROGRAM 'true'`,
        `CREATE TRIGGER x BEFORE INSERT ON ${table} EXECUTE FUNCTION audit_event_refuse_change()`,
      ])
        expect([sql, await attempt(application, sql)]).toEqual([sql, DENIED]);
      for (const sql of [`UPDATE ${table} SET reason = 'x'`, `DELETE FROM ${table}`, `TRUNCATE ${table}`])
        expect([sql, await attempt(owner, sql)]).toEqual([sql, RESTRICTED]);
    }
    for (const sql of [
      `COPY ${partition} FROM STDIN`,
      `INSERT INTO ${partition} DEFAULT VALUES`,
      `SELECT * FROM ${partition}`,
      'SET session_replication_role = replica',
      `ALTER FUNCTION audit_event_refuse_change() RENAME TO x`,
    ])
      expect([sql, await attempt(application, sql)]).toEqual([sql, DENIED]);
    expect(await attempt(application, 'SELECT 1 FROM audit_event LIMIT 1')).toBe('done');
  });
});

describe('searching', () => {
  it('CONTRACT §8: each filter finds its own events, and together they narrow', async () => {
    const [one] = (await admin.get(`/audit-events?action=token.issued&actor_id=${account.id}`)).json.data;
    for (const [filter, get] of [
      [`actor_name=${one.actor.name}`, (e: typeof one) => e.actor.name === one.actor.name],
      [`actor_id=${one.actor.id}`, (e: typeof one) => e.actor.id === one.actor.id],
      ['action=token.issued', (e: typeof one) => e.action === 'token.issued'],
      ['outcome=failure', (e: typeof one) => e.outcome === 'failure'],
      ['outcome=success', (e: typeof one) => e.outcome === 'success'],
      [`target_id=${account.id}`, (e: typeof one) => e.targets.some(({ id }: { id: string }) => id === account.id)],
      [`credential_id=${one.credential_id}`, (e: typeof one) => e.credential_id === one.credential_id],
      [`request_id=${one.request_id}`, (e: typeof one) => e.request_id === one.request_id],
      [`from=${one.occurred_at}`, (e: typeof one) => e.occurred_at >= one.occurred_at],
      [`to=${one.occurred_at}`, (e: typeof one) => e.occurred_at < one.occurred_at],
    ] as [string, (event: typeof one) => boolean][]) {
      const all = (await admin.get('/audit-events?limit=200')).json.data;
      const found = (await admin.get(`/audit-events?limit=200&${filter}`)).json.data;
      expect([filter, found.length]).not.toEqual([filter, 0]);
      expect([filter, found]).toEqual([filter, all.filter(get)]);
    }
    const narrow = await admin.get(`/audit-events?actor_id=${account.id}&action=token.issued&outcome=failure`);
    expect(narrow.json.data).toEqual([]);
    for (const bad of [
      'outcome=maybe',
      'action=x',
      'actor_id=x',
      'credential_id=1',
      'from=yesterday',
      'nonsense=1',
      'to=2026-13-01T00:00:00Z',
    ])
      expect([bad, ...code(await admin.get(`/audit-events?${bad}`))]).toEqual([bad, 400, 'validation_failed']);
    const read = await admin.get(`/audit-events/${one.id}`);
    expect([read.status, read.json]).toEqual([200, one]);
  });

  it('CONTRACT §8: newest first, each once though events arrive meanwhile; a cursor is good for its own filters', async () => {
    const ids = (answer: Answer) => answer.json.data.map(({ id }: { id: string }) => id);
    const all = ids(await admin.get('/audit-events?limit=200'));
    expect(all).toEqual([...all].sort().reverse());
    const seen: string[] = [];
    let cursor = '';
    do {
      const answer = await admin.get(`/audit-events?limit=7${cursor && `&cursor=${cursor}`}`);
      seen.push(...ids(answer));
      cursor = answer.json.next_cursor;
      await admin.post('/companies', { name: 'Meanwhile' });
    } while (cursor !== null && seen.length < 400);
    expect(seen.slice(0, all.length)).toEqual(all);
    const { next_cursor } = (await admin.get('/audit-events?limit=1')).json;
    for (const path of [
      '/audit-events?outcome=success&cursor=',
      '/revocations?cursor=',
      '/companies?cursor=',
      '/users?cursor=',
    ])
      expect(code(await admin.get(path + next_cursor))).toEqual([400, 'invalid_cursor']);
    await platform.createOrganization('Nosy');
    const nosy = await join(platform, 'nosy@nosy.example');
    expect(code(await nosy.get(`/audit-events?limit=1&cursor=${next_cursor}`))).toEqual([400, 'invalid_cursor']);
  });

  it('AU-01 each filter of CONTRACT §8 has its index among twenty thousand events', async () => {
    const [event] = (await admin.get(`/audit-events?target_id=${account.id}&limit=1`)).json.data;
    await service.database.query(
      `INSERT INTO audit_event (organization_id, id, occurred_at, action, outcome, actor_type, actor_id, actor_name, actor_organization_id,
         credential_id, target_ids, request_id, schema_version, boot_id, counter)
       SELECT $1, (substr($2::text, 1, 15) || substr(gen_random_uuid()::text, 16))::uuid, now(), 'company.updated',
              CASE WHEN n % 100 = 0 THEN 'failure' ELSE 'success' END, 'user', gen_random_uuid(), 'somebody ' || n, $1,
              gen_random_uuid(), ARRAY['target ' || n], 'request ' || n, 1, $1, n
         FROM generate_series(1, 20000) n`,
      [organization.id, event.id],
    );
    await service.database.query('ANALYZE audit_event');
    const source = service.app.get(DataSource);
    const query = source.query.bind(source);
    const plan = async (filter: Parameters<AuditLog['list']>[1]) => {
      let text = '';
      source.query = (async (sql: string, values: unknown[]) => {
        text = JSON.stringify(await service.database.query(`EXPLAIN ${sql}`, values));
        return [];
      }) as typeof source.query;
      try {
        await service.app.get(AuditLog).list(organization.id, filter, 50);
      } finally {
        source.query = query;
      }
      return text;
    };
    const at = new Date(event.occurred_at);
    for (const [filter, index] of [
      [{ actorName: 'somebody 7' }, 'actor_name'],
      [{ actorId: admin.userId }, 'actor_id'],
      [{ action: 'token.issued' }, 'action'],
      [{ outcome: 'failure' }, 'organization_id_id'],
      [{ outcome: 'success' }, 'pkey'],
      [{ targetId: 'target 7' }, 'target_ids'],
      [{ credentialId: randomUUID() }, 'credential_id'],
      [{ requestId: 'request 7' }, 'request_id'],
      [{ from: at, to: new Date(at.getTime() + 1) }, 'pkey'],
      [{}, 'pkey'],
    ] as [Parameters<AuditLog['list']>[1], string][]) {
      const text = await plan(filter);
      expect([filter, text]).toEqual([
        filter,
        expect.stringMatching(new RegExp(`audit_event_\\d{4}_\\d\\d_\\w*${index}`)),
      ]);
      // A month that holds nothing may be read through: it costs a page at most.
      const [{ relname }] = await service.database.query<{ relname: string }>(
        `SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' ORDER BY reltuples DESC LIMIT 1`,
      );
      expect(text).not.toContain(`Seq Scan on ${relname}`);
    }
  });
});
