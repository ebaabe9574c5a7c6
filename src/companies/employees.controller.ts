import { Body, Controller, Delete, Get, HttpCode, Param, Patch, Post, Query, Res } from '@nestjs/common';
import {
  ApiCreatedResponse,
  ApiNoContentResponse,
  ApiOkResponse,
  ApiOperation,
  ApiProperty,
  ApiTags,
  OmitType,
  PartialType,
} from '@nestjs/swagger';
import { Type } from 'class-transformer';
import { ArrayMaxSize, ArrayMinSize, IsArray, IsEmail, IsObject, MaxLength, ValidateNested } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, RequireScopes } from '../access/access.js';
import { type EntityTags, ETAG, IfMatch, IfNoneMatch, tagged } from '../access/entity-tag.js';
import { IsDay, IsDisplayName, IsInstant, IsLine, Nullable, Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import { created } from '../access/replay.js';
import type { Caller } from '../kernel/actor.js';
import { Cursors } from '../keyring/cursors.js';
import type { Employee } from './employee.entity.js';
import { Employees, type PushedFields } from './employees.service.js';

export class PushEmployee {
  /** The id that the pushing system has for the employee, unique in the company. */
  @Nullable()
  @IsLine(128)
  external_id?: string | null;

  @IsDisplayName()
  name: string;

  @Nullable()
  @IsEmail()
  @MaxLength(254)
  email?: string | null;

  @Nullable()
  @IsLine(128)
  job_title?: string | null;

  /** One of the company's departments, when it lists any. */
  @Nullable()
  @IsLine(256)
  department?: string | null;

  /** One of the company's work locations, when it lists any. */
  @Nullable()
  @IsLine(256)
  work_location?: string | null;

  @Nullable()
  @IsDay()
  started_on?: string | null;

  /** The last day of who left. */
  @Nullable()
  @IsDay()
  ended_on?: string | null;
}

export class UpdateEmployee extends PartialType(PushEmployee, { skipNullProperties: false }) {}

export class BatchedEmployee extends OmitType(PushEmployee, ['external_id']) {
  /** The id that the pushing system has for the employee, unique in the company. */
  @IsLine(128)
  external_id: string;
}

export class PushEmployees {
  /** Each with an `external_id` of its own. */
  @IsArray()
  @ArrayMinSize(1)
  @ArrayMaxSize(100) // they fit into a body; checking them takes some 20 ms, in which nobody else is answered
  @IsObject({ each: true }) // else an array would pass for an employee without fields
  @ValidateNested({ each: true })
  @Type(() => BatchedEmployee)
  employees: BatchedEmployee[];
}

export class EmployeeQuery extends PageQuery {
  /** Finds names and e-mail addresses that begin so, in any case. */
  @Omittable()
  @IsLine(200)
  search?: string;

  /** In any case. */
  @Omittable()
  @IsLine(254)
  email?: string;

  @Omittable()
  @IsLine(256)
  department?: string;

  @Omittable()
  @IsLine(256)
  work_location?: string;

  @Omittable()
  @IsLine(128)
  external_id?: string;

  /** Made or changed at that moment or later. RFC 3339. Ask for a minute more than needed: a change is dated when it begins. */
  @Omittable()
  @IsInstant()
  updated_since?: string;
}

export class EmployeeView {
  id: string;
  company_id: string;
  external_id: string | null;
  name: string;
  email: string | null;
  job_title: string | null;
  department: string | null;
  work_location: string | null;
  @ApiProperty({ format: 'date' })
  started_on: string | null;
  @ApiProperty({ format: 'date' })
  ended_on: string | null;
  created_at: Date;
  updated_at: Date;
}

export class EmployeePage {
  data: EmployeeView[];
  next_cursor: string | null;
}

export class BatchedEmployeeView {
  id: string;
  external_id: string;
  @ApiProperty({ enum: ['created', 'updated', 'unchanged'] })
  result: string;
}

export class PushedEmployees {
  /** In the order of the request. */
  employees: BatchedEmployeeView[];
}

/** Employees are pushed from a system of the company's, again and again: a push of what is there already changes nothing. */
@ApiTags('Employees')
@Controller(['companies/:id/employees', 'api/v1/companies/:id/employees'])
export class EmployeesController {
  constructor(
    private readonly employees: Employees,
    private readonly cursors: Cursors,
  ) {}

  @Get()
  @RequireScopes('companies:read')
  @ApiOperation({ operationId: 'listEmployees', summary: "List a company's employees" })
  @ApiOkResponse({ type: EmployeePage })
  list(@CurrentCaller() caller: Caller, @Param('id') id: string, @Query() query: EmployeeQuery): Promise<EmployeePage> {
    const { limit: _limit, cursor: _cursor, ...filters } = query;
    const list = { route: 'employees', organization: caller.organizationId, actor: caller.actor.id, id, filters };
    const filter = {
      search: query.search,
      email: query.email,
      department: query.department,
      workLocation: query.work_location,
      externalId: query.external_id,
      updatedSince: query.updated_since === undefined ? undefined : new Date(query.updated_since),
    };
    return page(this.cursors, list, query, async (limit, after) =>
      (await this.employees.list(caller, id, filter, limit, after?.[0])).map(employeeView),
    );
  }

  @Post()
  @RequireScopes('employees:write')
  @ApiOperation({
    operationId: 'pushEmployee',
    summary: 'Push an employee to a company',
    description:
      'With an `external_id` that the company has already, it changes that employee (200): what is left out stays, null clears. Else it makes one (201).',
  })
  @ApiOkResponse({ type: EmployeeView, headers: ETAG })
  @ApiCreatedResponse({ type: EmployeeView, headers: ETAG })
  async push(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() body: PushEmployee,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<EmployeeView | undefined> {
    const { employee, effect } = created(reply, await this.employees.push(caller, id, pushedFields(body)));
    reply.code(effect === 'created' ? 201 : 200);
    return tagged(reply, employee, employeeView);
  }

  @Post('bulk')
  @HttpCode(200)
  @RequireScopes('employees:write')
  @ApiOperation({
    operationId: 'pushEmployees',
    summary: 'Push up to 100 employees to a company',
    description:
      'All of them or, when one is not valid, none; `errors` names it by its index: `employees.3.email`. Each is made, or changed as by ' +
      '`pushEmployee`, by its `external_id`. The same batch again changes nothing.',
  })
  @ApiOkResponse({ type: PushedEmployees })
  async pushAll(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() body: PushEmployees,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<PushedEmployees> {
    const { pushes } = created(reply, await this.employees.pushAll(caller, id, body.employees.map(pushedFields)));
    return {
      employees: pushes.map(({ id, externalId, effect }) => ({ id, external_id: externalId, result: effect })),
    };
  }

  @Get(':employee_id')
  @RequireScopes('companies:read')
  @ApiOperation({ operationId: 'getEmployee', summary: 'Read an employee' })
  @ApiOkResponse({ type: EmployeeView, headers: ETAG })
  async get(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Param('employee_id') employeeId: string,
    @IfNoneMatch() known: EntityTags,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<EmployeeView | undefined> {
    return tagged(reply, await this.employees.get(caller, id, employeeId), employeeView, known);
  }

  @Patch(':employee_id')
  @RequireScopes('employees:write')
  @ApiOperation({
    operationId: 'updateEmployee',
    summary: 'Change an employee',
    description: 'What is left out stays; null clears.',
  })
  @ApiOkResponse({ type: EmployeeView, headers: ETAG })
  async update(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Param('employee_id') employeeId: string,
    @Body() body: UpdateEmployee,
    @IfMatch() ifMatch: EntityTags,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<EmployeeView | undefined> {
    const { result } = await this.employees.update(caller, id, employeeId, employeeFields(body), ifMatch);
    return tagged(reply, result, employeeView);
  }

  @Delete(':employee_id')
  @HttpCode(204)
  @RequireScopes('employees:write')
  @ApiOperation({
    operationId: 'deleteEmployee',
    summary: 'Delete an employee',
    description: 'For who should not be here at all; who left has an `ended_on`. Events keep the name.',
  })
  @ApiNoContentResponse()
  delete(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Param('employee_id') employeeId: string,
    @IfMatch() ifMatch: EntityTags,
  ): Promise<void> {
    return this.employees.remove(caller, id, employeeId, ifMatch);
  }
}

const employeeFields = (body: Partial<PushEmployee>) => ({
  externalId: body.external_id,
  name: body.name,
  email: body.email,
  jobTitle: body.job_title,
  department: body.department,
  workLocation: body.work_location,
  startedOn: body.started_on,
  endedOn: body.ended_on,
});

const pushedFields = (body: PushEmployee): PushedFields => ({ ...employeeFields(body), name: body.name });

const employeeView = (employee: Employee): EmployeeView => ({
  id: employee.id,
  company_id: employee.companyId,
  external_id: employee.externalId,
  name: employee.name,
  email: employee.email,
  job_title: employee.jobTitle,
  department: employee.department,
  work_location: employee.workLocation,
  started_on: employee.startedOn,
  ended_on: employee.endedOn,
  created_at: employee.createdAt,
  updated_at: employee.updatedAt,
});
