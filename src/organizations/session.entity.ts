import { Column, Entity, ForeignKey, Index, PrimaryColumn, Unique } from 'typeorm';
import { Organization } from './organization.entity.js';
import { User } from './user.entity.js';

export const IDLE_MS = 30 * 60_000;
export const ABSOLUTE_MS = 12 * 3_600_000;
/** Use is written down at most this often: a row that every request rewrites would cost more than the request. */
export const SEEN_EVERY_MS = 60_000;

/** A signed-in person at one browser, turned to one organization. The cookie's value is stored only as a keyed hash. */
@Entity('session')
@Unique('session_token_hash_key', ['tokenHash'])
@Index('session_user_id_idx', ['userId', 'id'])
@Index('session_organization_id_idx', ['organizationId'])
export class Session {
  @PrimaryColumn({ type: 'uuid', primaryKeyConstraintName: 'session_pkey' })
  id: string;

  @Column({ name: 'token_hash', type: 'bytea', select: false })
  tokenHash: Buffer;

  @Column({ name: 'hash_key_id', type: 'uuid', select: false })
  hashKeyId: string;

  @ForeignKey(() => User, { name: 'session_user_id_fkey' })
  @Column({ name: 'user_id', type: 'uuid' })
  userId: string;

  @ForeignKey(() => Organization, { name: 'session_organization_id_fkey' })
  @Column({ name: 'organization_id', type: 'uuid' })
  organizationId: string;

  @Column({ type: 'text', nullable: true })
  address: string | null;

  @Column({ name: 'user_agent', type: 'text', nullable: true })
  userAgent: string | null;

  @Column({ name: 'created_at', type: 'timestamptz' })
  createdAt: Date;

  /** When the person last proved who they are; step-up asks for this. */
  @Column({ name: 'authenticated_at', type: 'timestamptz' })
  authenticatedAt: Date;

  @Column({ name: 'last_seen_at', type: 'timestamptz' })
  lastSeenAt: Date;

  /** Twelve hours after sign-in, whatever happens. */
  @Column({ name: 'expires_at', type: 'timestamptz' })
  expiresAt: Date;

  @Column({ name: 'ended_at', type: 'timestamptz', nullable: true })
  endedAt: Date | null;
}

/** The one rule for whether a session lives. `now`: milliseconds by the database's clock. */
export const isSessionAlive = (
  session: { ended_at: Date | null; expires_at: Date; last_seen_at: Date },
  now: number,
): boolean =>
  session.ended_at === null && now < session.expires_at.getTime() && now < session.last_seen_at.getTime() + IDLE_MS;
