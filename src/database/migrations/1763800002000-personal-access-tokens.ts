import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Credentials that are bearer tokens themselves, of an account or of a person: what a token says of itself stands in the row. */
export class PersonalAccessTokens1763800002000 implements MigrationInterface {
  async up(q: QueryRunner): Promise<void> {
    await q.query(`
      ALTER TABLE credential ALTER COLUMN service_account_id DROP NOT NULL,
        ADD COLUMN user_id uuid CONSTRAINT credential_user_id_fkey REFERENCES "user" (id),
        ADD COLUMN membership_id uuid,
        ADD COLUMN scopes text[],
        ADD COLUMN era integer,
        ADD COLUMN epochs integer[],
        -- A bearer token is looked up by its id alone.
        ADD CONSTRAINT credential_id_key UNIQUE (id),
        -- A membership that ends is deleted; the row stays as a record, with nothing left that it could hang on.
        ADD CONSTRAINT credential_membership_id_fkey FOREIGN KEY (organization_id, membership_id)
          REFERENCES membership (organization_id, id) ON DELETE SET NULL (membership_id),
        ADD CONSTRAINT credential_owner_check CHECK (num_nonnulls(service_account_id, user_id) = 1 AND (membership_id IS NULL OR user_id IS NOT NULL)),
        ADD CONSTRAINT credential_personal_access_token_check CHECK (kind <> 'personal_access_token'
          OR (num_nulls(hint, hash, hash_key_id, scopes, era, epochs, expires_at) = 0 AND cardinality(epochs) = 2));
      CREATE INDEX credential_membership_id_idx ON credential (organization_id, membership_id, kind, id);
      CREATE INDEX credential_user_id_idx ON credential (user_id);`);
  }

  async down(q: QueryRunner): Promise<void> {
    await q.query(`
      DELETE FROM credential WHERE kind = 'personal_access_token';
      DROP INDEX credential_user_id_idx, credential_membership_id_idx;
      ALTER TABLE credential DROP CONSTRAINT credential_personal_access_token_check, DROP CONSTRAINT credential_owner_check,
        DROP CONSTRAINT credential_membership_id_fkey, DROP CONSTRAINT credential_id_key,
        DROP COLUMN epochs, DROP COLUMN era, DROP COLUMN scopes, DROP COLUMN membership_id, DROP COLUMN user_id,
        ALTER COLUMN service_account_id SET NOT NULL;`);
  }
}
