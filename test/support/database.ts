import { randomUUID } from 'node:crypto';
import { chmodSync, mkdtempSync } from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import type { PostgresTarget } from '../../src/database/embedded-postgres.js';

interface TestEnvironment {
  base: string;
  superuser: PostgresTarget;
  owner: PostgresTarget;
  application: PostgresTarget;
  masterKey: string;
}

export const environment = (): TestEnvironment => JSON.parse(process.env.GATEHOUSE_TEST!);

/** `postgres://…` of a target on a unix socket, as DATABASE_URL takes it. */
export const urlOf = ({ host, port, user, password, database }: PostgresTarget) =>
  `postgres://${user}:${encodeURIComponent(password)}@${encodeURIComponent(host)}:${port}/${database}`;

export interface TestDatabase {
  name: string;
  superuser: PostgresTarget;
  owner: PostgresTarget;
  application: PostgresTarget;
  query<T extends pg.QueryResultRow>(sql: string, values?: unknown[]): Promise<T[]>;
  drop(): Promise<void>;
}

/** A migrated database of one's own, copied from the template. `query` runs as the superuser. */
export async function createDatabase(): Promise<TestDatabase> {
  const { superuser, owner, application } = environment();
  const name = `t_${randomUUID().replaceAll('-', '')}`;
  const admin = async (sql: string) => {
    const client = new pg.Client({ ...superuser, database: 'postgres' });
    await client.connect();
    await client.query(sql).finally(() => client.end());
  };
  // Copying needs a template that nobody is connected to; test files that start together take turns.
  for (let attempt = 0; ; attempt++) {
    try {
      await admin(`CREATE DATABASE ${name} TEMPLATE ${superuser.database} OWNER ${owner.user}`);
      break;
    } catch (error) {
      if ((error as { code?: string }).code !== '55006' || attempt > 50) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  await admin(`REVOKE ALL ON DATABASE ${name} FROM PUBLIC; GRANT CONNECT ON DATABASE ${name} TO ${application.user}`);
  const pool = new pg.Pool({ ...superuser, database: name, max: 2 });
  pool.on('error', () => undefined);
  return {
    name,
    superuser: { ...superuser, database: name },
    owner: { ...owner, database: name },
    application: { ...application, database: name },
    query: async (sql, values) => (await pool.query(sql, values)).rows,
    drop: async () => {
      await pool.end();
      await admin(`DROP DATABASE ${name} WITH (FORCE)`);
    },
  };
}

/** A folder of one's own, removed with the run. PostgreSQL's user can reach it: else its data would go to /var/lib, and stay there. */
export function temporaryFolder(prefix: string): string {
  const folder = mkdtempSync(path.join(environment().base, prefix));
  chmodSync(folder, 0o755);
  return folder;
}

export const dataDir = () => temporaryFolder('data-dir-');
