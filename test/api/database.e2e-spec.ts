import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { DataSource } from 'typeorm';
import { MIGRATIONS } from '../../src/database/database.module.js';
import { migrate, revertLast } from '../../src/database/migrate.js';
import { Revocations } from '../../src/revocation/revocations.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { startPatient } from '../support/people.js';
import { TestService } from '../support/service.js';

let service: TestService;
let spare: TestDatabase;

beforeAll(async () => {
  service = await startPatient();
  spare = await createDatabase();
});
afterAll(async () => {
  await service.stop();
  await spare.drop();
});

it('secrets are read whatever bytea_output the server is set to', async () => {
  const [{ name }] = await service.database.query<{ name: string }>('SELECT current_database() AS name');
  await service.database.query(`ALTER DATABASE "${name}" SET bytea_output = 'escape'`);
  const another = await TestService.start({ REVOCATION_BOUND_MS: '10000' }, service.database);
  try {
    const account = await (await another.signIn()).createAccount('Octets', []);
    expect((await another.token({ grant_type: 'client_credentials' }, account.credentials)).status).toBe(200);
  } finally {
    await another.stop();
    await service.database.query(`ALTER DATABASE "${name}" RESET bytea_output`);
  }
});

/** Tables, columns, constraints, indexes, triggers and functions, as PostgreSQL says them; partitions come with the calendar. */
const schema = async (database: TestDatabase) =>
  database.query<{ line: string }>(
    `SELECT line FROM (
       SELECT format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default) AS line
         FROM information_schema.columns WHERE table_schema = 'public' AND table_name !~ '_\\d{4}_\\d\\d$'
       UNION ALL SELECT format('%s %s', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text !~ '_\\d{4}_\\d\\d$'
       UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename !~ '_\\d{4}_\\d\\d$'
       UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal AND tgrelid::regclass::text !~ '_\\d{4}_\\d\\d$'
       UNION ALL SELECT proname || prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace) t ORDER BY 1`,
  );

describe('the schema', () => {
  it('DESIGN §5: TypeORM sees no difference between its entities and the migrated database, but for what it cannot state', async () => {
    // A superuser reads all catalogs; the entities are those that the modules registered.
    const running = service.app.get(DataSource);
    const source = await new DataSource({
      ...running.options,
      ...{ url: undefined, ...hostOf(service.database.superuser) },
      entities: running.entityMetadatas.map(({ target }) => target as () => void),
    } as never).initialize();
    try {
      const { upQueries } = await source.driver.createSchemaBuilder().log();
      expect(upQueries.map(({ query }) => query)).toEqual([]);
      expect(source.entityMetadatas.map(({ tableName }) => tableName).sort()).toEqual([
        'company',
        'credential',
        'employee',
        'membership',
        'organization',
        'scope',

        'service_account',
        'session',
        'user',
      ]);
    } finally {
      await source.destroy();
    }
  });

  it('DESIGN §5: every constraint, index and key has a name of ours', async () => {
    const rows = await service.database.query<{ name: string }>(
      `SELECT conname AS name FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
         AND conrelid::regclass::text !~ '_\\d{4}_\\d\\d$' AND conname !~ '_(pkey|key|fkey|check)$'`,
    );
    expect(rows.filter(({ name }) => !name.startsWith('PK_'))).toEqual([]);
  });

  it('DESIGN §5: migrations go back and forward, and end where they began', async () => {
    const before = await schema(spare);
    expect(before.length).toBeGreaterThan(100);
    for (const _ of MIGRATIONS) await revertLast(spare.owner);
    const left = await spare.query<{ name: string }>(
      `SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S', 'v')
       UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1`,
    );
    expect(left.filter(({ name }) => !name.startsWith('schema_migration'))).toEqual([]);
    const { ran } = await migrate(spare.owner, spare.application);
    expect(ran).toEqual(MIGRATIONS.map(({ name }) => name));
    expect(await schema(spare)).toEqual(before);
    expect((await migrate(spare.owner, spare.application)).ran).toEqual([]);
  });

  it('DESIGN §5: two that migrate at once take turns', async () => {
    for (const _ of MIGRATIONS) await revertLast(spare.owner);
    const reports = await Promise.all([1, 2, 3].map(() => migrate(spare.owner, spare.application)));
    expect(reports.map(({ ran }) => ran.length).sort()).toEqual([0, 0, MIGRATIONS.length]);
  });
});

