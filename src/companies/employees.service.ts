import { Injectable } from '@nestjs/common';
import { DataSource, type EntityManager, In } from 'typeorm';
import { assertMatches, type EntityTags } from '../access/entity-tag.js';
import { brokenConstraint, Changes, type Outcome } from '../changes/changes.js';
import type { Caller } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { isUuid, uuidv7 } from '../kernel/ids.js';
import { type FieldError, problem } from '../kernel/problem.js';
import { beginningWith } from '../kernel/text.js';
import { Companies } from './companies.service.js';
import type { Company } from './company.entity.js';
import { Employee } from './employee.entity.js';

export type EmployeeFields = Pick<
  Employee,
  'externalId' | 'name' | 'email' | 'jobTitle' | 'department' | 'workLocation' | 'startedOn' | 'endedOn'
>;
export type PushedFields = Partial<EmployeeFields> & Pick<EmployeeFields, 'name'>;

/** The fields, under their names on the wire. */
const FIELDS: [keyof EmployeeFields, string][] = [
  ['externalId', 'external_id'],
  ['name', 'name'],
  ['email', 'email'],
  ['jobTitle', 'job_title'],
  ['department', 'department'],
  ['workLocation', 'work_location'],
  ['startedOn', 'started_on'],
  ['endedOn', 'ended_on'],
];

export interface EmployeeFilter {
  /** What the name or the e-mail address begins with, in any case. */
  search?: string;
  /** In any case. */
  email?: string;
  department?: string;
  workLocation?: string;
  externalId?: string;
  /** Inclusive. */
  updatedSince?: Date;
}

export type Effect = 'created' | 'updated' | 'unchanged';
export interface Push {
  employee: Employee;
  effect: Effect;
  /** Names on the wire of what changed. */
  changed: string[];
}
export type BatchedPush = Pick<Employee, 'id'> & { externalId: string; effect: Effect };

/**
 * The employees of companies. Whoever may reach the company may reach them. Every change locks the company: pushes to one company
 * take turns, so that two of the same person neither deadlock nor make two, and its lists hold still.
 */
@Injectable()
export class Employees {
  constructor(
    private readonly database: DataSource,
    private readonly companies: Companies,
    private readonly changes: Changes,
    private readonly clock: Clock,
  ) {}

  /** Oldest first, after the id `after`. Every filter has its index. */
  async list(
    caller: Caller,
    companyId: string,
    filter: EmployeeFilter,
    limit: number,
    after?: string,
  ): Promise<Employee[]> {
    const { organizationId } = await this.companies.get(caller, companyId);
    const query = this.database.manager
      .createQueryBuilder(Employee, 'employee')
      .where({ organizationId, companyId })
      .orderBy('employee.id')
      .limit(limit);
    const { search, ...rest } = filter;
    if (search !== undefined)
      query.andWhere('(lower(employee.name) LIKE lower(:search) OR lower(employee.email) LIKE lower(:search))', {
        search: beginningWith(search),
      });
    if (rest.email !== undefined) query.andWhere('lower(employee.email) = lower(:email)', rest);
    if (rest.department !== undefined) query.andWhere('employee.department = :department', rest);
    if (rest.workLocation !== undefined) query.andWhere('employee.workLocation = :workLocation', rest);
    if (rest.externalId !== undefined) query.andWhere('employee.externalId = :externalId', rest);
    if (rest.updatedSince !== undefined) query.andWhere('employee.updatedAt >= :updatedSince', rest);
    if (after !== undefined) query.andWhere('employee.id > :after', { after });
    return query.getMany();
  }

  /** Throws not_found. */
  async get(caller: Caller, companyId: string, id: string): Promise<Employee> {
    return find(this.database.manager, await this.companies.get(caller, companyId), id);
  }

  /** Makes an employee, or changes the one of this `externalId`. Throws validation_failed for what does not fit the company. */
  push(caller: Caller, companyId: string, fields: PushedFields): Promise<Outcome<Push>> {
    return this.changes.run(caller, async (change) => {
      const company = await this.companies.get(caller, companyId, change.tx, true);
      const [push] = await this.apply(change.tx, caller, company, [fields]);
      const { employee, effect, changed } = push;
      const targets = [employee.target, company.target];
      if (effect === 'created') change.record({ action: 'employee.created', targets });
      if (effect === 'updated') change.record({ action: 'employee.updated', targets, changes: namesOf(changed) });
      return push;
    });
  }

  /** All of them, each by its `externalId`, or none. Throws validation_failed with the index of each that does not fit. */
  pushAll(
    caller: Caller,
    companyId: string,
    batch: readonly PushedFields[],
  ): Promise<Outcome<{ pushes: BatchedPush[] }>> {
    return this.changes.run(caller, async (change) => {
      const company = await this.companies.get(caller, companyId, change.tx, true);
      const pushes = await this.apply(change.tx, caller, company, batch, 'employees');
      const made = pushes.filter(({ effect }) => effect === 'created').length;
      const changed = pushes.filter(({ effect }) => effect !== 'unchanged').map(({ employee }) => employee.target);
      if (changed.length > 0)
        change.record({
          action: 'employee.pushed',
          targets: [company.target, ...changed],
          changes: { created: { to: made }, updated: { to: changed.length - made } },
        });
      return {
        pushes: pushes.map(({ employee: { id, externalId }, effect }) => ({ id, externalId: externalId!, effect })),
      };
    });
  }

