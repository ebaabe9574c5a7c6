import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Rate limits of organizations, and what they have used of them. */
export class RateLimits1763800004000 implements MigrationInterface {
  async up(q: QueryRunner): Promise<void> {
    await q.query(`
      -- Both null: the default of the setting RATE_LIMIT.
      ALTER TABLE organization
        ADD COLUMN rate_limit integer,
        ADD COLUMN rate_limit_window_seconds integer,
        ADD CONSTRAINT organization_rate_limit_check CHECK (
          (rate_limit IS NULL) = (rate_limit_window_seconds IS NULL)
          AND rate_limit BETWEEN 1 AND 1000000 AND rate_limit_window_seconds BETWEEN 1 AND 3600);

      -- Not in the write-ahead log: a crash of the database begins windows anew, and nothing else hangs on it. One row for each length
      -- of window that an organization has had; a new window takes the place of the last.
      CREATE UNLOGGED TABLE rate_limit_window (
        organization_id uuid NOT NULL,
        window_seconds integer NOT NULL,
        starts_at timestamptz NOT NULL,
        used integer NOT NULL,
        CONSTRAINT rate_limit_window_pkey PRIMARY KEY (organization_id, window_seconds)
      ) WITH (fillfactor = 50);`);
  }

  async down(q: QueryRunner): Promise<void> {
    await q.query(`
      DROP TABLE rate_limit_window;
      ALTER TABLE organization
        DROP CONSTRAINT organization_rate_limit_check,
        DROP COLUMN rate_limit,
        DROP COLUMN rate_limit_window_seconds;`);
  }
}
