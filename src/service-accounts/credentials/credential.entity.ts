import {
  Check,
  Column,
  CreateDateColumn,
  Entity,
  ForeignKey,
  Index,
  JoinColumn,
  ManyToOne,
  PrimaryColumn,
  Unique,
} from 'typeorm';
import { Membership } from '../../organizations/membership.entity.js';
import { User } from '../../organizations/user.entity.js';
import { ServiceAccount } from '../service-account.entity.js';
import type { KeyAlgorithm, PublicJwk } from './read-public-key.js';

const OF_ACCOUNT = 'credential_service_account_id_fkey';
const OF_MEMBERSHIP = 'credential_membership_id_fkey';

/** What proves to be somebody: one row each, whatever its kind. What only one kind has is null in the others. */
@Entity('credential')
@Unique('credential_id_key', ['id'])
@Index('credential_service_account_id_idx', ['organizationId', 'serviceAccountId', 'kind', 'id'])
@Index('credential_membership_id_idx', ['organizationId', 'membershipId', 'kind', 'id'])
@Index('credential_user_id_idx', ['userId'])
@Unique('credential_kid_key', ['organizationId', 'serviceAccountId', 'kid'])
@Check(
  'credential_owner_check',
  'num_nonnulls(service_account_id, user_id) = 1 AND (membership_id IS NULL OR user_id IS NOT NULL)',
)
@Check('credential_secret_check', "kind <> 'secret' OR num_nulls(service_account_id, hint, hash, hash_key_id) = 0")
@Check(
  'credential_public_key_check',
  "kind <> 'public_key' OR num_nulls(service_account_id, public_jwk, algorithm, kid) = 0",
)
@Check(
  'credential_personal_access_token_check',
  "kind <> 'personal_access_token' OR (num_nulls(hint, hash, hash_key_id, scopes, era, epochs, expires_at) = 0 AND cardinality(epochs) = 2)",
)
export class Credential {
  @PrimaryColumn({ name: 'organization_id', type: 'uuid', primaryKeyConstraintName: 'credential_pkey' })
  organizationId: string;

  @PrimaryColumn({ type: 'uuid', primaryKeyConstraintName: 'credential_pkey' })
  id: string;

  /** Out of the table in `kinds.ts`. */
  @Column({ type: 'text' })
  kind: string;

  /** Whose it is: an account's, or a person's. */
  @Column({ name: 'service_account_id', type: 'uuid', nullable: true })
  serviceAccountId: string | null;

  @ForeignKey(() => User, { name: 'credential_user_id_fkey' })
  @Column({ name: 'user_id', type: 'uuid', nullable: true })
  userId: string | null;

  /** What the person was in the organization when it was made; null once that has ended. */
  @Column({ name: 'membership_id', type: 'uuid', nullable: true })
  membershipId: string | null;

  @ManyToOne(() => ServiceAccount, { nullable: true })
  @JoinColumn([
    { name: 'organization_id', referencedColumnName: 'organizationId', foreignKeyConstraintName: OF_ACCOUNT },
    { name: 'service_account_id', referencedColumnName: 'id', foreignKeyConstraintName: OF_ACCOUNT },
  ])
  serviceAccount?: ServiceAccount;

  @ManyToOne(() => Membership, { nullable: true, onDelete: 'SET NULL' })
  @JoinColumn([
    { name: 'organization_id', referencedColumnName: 'organizationId', foreignKeyConstraintName: OF_MEMBERSHIP },
    { name: 'membership_id', referencedColumnName: 'id', foreignKeyConstraintName: OF_MEMBERSHIP },
  ])
  membership?: Membership;

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

  /** Of a personal access token, as are the two below: what it may be used for, at most. */
  @Column({ type: 'text', array: true, nullable: true })
  scopes: string[] | null;

  /** The era, and the epochs of organization and owner, when it was made. */
  @Column({ type: 'integer', nullable: true })
  era: number | null;

  @Column({ type: 'integer', array: true, nullable: true })
  epochs: number[] | null;

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