describe('a transaction', () => {
  it('P2 whose connection breaks between two queries: 503, and nothing changed', async () => {
    const admin = await service.signIn();
    const revocations = service.app.get(Revocations);
    const { stillHeld } = revocations;
    revocations.stillHeld = async (tx, ...holds) => {
      const [{ pid }] = await tx.query('SELECT pg_backend_pid() AS pid');
      await service.database.query('SELECT pg_terminate_backend($1)', [pid]);
      await new Promise((resolve) => setTimeout(resolve, 100)); // until the pool has heard of it
      return stillHeld.call(revocations, tx, ...holds);
    };
    try {
      const answer = await admin.post('/companies', { name: 'Cut off' });
      expect([answer.status, answer.json.code]).toEqual([503, 'temporarily_unavailable']);
    } finally {
      revocations.stillHeld = stillHeld;
    }
    expect(await service.database.query(`SELECT 1 FROM company WHERE name = 'Cut off'`)).toEqual([]);
    expect((await admin.post('/companies', { name: 'Connected' })).status).toBe(201);
  });
});

describe('the application’s role', () => {
  it('AU-07 is neither superuser nor owner, and has these rights and no others', async () => {
    const { application, owner } = service.database;
    expect(application.user).not.toBe(owner.user);
    const [role] = await service.database.query(
      'SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = $1',
      [application.user],
    );
    expect(Object.values(role)).toEqual([false, false, false, false, false]);
    const rights = await service.database.query<{ table: string; rights: string }>(
      `SELECT c.relname AS table, string_agg(p, ' ' ORDER BY p) AS rights
         FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND has_table_privilege($1, c.oid, p)
        GROUP BY 1 ORDER BY 1`,
      [application.user],
    );
    const ALL = 'DELETE INSERT SELECT UPDATE';
    const NO_DELETE = 'INSERT SELECT UPDATE';
    expect(Object.fromEntries(rights.map((row) => [row.table, row.rights]))).toEqual({
      assertion_jti: ALL,
      audit_event: 'INSERT SELECT',
      company: NO_DELETE,
      credential: NO_DELETE,
      employee: ALL,
      era: 'SELECT UPDATE',
      idempotency_key: ALL,
      instance: ALL,
      keyring_key: NO_DELETE,
      membership: ALL,
      organization: NO_DELETE,
      rate_limit_window: ALL,
      revocable: ALL,
      revocation: 'DELETE INSERT SELECT',
      schema_migration: 'SELECT',
      scope: 'INSERT SELECT',
      service_account: NO_DELETE,
      session: ALL,
      user: NO_DELETE,
    });
  });

  it('I1 epochs and era only rise, whoever tries; a row that tokens hang on is not deleted', async () => {
    const client = new pg.Client(service.database.application);
    await client.connect();
    const code = (sql: string) =>
      client.query(sql).then(
        () => 'done',
        (error) => error.code,
      );
    try {
      await client.query('BEGIN');
      for (const sql of [
        'UPDATE revocable SET epoch = epoch - 1',
        'UPDATE revocable SET epoch = -1',
        `UPDATE revocable SET kind = 'session'`,
        `DELETE FROM revocable WHERE kind = 'organization'`,
        'UPDATE era SET era = era - 1',
      ]) {
        await client.query('SAVEPOINT s');
        expect([sql, await code(sql)]).toEqual([sql, '23001']);
        await client.query('ROLLBACK TO s');
      }
      expect(await code('CREATE TABLE mine ()')).toBe('42501');
    } finally {
      await client.end();
    }
  });
});

const hostOf = ({ host, port, user, password, database }: TestDatabase['superuser']) => ({
  host,
  port,
  username: user,
  password,
  database,
});
