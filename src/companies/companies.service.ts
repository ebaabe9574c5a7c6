import { Injectable } from '@nestjs/common';
import { DataSource, type EntityManager, type SelectQueryBuilder } from 'typeorm';
import { Changes, type Outcome } from '../changes/changes.js';
import type { Caller } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { isUuid, uuidv7 } from '../kernel/ids.js';
import { problem } from '../kernel/problem.js';
import { Company } from './company.entity.js';
import { Employee } from './employee.entity.js';

export type CompanyFields = Pick<
  Company,
  'name' | 'uenCode' | 'sector' | 'entityType' | 'entitySubType' | 'workLocations' | 'departments'
>;
export type EmployeeFields = Pick<Employee, 'name' | 'email' | 'jobTitle' | 'department' | 'workLocation'>;

/** The fields that an event tells of, under their names on the wire. */
const AUDITED: [keyof CompanyFields, string][] = [
  ['name', 'name'],
  ['uenCode', 'uen_code'],
  ['sector', 'sector'],
  ['entityType', 'entity_type'],
  ['entitySubType', 'entity_sub_type'],
  ['workLocations', 'work_locations'],
  ['departments', 'departments'],
];

@Injectable()
export class Companies {
  constructor(
    private readonly database: DataSource,
    private readonly changes: Changes,
    private readonly clock: Clock,
  ) {}

  /** Those that the caller may reach, oldest first, after the id `after`. */
  list(caller: Caller, limit: number, after?: string): Promise<Company[]> {
    const query = reachable(this.database.manager, caller).orderBy('company.id').limit(limit);
    if (after) query.andWhere('company.id > :after', { after });
    return query.getMany();
  }

  /** Throws not_found, also for one that exists and is beyond the caller's reach. */
  async get(caller: Caller, id: string, tx: EntityManager = this.database.manager, lock = false): Promise<Company> {
    const query = reachable(tx, caller).andWhere('company.id = :id', { id });
    const company = isUuid(id) ? await (lock ? query.setLock('for_no_key_update') : query).getOne() : null;
    if (!company) throw problem('not_found');
    return company;
  }

  create(caller: Caller, fields: Partial<CompanyFields> & Pick<CompanyFields, 'name'>): Promise<Outcome<Company>> {
    return this.changes.run(caller, async (change) => {
      const company = change.tx.create(Company, {
        ...fields,
        organizationId: caller.organizationId,
        id: uuidv7(this.clock.now()),
        createdBy: caller.actor.id!,
      });
      await change.tx.insert(Company, company);
      const changes = Object.fromEntries(
        AUDITED.filter(([field]) => fields[field] !== undefined).map(([field, name]) => [name, { to: fields[field] }]),
      );
      change.record({ action: 'company.created', targets: [company.target], changes });
      return this.get(caller, company.id, change.tx);
    });
  }

  update(caller: Caller, id: string, fields: Partial<CompanyFields>): Promise<Outcome<Company>> {
    return this.changes.run(caller, async (change) => {
      const company = await this.get(caller, id, change.tx, true);
      const { target } = company;
      const different = AUDITED.filter(
        ([field]) => fields[field] !== undefined && JSON.stringify(fields[field]) !== JSON.stringify(company[field]),
      );
      if (different.length === 0) return company;
      const changes = Object.fromEntries(
        different.map(([field, name]) => [name, { from: company[field], to: fields[field] }]),
      );
      for (const [field] of different) Object.assign(company, { [field]: fields[field] });
      await change.tx.save(company);
      change.record({ action: 'company.updated', targets: [target], changes });
      return company;
    });
  }

  async listEmployees(caller: Caller, companyId: string, limit: number, after?: string): Promise<Employee[]> {
    await this.get(caller, companyId);
    const query = this.database.manager
      .createQueryBuilder(Employee, 'employee')
      .where('employee.organizationId = :organizationId AND employee.companyId = :companyId', {
        organizationId: caller.organizationId,
        companyId,
      })
      .orderBy('employee.id')
      .limit(limit);
    if (after) query.andWhere('employee.id > :after', { after });
    return query.getMany();
  }

  addEmployee(
    caller: Caller,
    companyId: string,
    fields: Partial<EmployeeFields> & Pick<EmployeeFields, 'name'>,
  ): Promise<Outcome<Employee>> {
    return this.changes.run(caller, async (change) => {
      const company = await this.get(caller, companyId, change.tx);
      const employee = change.tx.create(Employee, {
        ...fields,
        organizationId: caller.organizationId,
        id: uuidv7(this.clock.now()),
        companyId: company.id,
        createdBy: caller.actor.id!,
      });
      await change.tx.insert(Employee, employee);
      change.record({ action: 'employee.created', targets: [employee.target, company.target] });
      return change.tx.findOneByOrFail(Employee, { organizationId: employee.organizationId, id: employee.id });
    });
  }
}

/** D17: a service account reaches what it created itself (V3); a person all of the organization's. The one place that says so. */
function reachable(tx: EntityManager, caller: Caller): SelectQueryBuilder<Company> {
  const query = tx
    .createQueryBuilder(Company, 'company')
    .where('company.organizationId = :organizationId', { organizationId: caller.organizationId });
  return caller.actor.type === 'user'
    ? query
    : query.andWhere('company.createdBy = :createdBy', { createdBy: caller.actor.id });
}
