import { Body, Controller, Get, Param, Patch, Post, Query, Res } from '@nestjs/common';
import { ApiCreatedResponse, ApiOkResponse, ApiOperation, ApiTags, PartialType } from '@nestjs/swagger';
import { ArrayMaxSize, IsArray, IsEmail, IsString, Length, MaxLength } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, RequireScopes } from '../access/access.js';
import { IsDisplayName, Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import { created } from '../access/replay.js';
import type { Caller } from '../kernel/actor.js';
import { Cursors } from '../keyring/cursors.js';
import { Companies, type CompanyFields, type EmployeeFields } from './companies.service.js';
import type { Company } from './company.entity.js';
import type { Employee } from './employee.entity.js';

export class CreateCompany {
  @IsDisplayName()
  name: string;

  /** The registration number (Unique Entity Number). */
  @Omittable()
  @IsString()
  @MaxLength(32)
  uen_code?: string;

  @Omittable()
  @IsString()
  @MaxLength(128)
  sector?: string;

  @Omittable()
  @IsString()
  @MaxLength(128)
  entity_type?: string;

  @Omittable()
  @IsString()
  @MaxLength(128)
  entity_sub_type?: string;

  @Omittable()
  @IsArray()
  @ArrayMaxSize(500)
  @IsString({ each: true })
  @Length(1, 256, { each: true })
  work_locations?: string[];

  @Omittable()
  @IsArray()
  @ArrayMaxSize(500)
  @IsString({ each: true })
  @Length(1, 256, { each: true })
  departments?: string[];
}

export class UpdateCompany extends PartialType(CreateCompany, { skipNullProperties: false }) {}

export class CompanyView {
  id: string;
  name: string;
  uen_code: string | null;
  sector: string | null;
  entity_type: string | null;
  entity_sub_type: string | null;
  work_locations: string[];
  departments: string[];
  created_by: string;
  created_at: Date;
  updated_at: Date;
}

export class CompanyPage {
  data: CompanyView[];
  next_cursor: string | null;
}

export class CreateEmployee {
  @IsDisplayName()
  name: string;

  @Omittable()
  @IsEmail()
  @MaxLength(254)
  email?: string;

  @Omittable()
  @IsString()
  @MaxLength(128)
  job_title?: string;

  @Omittable()
  @IsString()
  @MaxLength(256)
  department?: string;

  @Omittable()
  @IsString()
  @MaxLength(256)
  work_location?: string;
}

export class EmployeeView {
  id: string;
  company_id: string;
  name: string;
  email: string | null;
  job_title: string | null;
  department: string | null;
  work_location: string | null;
  created_at: Date;
}

export class EmployeePage {
  data: EmployeeView[];
  next_cursor: string | null;
}

/** The protected resource: each method is a route, a permission and one call. Copy it for your own (README, "Protect your own API"). */
@ApiTags('Companies')
@Controller(['companies', 'api/v1/companies'])
export class CompaniesController {
  constructor(
    private readonly companies: Companies,
    private readonly cursors: Cursors,
  ) {}

  @Get()
  @RequireScopes('companies:read')
  @ApiOperation({
    operationId: 'listCompanies',
    summary: 'List companies',
    description: "A service account is shown the companies that it created; a person all of the organization's.",
  })
  @ApiOkResponse({ type: CompanyPage })
  list(@CurrentCaller() caller: Caller, @Query() query: PageQuery): Promise<CompanyPage> {
    const list = { route: 'companies', organization: caller.organizationId, actor: caller.actor.id };
    return page(this.cursors, list, query, async (limit, after) =>
      (await this.companies.list(caller, limit, after?.[0])).map(companyView),
    );
  }

  @Post()
  @RequireScopes('companies:write')
  @ApiOperation({ operationId: 'createCompany', summary: 'Create a company' })
  @ApiCreatedResponse({ type: CompanyView })
  async create(
    @CurrentCaller() caller: Caller,
    @Body() body: CreateCompany,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<CompanyView> {
    return companyView(
      created(reply, await this.companies.create(caller, { ...companyFields(body), name: body.name })),
    );
  }

  @Get(':id')
  @RequireScopes('companies:read')
  @ApiOperation({ operationId: 'getCompany', summary: 'Read a company' })
  @ApiOkResponse({ type: CompanyView })
  async get(@CurrentCaller() caller: Caller, @Param('id') id: string): Promise<CompanyView> {
    return companyView(await this.companies.get(caller, id));
  }

  @Patch(':id')
  @RequireScopes('companies:write')
  @ApiOperation({ operationId: 'updateCompany', summary: 'Change a company' })
  @ApiOkResponse({ type: CompanyView })
  async update(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() body: UpdateCompany,
  ): Promise<CompanyView> {
    return companyView((await this.companies.update(caller, id, companyFields(body))).result);
  }

  @Get(':id/employees')
  @RequireScopes('companies:read')
  @ApiOperation({ operationId: 'listEmployees', summary: "List a company's employees" })
  @ApiOkResponse({ type: EmployeePage })
  listEmployees(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Query() query: PageQuery,
  ): Promise<EmployeePage> {
    const list = { route: 'employees', organization: caller.organizationId, actor: caller.actor.id, id };
    return page(this.cursors, list, query, async (limit, after) =>
      (await this.companies.listEmployees(caller, id, limit, after?.[0])).map(employeeView),
    );
  }

  @Post(':id/employees')
  @RequireScopes('employees:write')
  @ApiOperation({ operationId: 'createEmployee', summary: 'Push an employee to a company' })
  @ApiCreatedResponse({ type: EmployeeView })
  async createEmployee(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() body: CreateEmployee,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<EmployeeView> {
    return employeeView(
      created(reply, await this.companies.addEmployee(caller, id, { ...employeeFields(body), name: body.name })),
    );
  }
}

const companyFields = (body: Partial<CreateCompany>): Partial<CompanyFields> => ({
  name: body.name,
  uenCode: body.uen_code,
  sector: body.sector,
  entityType: body.entity_type,
  entitySubType: body.entity_sub_type,
  workLocations: body.work_locations,
  departments: body.departments,
});

const companyView = (company: Company): CompanyView => ({
  id: company.id,
  name: company.name,
  uen_code: company.uenCode,
  sector: company.sector,
  entity_type: company.entityType,
  entity_sub_type: company.entitySubType,
  work_locations: company.workLocations,
  departments: company.departments,
  created_by: company.createdBy,
  created_at: company.createdAt,
  updated_at: company.updatedAt,
});

const employeeFields = (body: CreateEmployee): Partial<EmployeeFields> => ({
  name: body.name,
  email: body.email,
  jobTitle: body.job_title,
  department: body.department,
  workLocation: body.work_location,
});

const employeeView = (employee: Employee): EmployeeView => ({
  id: employee.id,
  company_id: employee.companyId,
  name: employee.name,
  email: employee.email,
  job_title: employee.jobTitle,
  department: employee.department,
  work_location: employee.workLocation,
  created_at: employee.createdAt,
});
