import type { MigrationInterface, QueryRunner } from 'typeorm';
import { PLATFORM_ORGANIZATION } from '../../kernel/actor.js';

/** Keys can be revoked as credentials can, and instances say which master keys they have. */
export class Keys1763800007000 implements MigrationInterface {
  async up(q: QueryRunner): Promise<void> {
    await q.query(`
      ALTER TABLE keyring_key ADD COLUMN revoked_at timestamptz, ADD COLUMN revoked_reason text;

      -- Every token hangs on the key that it was made with. A trigger, so that no key comes without the row, whichever version adds it.
      CREATE FUNCTION keyring_key_register() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        INSERT INTO revocable (id, kind, organization_id) VALUES (NEW.id, 'key', '${PLATFORM_ORGANIZATION}');
        RETURN NULL;
      END $$;
      CREATE TRIGGER keyring_key_register AFTER INSERT ON keyring_key FOR EACH ROW EXECUTE FUNCTION keyring_key_register();
      INSERT INTO revocable (id, kind, organization_id)
        SELECT id, 'key', '${PLATFORM_ORGANIZATION}' FROM keyring_key ON CONFLICT DO NOTHING;

      -- Null: it reads them from the folder of the embedded database. An instance of an older version says nothing, and has none.
      ALTER TABLE instance ADD COLUMN master_key_ids text[] DEFAULT '{}';`);
  }

  /** The rows in `revocable` stay: what is revoked must not come back at epoch 0. */
  async down(q: QueryRunner): Promise<void> {
    await q.query(`
      ALTER TABLE instance DROP COLUMN master_key_ids;
      DROP TRIGGER keyring_key_register ON keyring_key;
      DROP FUNCTION keyring_key_register();
      ALTER TABLE keyring_key DROP COLUMN revoked_at, DROP COLUMN revoked_reason;`);
  }
}
