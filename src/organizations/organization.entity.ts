import { Check, Column, Entity, ForeignKey, Index, PrimaryColumn, Unique } from 'typeorm';
import type { Target } from '../kernel/actor.js';

/** A client account of the platform; one of them is the platform itself. */
@Entity('organization')
@Unique('organization_name_key', ['parentId', 'name'])
@Check(
  'organization_rate_limit_check',
  '(rate_limit IS NULL) = (rate_limit_window_seconds IS NULL) AND rate_limit BETWEEN 1 AND 1000000 AND rate_limit_window_seconds BETWEEN 1 AND 3600',
)
@Index('organization_parent_id_idx', ['parentId'])
@Index('organization_platform_key', ['platform'], { unique: true, where: 'platform' })
export class Organization {
  @PrimaryColumn({ type: 'uuid', primaryKeyConstraintName: 'organization_pkey' })
  id: string;

  @Column({ type: 'text' })
  name: string;

  /** Set when it is made and never changed: no organization comes to stand beneath itself, and what is beneath what stays so. */
  @ForeignKey(() => Organization, { name: 'organization_parent_id_fkey' })
  @Column({ name: 'parent_id', type: 'uuid', nullable: true })
  parentId: string | null;

  /** Its own; null: none. What may be used is within those of all organizations above it too: `boundsOf` in lineage.ts. */
  @Column({ name: 'scope_ceiling', type: 'text', array: true, nullable: true })
  scopeCeiling: string[] | null;

  /** Requests in a window. Null: the default of the setting. */
  @Column({ name: 'rate_limit', type: 'integer', nullable: true })
  rateLimitRequests: number | null;

  @Column({ name: 'rate_limit_window_seconds', type: 'integer', nullable: true })
  rateLimitWindowSeconds: number | null;

  @Column({ type: 'boolean', default: false })
  platform: boolean;

  @Column({ name: 'created_at', type: 'timestamptz', default: () => 'now()' })
  createdAt: Date;

  @Column({ name: 'disabled_at', type: 'timestamptz', nullable: true })
  disabledAt: Date | null;

  /** The organization that disabled it, or one above that, may enable it. Null while it is disabled: the platform. */
  @ForeignKey(() => Organization, { name: 'organization_disabled_by_fkey' })
  @Column({ name: 'disabled_by', type: 'uuid', nullable: true })
  disabledBy: string | null;

  get target(): Target {
    return { type: 'organization', id: this.id, name: this.name };
  }
}
