import { Column, CreateDateColumn, Entity, Index, JoinColumn, ManyToOne, PrimaryColumn } from 'typeorm';
import { ServiceAccount } from './service-account.entity.js';

/** A client secret. What is stored is a keyed hash; the secret itself is in one response and never again. */
@Entity('secret')
@Index('secret_service_account_id_idx', ['organizationId', 'serviceAccountId', 'id'])
export class Secret {
  @PrimaryColumn({ name: 'organization_id', type: 'uuid', primaryKeyConstraintName: 'secret_pkey' })
  organizationId: string;

  @PrimaryColumn({ type: 'uuid', primaryKeyConstraintName: 'secret_pkey' })
  id: string;

  @Column({ name: 'service_account_id', type: 'uuid' })
  serviceAccountId: string;

  @ManyToOne(() => ServiceAccount, { nullable: false })
  @JoinColumn([
    {
      name: 'organization_id',
      referencedColumnName: 'organizationId',
      foreignKeyConstraintName: 'secret_service_account_id_fkey',
    },
    {
      name: 'service_account_id',
      referencedColumnName: 'id',
      foreignKeyConstraintName: 'secret_service_account_id_fkey',
    },
  ])
  serviceAccount?: ServiceAccount;

  @Column({ type: 'text', default: '' })
  label: string;

  /** The last four characters. */
  @Column({ type: 'text' })
  hint: string;

  /** HMAC-SHA-256 of the secret under the key that `hash_key_id` names. */
  @Column({ type: 'bytea', select: false })
  hash: Buffer;

  @Column({ name: 'hash_key_id', type: 'uuid', select: false })
  hashKeyId: string;

  @Column({ name: 'created_by_type', type: 'text' })
  createdByType: string;

  @Column({ name: 'created_by_id', type: 'uuid', nullable: true })
  createdById: string | null;

  /** The creator's name at that moment. */
  @Column({ name: 'created_by_name', type: 'text' })
  createdByName: string;

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz', default: () => 'now()' })
  createdAt: Date;

  @Column({ name: 'expires_at', type: 'timestamptz', nullable: true })
  expiresAt: Date | null;

  @Column({ name: 'revoked_at', type: 'timestamptz', nullable: true })
  revokedAt: Date | null;

  get target() {
    return { type: 'secret', id: this.id, name: this.label ? `${this.label} (…${this.hint})` : `…${this.hint}` };
  }
}
