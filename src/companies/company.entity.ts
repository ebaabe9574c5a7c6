import { Column, CreateDateColumn, Entity, ForeignKey, Index, PrimaryColumn, UpdateDateColumn } from 'typeorm';
import { Organization } from '../organizations/organization.entity.js';

/** V7: a company of one organization; `created_by` made it (D17). */
@Entity('company')
@Index('company_created_by_idx', ['organizationId', 'createdBy', 'id'])
@Index('company_name_idx', { synchronize: false }) // on lower(name): an expression that TypeORM cannot state
@Index('company_uen_code_idx', ['organizationId', 'uenCode', 'id'])
@Index('company_sector_idx', ['organizationId', 'sector', 'id'])
@Index('company_entity_type_idx', ['organizationId', 'entityType', 'id'])
@Index('company_updated_at_idx', ['organizationId', 'updatedAt'])
export class Company {
  @ForeignKey(() => Organization, { name: 'company_organization_id_fkey' })
  @PrimaryColumn({ name: 'organization_id', type: 'uuid', primaryKeyConstraintName: 'company_pkey' })
  organizationId: string;

  @PrimaryColumn({ type: 'uuid', primaryKeyConstraintName: 'company_pkey' })
  id: string;

  @Column({ type: 'text' })
  name: string;

  @Column({ name: 'uen_code', type: 'text', nullable: true })
  uenCode: string | null;

  @Column({ type: 'text', nullable: true })
  sector: string | null;

  @Column({ name: 'entity_type', type: 'text', nullable: true })
  entityType: string | null;

  @Column({ name: 'entity_sub_type', type: 'text', nullable: true })
  entitySubType: string | null;

  @Column({ name: 'work_locations', type: 'jsonb', default: [] })
  workLocations: string[];

  @Column({ type: 'jsonb', default: [] })
  departments: string[];

  /** The service account or person that made it. It stays when its creator is deleted. */
  @Column({ name: 'created_by', type: 'uuid' })
  createdBy: string;

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz', default: () => 'now()' })
  createdAt: Date;

  @UpdateDateColumn({ name: 'updated_at', type: 'timestamptz', default: () => 'now()' })
  updatedAt: Date;

  /** Counts its changes; the entity tag is made of it. */
  @Column({ type: 'integer', default: 1 })
  version: number;

  get target() {
    return { type: 'company', id: this.id, name: this.name };
  }
}
