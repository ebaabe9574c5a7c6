import type { MigrationInterface, QueryRunner } from 'typeorm';

/**
 * Single tokens can be revoked, tokens can be introspected, and accounts can ask for the audiences of other APIs. A line of a single
 * token may go once the token has expired by itself: nothing else would ever bound them.
 */
export class TokenRevocations1763800003000 implements MigrationInterface {
  async up(q: QueryRunner): Promise<void> {
    await q.query(`
      CREATE OR REPLACE FUNCTION revocation_refuse_delete() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF OLD.kind = 'token' AND OLD.matters_until < clock_timestamp() THEN RETURN OLD; END IF;
        RAISE EXCEPTION 'what was revoked stays revoked' USING ERRCODE = 'restrict_violation';
      END $$;
      CREATE INDEX revocation_token_idx ON revocation (organization_id, matters_until) WHERE kind = 'token';
      ALTER TABLE service_account ADD COLUMN resources text[] NOT NULL DEFAULT '{}';
      INSERT INTO scope (name, description, built_in)
        VALUES ('tokens:introspect', 'Introspect tokens that were presented to an API of one''s own', true)
        ON CONFLICT (name) DO UPDATE SET description = EXCLUDED.description, built_in = true;`);
  }

  async down(q: QueryRunner): Promise<void> {
    await q.query(`
      DELETE FROM scope WHERE name = 'tokens:introspect';
      ALTER TABLE service_account DROP COLUMN resources;
      DROP INDEX revocation_token_idx;
      CREATE OR REPLACE FUNCTION revocation_refuse_delete() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        RAISE EXCEPTION 'what was revoked stays revoked' USING ERRCODE = 'restrict_violation';
      END $$;`);
  }
}
