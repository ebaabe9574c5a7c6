import { Body, Controller, Get, Param, Patch, Post, Query, Res } from '@nestjs/common';
import { ApiCreatedResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { Type } from 'class-transformer';
import {
  ArrayMaxSize,
  IsArray,
  IsBoolean,
  IsInt,
  IsObject,
  IsString,
  IsUUID,
  Max,
  MaxLength,
  Min,
  ValidateIf,
  ValidateNested,
} from 'class-validator';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, RequireScopes } from '../access/access.js';
import { IsDisplayName, Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import type { Caller } from '../kernel/actor.js';
import { MAX_RATE_LIMIT, MAX_RATE_WINDOW_SECONDS } from '../kernel/rate-limit.js';
import { Cursors } from '../keyring/cursors.js';
import type { Organization } from '../organizations/organization.entity.js';
import { Organizations, rateLimitOf } from '../organizations/organizations.service.js';

export class OrganizationRateLimit {
  /** Requests in a window, of all its accounts and people together. */
  @IsInt()
  @Min(1)
  @Max(MAX_RATE_LIMIT)
  limit: number;

  @IsInt()
  @Min(1)
  @Max(MAX_RATE_WINDOW_SECONDS)
  window_seconds: number;
}

export class CreateOrganization {
  @IsDisplayName()
  name: string;

  /**
   * The scopes that anybody and anything in the organization may have at most, within what its parent may have. Null or left out: all
   * that its parent may have; without a parent, all but `platform:*`.
   */
  @ValidateIf((_, value) => value != null)
  @IsArray()
  @ArrayMaxSize(1000)
  @IsString({ each: true })
  @MaxLength(128, { each: true })
  scope_ceiling?: string[] | null;

  /** The organization beneath which it stands. */
  @ValidateIf((_, value) => value != null)
  @IsUUID()
  parent_id?: string | null;

  /** Null or left out: the default of the platform. */
  @ValidateIf((_, value) => value != null)
  @IsObject()
  @ValidateNested()
  @Type(() => OrganizationRateLimit)
  rate_limit?: OrganizationRateLimit | null;
}

export class UpdateOrganization {
  @Omittable()
  @IsDisplayName()
  name?: string;

  /**
   * Within what its parent may have; null: all of that, or without a parent all but `platform:*`. What accounts and people hold beyond
   * it, here and in the organizations beneath, they can use no more.
   */
  @ValidateIf((_, value) => value != null)
  @IsArray()
  @ArrayMaxSize(1000)
  @IsString({ each: true })
  @MaxLength(128, { each: true })
  scope_ceiling?: string[] | null;

  /** Null: the default of the platform. Holds on every instance when the call returns. */
  @ValidateIf((_, value) => value != null)
  @IsObject()
  @ValidateNested()
  @Type(() => OrganizationRateLimit)
  rate_limit?: OrganizationRateLimit | null;

  /** True ends the organization's tokens and its people's sessions, not those of organizations beneath it. */
  @Omittable()
  @IsBoolean()
  disabled?: boolean;
}

export class OrganizationView {
  id: string;
  name: string;
  parent_id: string | null;
  /** The organization's own; those above it bound it too. Null: none of its own. */
  scope_ceiling: string[] | null;
  /** Null: the default of the platform. */
  rate_limit: OrganizationRateLimit | null;
  /** Whether it is the platform's own. */
  platform: boolean;
  disabled: boolean;
  disabled_at: Date | null;
  created_at: Date;
}

export class OrganizationList {
  data: OrganizationView[];
  next_cursor: string | null;
}

@ApiTags('Organizations')
@Controller('api/v1/organizations')
@RequireScopes('platform:admin')
export class OrganizationsController {
  constructor(
    private readonly organizations: Organizations,
    private readonly cursors: Cursors,
  ) {}

  @Get()
  @ApiOperation({ operationId: 'listOrganizations', summary: 'Client accounts, oldest first' })
  @ApiOkResponse({ type: OrganizationList })
  list(@Query() query: PageQuery): Promise<OrganizationList> {
    return page(this.cursors, { route: 'organizations' }, query, async (limit, after) =>
      (await this.organizations.list(limit, after?.[0])).map(organizationView),
    );
  }

  @Post()
  @ApiOperation({ operationId: 'createOrganization', summary: 'Make a client account' })
  @ApiCreatedResponse({ type: OrganizationView })
  async create(
    @CurrentCaller() caller: Caller,
    @Body() body: CreateOrganization,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<OrganizationView> {
    const { name, scope_ceiling: scopeCeiling, parent_id: parentId } = body;
    const rateLimit = askedRateLimit(body);
    const { result, replayed } = await this.organizations.create(caller, { name, scopeCeiling, parentId, rateLimit });
    if (replayed) reply.header('idempotent-replayed', 'true');
    return organizationView(result);
  }

  @Get(':id')
  @ApiOperation({ operationId: 'getOrganization', summary: 'One client account' })
  @ApiOkResponse({ type: OrganizationView })
  async get(@Param('id') id: string): Promise<OrganizationView> {
    return organizationView(await this.organizations.get(id));
  }

  @Patch(':id')
  @ApiOperation({ operationId: 'updateOrganization', summary: 'Rename, bound, disable or enable a client account' })
  @ApiOkResponse({ type: OrganizationView })
  async update(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() body: UpdateOrganization,
  ): Promise<OrganizationView> {
    const { name, scope_ceiling: scopeCeiling, disabled } = body;
    const rateLimit = askedRateLimit(body);
    return organizationView(await this.organizations.update(caller, id, { name, scopeCeiling, rateLimit, disabled }));
  }
}

const askedRateLimit = ({ rate_limit: rate }: CreateOrganization | UpdateOrganization) =>
  rate && { limit: rate.limit, windowSeconds: rate.window_seconds };

/** Times pass through untouched: in an answer that is repeated under its Idempotency-Key they are text already. */
export const organizationView = (organization: Organization): OrganizationView => ({
  id: organization.id,
  name: organization.name,
  parent_id: organization.parentId,
  scope_ceiling: organization.scopeCeiling,
  rate_limit: rateLimitOf(organization),
  platform: organization.platform,
  disabled: organization.disabledAt !== null,
  disabled_at: organization.disabledAt,
  created_at: organization.createdAt,
});
