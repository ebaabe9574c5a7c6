import { Injectable } from '@nestjs/common';
import { DataSource, type EntityManager, type SelectQueryBuilder } from 'typeorm';
import { assertMatches, type EntityTags } from '../access/entity-tag.js';
import { Changes, type Outcome } from '../changes/changes.js';
import type { Caller } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { isUuid, uuidv7 } from '../kernel/ids.js';
import { problem } from '../kernel/problem.js';
import { beginningWith } from '../kernel/text.js';
import { Company } from './company.entity.js';
import { Employee } from './employee.entity.js';

export type CompanyFields = Pick<
  Company,
  'name' | 'uenCode' | 'sector' | 'entityType' | 'entitySubType' | 'workLocations' | 'departments'
>;

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

export interface CompanyFilter {
  /** What the name begins with, in any case. */
  name?: string;
  uenCode?: string;
  sector?: string;
  entityType?: string;
  /** Inclusive. */
  updatedSince?: Date;
}

@Injectable()
export class Companies {
  constructor(
    private readonly database: DataSource,
    private readonly changes: Changes,
    private readonly clock: Clock,
  ) {}

  /** Those that the caller may reach, oldest first, after the id `after`. Every filter has its index. */
  list(caller: Caller, filter: CompanyFilter, limit: number, after?: string): Promise<Company[]> {
    const query = reachable(this.database.manager, caller).orderBy('company.id').limit(limit);
    const { name, ...rest } = filter;
    if (name !== undefined) query.andWhere('lower(company.name) LIKE lower(:name)', { name: beginningWith(name) });
    if (rest.uenCode !== undefined) query.andWhere('company.uenCode = :uenCode', rest);
    if (rest.sector !== undefined) query.andWhere('company.sector = :sector', rest);
    if (rest.entityType !== undefined) query.andWhere('company.entityType = :entityType', rest);
    if (rest.updatedSince !== undefined) query.andWhere('company.updatedAt >= :updatedSince', rest);
    if (after !== undefined) query.andWhere('company.id > :after', { after });
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
        AUDITED.filter(([field]) => fields[field] != null).map(([field, name]) => [name, { to: fields[field] }]),
      );
      change.record({ action: 'company.created', targets: [company.target], changes });
      return this.get(caller, company.id, change.tx);
    });
  }

  /** Throws precondition_failed; in_use, when employees still have what is taken off a list. */
  update(caller: Caller, id: string, fields: Partial<CompanyFields>, ifMatch?: EntityTags): Promise<Outcome<Company>> {
    return this.changes.run(caller, async (change) => {
      const company = await this.get(caller, id, change.tx, true);
      assertMatches(ifMatch, company);
      const { target } = company;
      const different = AUDITED.filter(
        ([field]) => fields[field] !== undefined && JSON.stringify(fields[field]) !== JSON.stringify(company[field]),
      );
      if (different.length === 0) return company;
      const changes = Object.fromEntries(
        different.map(([field, name]) => [name, { from: company[field], to: fields[field] }]),
      );
      for (const [field] of different) Object.assign(company, { [field]: fields[field] });
      if (changes.departments) await assertUnused(change.tx, company, 'department', company.departments);
      if (changes.work_locations) await assertUnused(change.tx, company, 'workLocation', company.workLocations);
      company.version++;
      await change.tx.save(company);
      change.record({ action: 'company.updated', targets: [target], changes });
      return company;
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

/** A company that lists departments or work locations lists those of all its employees. One that lists none leaves them free. */
async function assertUnused(
  tx: EntityManager,
  { organizationId, id: companyId }: Company,
  field: 'department' | 'workLocation',
  listed: readonly string[],
): Promise<void> {
  if (listed.length === 0) return;
  const elsewhere = await tx
    .createQueryBuilder(Employee, 'employee')
    .where({ organizationId, companyId })
    .andWhere(`employee.${field} <> ALL (:listed)`, { listed })
    .getExists();
  const [name, parameter] =
    field === 'department' ? ['departments', 'department'] : ['work_locations', 'work_location'];
  if (elsewhere)
    throw problem(
      'in_use',
      `Employees have ${name} that are not listed: the ${parameter} filter of employees finds them`,
    );
}
