import type pg from 'pg';

export interface PostgresTarget {
  host: string;
  port: number;
  user: string;
  password: string;
  database: string;
}

/** Who may do what in the embedded database. The superuser opens the door; the service itself never works as it. */
export const ROLES = { superuser: 'postgres', owner: 'gatehouse_owner', application: 'gatehouse' } as const;
export type Role = keyof typeof ROLES;
export type Passwords = Record<Role, string>;

export const DATABASE = 'gatehouse';
export const PORT = 5432; // only names the socket; nothing listens on TCP

export const targetOf = (role: Role, socketDir: string, password: string): PostgresTarget => ({
  host: socketDir,
  port: PORT,
  user: ROLES[role],
  password,
  database: DATABASE,
});

/**
 * Roles, passwords and rights as they should be, whatever an interrupted start left. `open` gives a new client of the
 * superuser for the database it is told.
 */
export async function prepareDatabase(open: (database: string) => pg.Client, passwords: Passwords): Promise<void> {
  const { owner, application } = ROLES;
  await execute(open('postgres'), async (client) => {
    const { rows } = await client.query('SELECT rolname AS name FROM pg_roles');
    await client.query('BEGIN');
    for (const role of ['owner', 'application'] as const) {
      if (!rows.some(({ name }) => name === ROLES[role])) await client.query(`CREATE ROLE ${ROLES[role]}`);
      await client.query(
        `ALTER ROLE ${ROLES[role]} LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS
         PASSWORD ${client.escapeLiteral(passwords[role])}`,
      );
    }
    await client.query('REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC');
    await client.query('COMMIT');
    const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [DATABASE]);
    if (!rowCount) await client.query(`CREATE DATABASE ${DATABASE} OWNER ${owner}`);
    await client.query(
      `ALTER DATABASE ${DATABASE} OWNER TO ${owner};
       REVOKE CONNECT, TEMPORARY ON DATABASE ${DATABASE} FROM PUBLIC;
       GRANT CONNECT ON DATABASE ${DATABASE} TO ${application}`,
    );
  });
  await execute(open(DATABASE), (client) =>
    client.query(
      `ALTER SCHEMA public OWNER TO ${owner};
       REVOKE ALL ON SCHEMA public FROM PUBLIC, ${application};
       GRANT USAGE ON SCHEMA public TO ${application}`,
    ),
  );
}

async function execute(client: pg.Client, work: (client: pg.Client) => Promise<unknown>): Promise<void> {
  await client.connect();
  try {
    await client.query("SET log_min_error_statement = 'panic'"); // statements here hold passwords
    await work(client);
  } finally {
    await client.end();
  }
}
