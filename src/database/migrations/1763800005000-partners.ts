import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What it takes that partners make and manage organizations of their own. */
export class Partners1763800005000 implements MigrationInterface {
  async up(q: QueryRunner): Promise<void> {
    await q.query(`
      -- Unique among siblings: across the platform, a refused name would tell a partner whom others have as customers.
      ALTER TABLE organization DROP CONSTRAINT organization_name_key;
      ALTER TABLE organization ADD CONSTRAINT organization_name_key UNIQUE NULLS NOT DISTINCT (parent_id, name);
      -- For which organization it was disabled. Null while it is disabled: the platform, which alone could until now.
      ALTER TABLE organization ADD COLUMN disabled_by uuid
        CONSTRAINT organization_disabled_by_fkey REFERENCES organization (id);`);
  }

  /** Fails, changing nothing, once two organizations have one name: which of them is renamed is for people to say. */
  async down(q: QueryRunner): Promise<void> {
    await q.query(`
      ALTER TABLE organization DROP COLUMN disabled_by;
      ALTER TABLE organization DROP CONSTRAINT organization_name_key;
      ALTER TABLE organization ADD CONSTRAINT organization_name_key UNIQUE (name);`);
  }
}
