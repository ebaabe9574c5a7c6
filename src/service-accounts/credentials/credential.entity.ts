import { Check, Column, CreateDateColumn, Entity, Index, JoinColumn, ManyToOne, PrimaryColumn, Unique } from 'typeorm';
import { ServiceAccount } from '../service-account.entity.js';
import type { KeyAlgorithm, PublicJwk } from './read-public-key.js';

const OF_ACCOUNT = 'credential_service_account_id_fkey';

/** What proves to be somebody: one row each, whatever its kind. What only one kind has is null in the others. */
@Entity('credential')
@Index('credential_service_account_id_idx', ['organizationId', 'serviceAccountId', 'kind', 'id'])
@Unique('credential_kid_key', ['organizationId', 'serviceAccountId', 'kid'])
@Check('credential_secret_check', "kind <> 'secret' OR num_nulls(service_account_id, hint, hash, hash_key_id) = 0")
@Check(
  'credential_public_key_check',
  "kind <> 'public_key' OR num_nulls(service_account_id, public_jwk, algorithm, kid) = 0",
)
export class Credential {
  @PrimaryColumn({ name: 'organization_id', type: 'uuid', primaryKeyConstraintName: 'credential_pkey' })
  organizationId: string;

  @PrimaryColumn({ type: 'uuid', primaryKeyConstraintName: 'credential_pkey' })
  id: string;

  /** Out of the table in `kinds.ts`. */
  @Column({ type: 'text' })
  kind: string;

  @Column({ name: 'service_account_id', type: 'uuid' })
  serviceAccountId: string;

  @ManyToOne(() => ServiceAccount, { nullable: false })
  @JoinColumn([
    { name: 'organization_id', referencedColumnName: 'organizationId', foreignKeyConstraintName: OF_ACCOUNT },
    { name: 'service_account_id', referencedColumnName: 'id', foreignKeyConstraintName: OF_ACCOUNT },
  ])
  serviceAccount?: ServiceAccount;

  @Column({ type: 'text', default: '' })
  label: string;

  /** Of a secret value: the last four characters. */
  @Column({ type: 'text', nullable: true })
  hint: string | null;

  /** Of a secret value: its HMAC-SHA-256 under the key that `hash_key_id` names. The value is in one response and never again. */
  @Column({ type: 'bytea', nullable: true, select: false })
  hash: Buffer | null;

  @Column({ name: 'hash_key_id', type: 'uuid', nullable: true, select: false })
  hashKeyId: string | null;

  /** Of a public key: its public members, and the `kid` that it was given, if any. */
  @Column({ name: 'public_jwk', type: 'jsonb', nullable: true })
  publicJwk: PublicJwk | null;

  /** Of a public key: the one JWS algorithm that it verifies. */
  @Column({ type: 'text', nullable: true })
  algorithm: KeyAlgorithm | null;

  /** Of a public key: its RFC 7638 thumbprint. Those revoked count too: what was revoked never comes back. */
  @Column({ type: 'text', nullable: true })
  kid: string | null;

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
}
