import { Check, Column, Entity, ForeignKey, Index, PrimaryColumn, Unique } from 'typeorm';
import { PLATFORM_ORGANIZATION } from '../kernel/actor.js';
import type { Role } from '../kernel/scope.js';
import { Organization } from './organization.entity.js';
import { User } from './user.entity.js';

export type MembershipStatus = 'active' | 'invited' | 'disabled';

/** The role whose last active member an organization keeps. */
export const adminRoleOf = (organizationId: string): Role =>
  organizationId === PLATFORM_ORGANIZATION ? 'platform_admin' : 'admin';

/** What a person is in one organization. Ended, it is deleted; coming back is a new one. */
@Entity('membership')
@Unique('membership_user_key', ['organizationId', 'userId'])
@Index('membership_user_id_idx', ['userId'])
@Check('membership_role_check', "role IN ('admin', 'auditor', 'platform_admin')")
export class Membership {
  @ForeignKey(() => Organization, { name: 'membership_organization_id_fkey' })
  @PrimaryColumn({ name: 'organization_id', type: 'uuid', primaryKeyConstraintName: 'membership_pkey' })
  organizationId: string;

  @PrimaryColumn({ type: 'uuid', primaryKeyConstraintName: 'membership_pkey' })
  id: string;

  @ForeignKey(() => User, { name: 'membership_user_id_fkey' })
  @Column({ name: 'user_id', type: 'uuid' })
  userId: string;

  @Column({ type: 'text' })
  role: Role;

  @Column({ name: 'created_at', type: 'timestamptz', default: () => 'now()' })
  createdAt: Date;

  /** Null: invited. Only the person can accept. */
  @Column({ name: 'accepted_at', type: 'timestamptz', nullable: true })
  acceptedAt: Date | null;

  @Column({ name: 'disabled_at', type: 'timestamptz', nullable: true })
  disabledAt: Date | null;

  get status(): MembershipStatus {
    if (this.disabledAt) return 'disabled';
    return this.acceptedAt ? 'active' : 'invited';
  }

  /** Whether it is one of those of which an organization keeps at least one. */
  get administers(): boolean {
    return this.status === 'active' && this.role === adminRoleOf(this.organizationId);
  }
}
