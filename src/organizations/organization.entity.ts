import { Check, Column, Entity, ForeignKey, Index, PrimaryColumn, Unique } from 'typeorm';
import type { Target } from '../kernel/actor.js';

/** A client account of the platform; one of them is the platform itself. */
@Entity('organization')
@Unique('organization_name_key', ['name'])
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

  @ForeignKey(() => Organization, { name: 'organization_parent_id_fkey' })
  @Column({ name: 'parent_id', type: 'uuid', nullable: true })
  parentId: string | null;

  /** Null: no ceiling of its own; everything but `platform:*`. */
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

  /** What `allowedScopes` asks of an organization. */
  get bounds() {
    return { ceiling: this.scopeCeiling, platform: this.platform };
  }

  get target(): Target {
    return { type: 'organization', id: this.id, name: this.name };
  }
}