  /** Throws precondition_failed, external_id_taken, validation_failed. */
  update(
    caller: Caller,
    companyId: string,
    id: string,
    fields: Partial<EmployeeFields>,
    ifMatch?: EntityTags,
  ): Promise<Outcome<Employee>> {
    return this.changes.run(caller, async (change) => {
      const company = await this.companies.get(caller, companyId, change.tx, true);
      const employee = await find(change.tx, company, id);
      assertMatches(ifMatch, employee);
      const { target } = employee;
      const changed = assign(employee, fields);
      if (changed.length === 0) return employee;
      assertNone(misfits(company, employee, fields));
      await this.write(change.tx, [employee]);
      change.record({ action: 'employee.updated', targets: [target, company.target], changes: namesOf(changed) });
      return employee;
    });
  }

  /** Nothing is kept of the employee but the name in the events. Who merely left has an `endedOn`. */
  async remove(caller: Caller, companyId: string, id: string, ifMatch?: EntityTags): Promise<void> {
    await this.changes.run(caller, async (change) => {
      const company = await this.companies.get(caller, companyId, change.tx, true);
      const employee = await find(change.tx, company, id);
      assertMatches(ifMatch, employee);
      await change.tx.delete(Employee, { organizationId: employee.organizationId, id });
      change.record({ action: 'employee.deleted', targets: [employee.target, company.target] });
      return undefined;
    });
  }

  /** Writes what differs of a batch, to a locked company. `name` is the batch's own on the wire; a push of one has none. */
  private async apply(
    tx: EntityManager,
    caller: Caller,
    company: Company,
    batch: readonly PushedFields[],
    name?: string,
  ): Promise<Push[]> {
    const ids = batch.flatMap(({ externalId }) => externalId ?? []);
    const there = ids.length > 0 ? await tx.findBy(Employee, { ...keyOf(company), externalId: In(ids) }) : [];
    const known = new Map(there.map((employee) => [employee.externalId!, employee]));
    const seen = new Set<string>();
    const errors: FieldError[] = [];
    const pushes = batch.map((fields, index): Push => {
      const path = name ? `${name}.${index}.` : '';
      const { externalId } = fields;
      if (externalId && seen.has(externalId))
        errors.push({ field: `${path}external_id`, message: 'external_id is that of an employee before it' });
      if (externalId) seen.add(externalId);
      const before = externalId ? known.get(externalId) : undefined;
      const employee = before ?? this.make(tx, caller, company);
      const changed = assign(employee, fields);
      errors.push(...misfits(company, employee, fields, path));
      return { employee, changed, effect: before ? (changed.length > 0 ? 'updated' : 'unchanged') : 'created' };
    });
    assertNone(errors);
    await this.write(
      tx,
      pushes.filter(({ effect }) => effect !== 'unchanged').map(({ employee }) => employee),
    );
    return pushes;
  }

  private make(tx: EntityManager, caller: Caller, company: Company): Employee {
    return tx.create(Employee, {
      ...keyOf(company),
      ...Object.fromEntries(FIELDS.map(([field]) => [field, null])),
      id: uuidv7(this.clock.now()),
      createdBy: caller.actor.id!,
      version: 0,
    });
  }

  /** Those that are new and those that are not in one statement, however many they are. */
  private async write(tx: EntityManager, employees: Employee[]): Promise<void> {
    if (employees.length === 0) return;
    const now = new Date(this.clock.now());
    for (const employee of employees) {
      employee.version++;
      employee.createdAt ??= now;
      employee.updatedAt = now;
    }
    const written = [...FIELDS.map(([, column]) => column), 'version', 'updated_at'];
    const insert = tx.createQueryBuilder().insert().into(Employee).values(employees);
    try {
      await insert.orUpdate(written, ['organization_id', 'id']).updateEntity(false).execute();
    } catch (error) {
      if (brokenConstraint(error) === 'employee_external_id_key') throw problem('external_id_taken', { cause: error });
      throw error;
    }
  }
}

const keyOf = ({ organizationId, id }: Company) => ({ organizationId, companyId: id });

async function find(tx: EntityManager, company: Company, id: string): Promise<Employee> {
  const employee = isUuid(id) ? await tx.findOneBy(Employee, { ...keyOf(company), id }) : null;
  if (!employee) throw problem('not_found');
  return employee;
}

/** Takes over the fields that are given; what is left out stays. Returns the names on the wire of those that changed. */
function assign(employee: Employee, fields: Partial<EmployeeFields>): string[] {
  const different = FIELDS.filter(([field]) => fields[field] !== undefined && fields[field] !== employee[field]);
  for (const [field] of different) Object.assign(employee, { [field]: fields[field] });
  return different.map(([, name]) => name);
}

/** What of the given fields does not fit the company, or what else is known of the employee. */
function misfits(company: Company, employee: Employee, given: Partial<EmployeeFields>, path = ''): FieldError[] {
  const errors: FieldError[] = [];
  const refuse = (field: string, message: string) =>
    errors.push({ field: path + field, message: `${field} ${message}` });
  const unlisted = (list: readonly string[], name: string | null | undefined) =>
    list.length > 0 && name && !list.includes(name);
  if (unlisted(company.departments, given.department)) refuse('department', "must be one of the company's departments");
  if (unlisted(company.workLocations, given.workLocation))
    refuse('work_location', "must be one of the company's work_locations");
  const { startedOn, endedOn } = employee;
  if (startedOn && endedOn && endedOn < startedOn) refuse('ended_on', 'must not lie before started_on');
  return errors;
}

function assertNone(errors: FieldError[]): void {
  if (errors.length > 0) throw problem('validation_failed', { errors });
}

/** An event says which fields changed. Their values are the person's own, and an event is there for good. */
const namesOf = (changed: readonly string[]) => Object.fromEntries(changed.map((name) => [name, {}]));
