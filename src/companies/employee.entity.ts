import { Column, CreateDateColumn, Entity, Index, JoinColumn, ManyToOne, PrimaryColumn, Unique } from 'typeorm';
import { Company } from './company.entity.js';

/** A person that a company's system pushed. */
@Entity('employee')
@Index('employee_company_id_idx', ['organizationId', 'companyId', 'id'])
@Index('employee_name_idx', { synchronize: false }) // on lower(name) and lower(email): expressions that TypeORM cannot state
@Index('employee_email_idx', { synchronize: false })
@Index('employee_department_idx', ['organizationId', 'companyId', 'department', 'id'])
@Index('employee_work_location_idx', ['organizationId', 'companyId', 'workLocation', 'id'])
@Index('employee_updated_at_idx', ['organizationId', 'companyId', 'updatedAt'])
@Unique('employee_external_id_key', ['organizationId', 'companyId', 'externalId'])
export class Employee {
  @PrimaryColumn({ name: 'organization_id', type: 'uuid', primaryKeyConstraintName: 'employee_pkey' })
  organizationId: string;

  @PrimaryColumn({ type: 'uuid', primaryKeyConstraintName: 'employee_pkey' })
  id: string;

  @Column({ name: 'company_id', type: 'uuid' })
  companyId: string;

  @ManyToOne(() => Company, { nullable: false })
  @JoinColumn([
    {
      name: 'organization_id',
      referencedColumnName: 'organizationId',
      foreignKeyConstraintName: 'employee_company_id_fkey',
    },
    { name: 'company_id', referencedColumnName: 'id', foreignKeyConstraintName: 'employee_company_id_fkey' },
  ])
  company?: Company;

  /** The id that the pushing system has for the person: a push that names it again is about the same employee. */
  @Column({ name: 'external_id', type: 'text', nullable: true })
  externalId: string | null;

  @Column({ type: 'text' })
  name: string;

  @Column({ type: 'text', nullable: true })
  email: string | null;

  @Column({ name: 'job_title', type: 'text', nullable: true })
  jobTitle: string | null;

  @Column({ type: 'text', nullable: true })
  department: string | null;

  @Column({ name: 'work_location', type: 'text', nullable: true })
  workLocation: string | null;

  @Column({ name: 'started_on', type: 'date', nullable: true })
  startedOn: string | null;

  /** The last day of who left. */
  @Column({ name: 'ended_on', type: 'date', nullable: true })
  endedOn: string | null;

  @Column({ name: 'created_by', type: 'uuid' })
  createdBy: string;

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz', default: () => 'now()' })
  createdAt: Date;

  @Column({ name: 'updated_at', type: 'timestamptz', default: () => 'now()' })
  updatedAt: Date;

  /** Counts its changes; the entity tag is made of it. */
  @Column({ type: 'integer', default: 1 })
  version: number;

  get target() {
    return { type: 'employee', id: this.id, name: this.name };
  }
}
