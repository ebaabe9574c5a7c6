import pg from 'pg';
import { DataSource } from 'typeorm';
import { StartupError } from '../kernel/startup-error.js';
import { dataSourceOptions, MIGRATIONS, type PostgresConnection } from './database.module.js';

const MINIMUM_VERSION = 150_000;
/**
 * Advisory locks of ours are (7315, n): 1 the data directory, 2 migrations, 3 partitions, 4 the feed, 6 the first start,
 * 10 the wrapping of keys, 11 the rotation of MASTER_KEY. By a hash: of an id, its epoch; of an organization, its quota.
 */
const MIGRATION_LOCK = [7315, 2];

export interface MigrationReport {
  /** As PostgreSQL says it: `18.4`. */
  version: string;
  /** Names of the migrations that ran now. */
  ran: string[];
  /** Weaknesses of this set-up that the log should name. */
  warnings: string[];
}

/**
 * Brings the schema to this version under an advisory lock and grants the application's role what it may do, no more.
 * Throws a StartupError, having changed nothing, when the server is unreachable, too old, a standby, or its schema is newer than this code.
 */
export async function migrate(owner: PostgresConnection, application: PostgresConnection): Promise<MigrationReport> {
  const role = await inspect(application);
  const lock = await connect(owner);
  try {
    await lock.query('SELECT pg_advisory_lock($1, $2)', MIGRATION_LOCK);
    await missingMigrations(lock);
    const source = await new DataSource({ ...dataSourceOptions(owner), extra: { max: 1 } }).initialize();
    try {
      const ran = await source.runMigrations();
      await source.query(grants(pg.escapeIdentifier(role.name)));
      const warnings = [];
      const [{ owns }] = await source.query(
        `SELECT pg_get_userbyid(relowner) = $1 AS owns FROM pg_class WHERE oid = 'audit_event'::regclass`,
        [role.name],
      );
      if (owns) {
        warnings.push(
          'The application connects as the owner of its tables: set MIGRATION_DATABASE_URL to a role of its own, or P3 (recorded stays recorded) rests on a trigger alone.',
        );
      }
      if (role.superuser)
        warnings.push(
          'The application connects as a superuser: P3 (recorded stays recorded) does not hold against it.',
        );
      if (!role.fsync) warnings.push('The database runs with fsync off: P1 and P2 do not survive its crash.');
      return { version: role.version, ran: ran.map(({ name }) => name), warnings };
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      if (code !== '42501') throw error; // insufficient_privilege
      // Not by way of TypeORM, whose only connection may still be held by what failed.
      const { rows } = await lock.query('SELECT current_user AS name');
      throw new StartupError(
        `The role ${rows[0].name} may not change the schema (${message}): set MIGRATION_DATABASE_URL to the role that owns the database and its tables.`,
      );
    } finally {
      await source.destroy();
    }
  } finally {
    await lock.end().catch(() => undefined);
  }
}

/** Throws a StartupError when this code cannot work with the schema as it is: older, which the service mends at its start, or newer. */
export async function assertSchema(application: PostgresConnection): Promise<void> {
  const client = await connect(application);
  try {
    const missing = await missingMigrations(client);
    if (missing.length > 0)
      throw new StartupError(
        `The database's schema is older than this version of Gatehouse (it lacks ${missing[0]}): run \`npm run gatehouse -- migration run\`.`,
      );
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** Names of the migrations that have not run. Throws a StartupError when one has that is not known here. */
async function missingMigrations(client: pg.Client): Promise<string[]> {
  const known = MIGRATIONS.map(({ name }) => name);
  const { rows } = await client
    .query<{ name: string }>('SELECT name FROM schema_migration')
    .catch((error) => (error.code === '42P01' ? { rows: [] } : Promise.reject(error)));
  const landed = rows.map(({ name }) => name);
  const newer = landed.find((name) => !known.includes(name));
  if (newer) {
    throw new StartupError(
      `The database's schema is newer than this version of Gatehouse (it has ${newer}): run the newer version, or restore the backup made before the upgrade.`,
    );
  }
  return known.filter((name) => !landed.includes(name));
}

/** Takes back the newest migration. For development: the service refuses to run on a schema that it does not know. */
export async function revertLast(owner: PostgresConnection): Promise<void> {
  const source = await new DataSource({ ...dataSourceOptions(owner), extra: { max: 1 } }).initialize();
  await source.undoLastMigration().finally(() => source.destroy());
}

async function inspect(connection: PostgresConnection) {
  const client = await connect(connection);
  try {
    const { rows } = await client.query(
      `SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
              pg_is_in_recovery() AS standby, current_setting('fsync') = 'on' AS fsync,
              current_user AS name, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser`,
    );
    const found = rows[0] as {
      version: string;
      number: number;
      standby: boolean;
      fsync: boolean;
      name: string;
      superuser: boolean;
    };
    if (found.number < MINIMUM_VERSION) {
      throw new StartupError(
        `Gatehouse needs PostgreSQL 15 or newer, and DATABASE_URL leads to ${found.version}: upgrade the server, or unset DATABASE_URL for the embedded one.`,
      );
    }
    if (found.standby)
      throw new StartupError(
        'DATABASE_URL leads to a standby: revocations are read from the primary only. Point it at the primary.',
      );
    return found;
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** Throws a StartupError that says why when the server cannot be reached. */
export async function connect(connection: PostgresConnection): Promise<pg.Client> {
  const client = new pg.Client({ ...connection, connectionTimeoutMillis: 5000, application_name: 'gatehouse' });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return client;
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    const reason =
      code === '28P01' || code === '28000'
        ? 'it refuses the user name or password'
        : code === '3D000'
          ? 'the database does not exist'
          : (code ?? message);
    throw new StartupError(
      `PostgreSQL cannot be reached (${reason}): check DATABASE_URL and MIGRATION_DATABASE_URL and that the server runs.`,
    );
  }
}

/** Append-only tables are granted INSERT and SELECT; their partitions nothing, since rights are checked on the parent. */
const grants = (role: string) => `
  GRANT USAGE ON SCHEMA public TO ${role};
  GRANT SELECT, UPDATE ON era TO ${role};
  GRANT SELECT, INSERT, UPDATE, DELETE ON revocable, instance, idempotency_key, session, assertion_jti, rate_limit_window TO ${role};
  GRANT SELECT, INSERT, UPDATE ON keyring_key, organization, "user", service_account, credential, company TO ${role};
  GRANT SELECT, INSERT, DELETE ON revocation TO ${role};
  GRANT SELECT, INSERT, UPDATE, DELETE ON membership, employee TO ${role};
  GRANT SELECT, INSERT ON scope, audit_event TO ${role};
  GRANT SELECT ON schema_migration TO ${role};
  GRANT USAGE ON SEQUENCE revocation_id_seq TO ${role};
  GRANT EXECUTE ON FUNCTION audit_event_make_partitions(integer) TO ${role};`;
