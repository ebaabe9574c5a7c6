import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Public keys as credentials (RFC 7523), and the `jti` of every assertion for as long as it could be used again. */
export class PublicKeys1763800001000 implements MigrationInterface {
  async up(q: QueryRunner): Promise<void> {
    await q.query(`
      ALTER TABLE credential ADD COLUMN public_jwk jsonb, ADD COLUMN algorithm text, ADD COLUMN kid text,
        ADD CONSTRAINT credential_public_key_check CHECK (kind <> 'public_key' OR num_nulls(service_account_id, public_jwk, algorithm, kid) = 0),
        ADD CONSTRAINT credential_kid_key UNIQUE (organization_id, service_account_id, kid);
      CREATE TABLE assertion_jti (
        service_account_id uuid NOT NULL,
        jti_hash bytea NOT NULL,
        expires_at timestamptz NOT NULL,
        CONSTRAINT assertion_jti_pkey PRIMARY KEY (service_account_id, jti_hash)
      );
      CREATE INDEX assertion_jti_expires_at_idx ON assertion_jti (expires_at);`);
  }

  async down(q: QueryRunner): Promise<void> {
    await q.query(`
      DROP TABLE assertion_jti;
      DELETE FROM credential WHERE kind = 'public_key';
      ALTER TABLE credential DROP CONSTRAINT credential_kid_key, DROP CONSTRAINT credential_public_key_check,
        DROP COLUMN kid, DROP COLUMN algorithm, DROP COLUMN public_jwk;`);
  }
}
