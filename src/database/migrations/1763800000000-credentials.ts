import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Secrets become one kind of credential among others, in one table: what holds for one holds for all. */
export class Credentials1763800000000 implements MigrationInterface {
  async up(q: QueryRunner): Promise<void> {
    await q.query(`
      ALTER TABLE secret RENAME TO credential;
      ALTER TABLE credential RENAME CONSTRAINT secret_pkey TO credential_pkey;
      ALTER TABLE credential RENAME CONSTRAINT secret_service_account_id_fkey TO credential_service_account_id_fkey;
      ALTER TABLE credential ADD COLUMN kind text NOT NULL DEFAULT 'secret';
      ALTER TABLE credential ALTER COLUMN kind DROP DEFAULT, ALTER COLUMN hint DROP NOT NULL,
        ALTER COLUMN hash DROP NOT NULL, ALTER COLUMN hash_key_id DROP NOT NULL,
        ADD CONSTRAINT credential_secret_check CHECK (kind <> 'secret' OR num_nulls(service_account_id, hint, hash, hash_key_id) = 0);
      DROP INDEX secret_service_account_id_idx;
      CREATE INDEX credential_service_account_id_idx ON credential (organization_id, service_account_id, kind, id);`);
  }

  async down(q: QueryRunner): Promise<void> {
    await q.query(`
      DELETE FROM credential WHERE kind <> 'secret';
      DROP INDEX credential_service_account_id_idx;
      ALTER TABLE credential DROP CONSTRAINT credential_secret_check;
      ALTER TABLE credential DROP COLUMN kind, ALTER COLUMN hint SET NOT NULL,
        ALTER COLUMN hash SET NOT NULL, ALTER COLUMN hash_key_id SET NOT NULL;
      ALTER TABLE credential RENAME CONSTRAINT credential_service_account_id_fkey TO secret_service_account_id_fkey;
      ALTER TABLE credential RENAME CONSTRAINT credential_pkey TO secret_pkey;
      ALTER TABLE credential RENAME TO secret;
      CREATE INDEX secret_service_account_id_idx ON secret (organization_id, service_account_id, id);`);
  }
}
