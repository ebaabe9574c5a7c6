import { applyDecorators, Body, Controller, Get, Param, Patch, Post, Query, Res } from '@nestjs/common';
import { ApiCreatedResponse, ApiOkResponse, ApiOperation, ApiProperty, ApiTags, PartialType } from '@nestjs/swagger';
import { ArrayMaxSize, ArrayUnique, IsArray } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, RequireScopes } from '../access/access.js';
import { type EntityTags, ETAG, IfMatch, IfNoneMatch, tagged } from '../access/entity-tag.js';
import { IsDisplayName, IsInstant, IsLine, Nullable, Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import { created } from '../access/replay.js';
import type { Caller } from '../kernel/actor.js';
import { Cursors } from '../keyring/cursors.js';
import { Companies, type CompanyFields } from './companies.service.js';
import type { Company } from './company.entity.js';

/** Up to 500 names in the caller's own order, none of them twice, whatever its case. */
const IsListOfNames = () =>
  applyDecorators(
    ApiProperty({ maxItems: 500, items: { type: 'string', minLength: 1, maxLength: 256 } }),
    Omittable(),
    IsArray(),
    ArrayMaxSize(500),
    IsLine(256, { each: true }),
    ArrayUnique((name) => (typeof name === 'string' ? name.normalize().toLowerCase() : name), {
      message: '$property must not hold a name twice, in any case',
    }),
  );

export class CreateCompany {
  @IsDisplayName()
  name: string;

  /** The registration number (Unique Entity Number). */
  @Nullable()
  @IsLine(32)
  uen_code?: string | null;

  @Nullable()
  @IsLine(128)
  sector?: string | null;

  @Nullable()
  @IsLine(128)
  entity_type?: string | null;

  @Nullable()
  @IsLine(128)
  entity_sub_type?: string | null;

  /** Once there are any, every employee's work location is one of them. */
  @IsListOfNames()
  work_locations?: string[];

  /** Once there are any, every employee's department is one of them. */
  @IsListOfNames()
  departments?: string[];
}

export class UpdateCompany extends PartialType(CreateCompany, { skipNullProperties: false }) {}

export class CompanyQuery extends PageQuery {
  /** Finds names that begin so, in any case. */
  @Omittable()
  @IsLine(200)
  name?: string;

  @Omittable()
  @IsLine(32)
  uen_code?: string;

  @Omittable()
  @IsLine(128)
  sector?: string;

  @Omittable()
  @IsLine(128)
  entity_type?: string;

  /** Made or changed at that moment or later. RFC 3339. Ask for a minute more than needed: a change is dated when it begins. */
  @Omittable()
  @IsInstant()
  updated_since?: string;
}

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
  list(@CurrentCaller() caller: Caller, @Query() query: CompanyQuery): Promise<CompanyPage> {
    const { limit: _limit, cursor: _cursor, ...filters } = query;
    const list = { route: 'companies', organization: caller.organizationId, actor: caller.actor.id, filters };
    const filter = {
      name: query.name,
      uenCode: query.uen_code,
      sector: query.sector,
      entityType: query.entity_type,
      updatedSince: query.updated_since === undefined ? undefined : new Date(query.updated_since),
    };
    return page(this.cursors, list, query, async (limit, after) =>
      (await this.companies.list(caller, filter, limit, after?.[0])).map(companyView),
    );
  }

  @Post()
  @RequireScopes('companies:write')
  @ApiOperation({ operationId: 'createCompany', summary: 'Create a company' })
  @ApiCreatedResponse({ type: CompanyView, headers: ETAG })
  async create(
    @CurrentCaller() caller: Caller,
    @Body() body: CreateCompany,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<CompanyView | undefined> {
    const outcome = await this.companies.create(caller, { ...companyFields(body), name: body.name });
    return tagged(reply, created(reply, outcome), companyView);
  }

  @Get(':id')
  @RequireScopes('companies:read')
  @ApiOperation({ operationId: 'getCompany', summary: 'Read a company' })
  @ApiOkResponse({ type: CompanyView, headers: ETAG })
  async get(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @IfNoneMatch() known: EntityTags,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<CompanyView | undefined> {
    return tagged(reply, await this.companies.get(caller, id), companyView, known);
  }

  @Patch(':id')
  @RequireScopes('companies:write')
  @ApiOperation({
    operationId: 'updateCompany',
    summary: 'Change a company',
    description:
      'What is left out stays; null clears. A department or work location that employees have is not taken off.',
  })
  @ApiOkResponse({ type: CompanyView, headers: ETAG })
  async update(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() body: UpdateCompany,
    @IfMatch() ifMatch: EntityTags,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<CompanyView | undefined> {
    const { result } = await this.companies.update(caller, id, companyFields(body), ifMatch);
    return tagged(reply, result, companyView);
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
