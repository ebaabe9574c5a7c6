import { Column, CreateDateColumn, Entity, Index, JoinColumn, ManyToOne, PrimaryColumn } from 'typeorm';
import { Company } from './company.entity.js';

/** A person that a company's system pushed. */
@Entity('employee')
@Index('employee_company_id_idx', ['organizationId', 'companyId', 'id'])
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

  @Column({ name: 'created_by', type: 'uuid' })
  createdBy: string;

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz', default: () => 'now()' })
  createdAt: Date;

  get target() {
    return { type: 'employee', id: this.id, name: this.name };
  }
}
