import { Body, Controller, Get, Param, Patch, Post, Query, Res } from '@nestjs/common';
import { ApiCreatedResponse, ApiOkResponse, ApiOperation, ApiTags, OmitType, PickType } from '@nestjs/swagger';
import { IsString, IsUUID, MaxLength, MinLength } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, RequireScopes } from '../access/access.js';
import { Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import { created } from '../access/replay.js';
import type { Caller } from '../kernel/actor.js';
import { Cursors } from '../keyring/cursors.js';
import type { Organization } from '../organizations/organization.entity.js';
import { Organizations } from '../organizations/organizations.service.js';
import {
  CreateOrganization,
  OrganizationView,
  organizationView,
  UpdateOrganization,
} from './organizations.controller.js';

export class PartnerOrganizationQuery extends PageQuery {
  /** Finds within names, in any case. */
  @Omittable()
  @IsString()
  @MinLength(1)
  @MaxLength(200)
  search?: string;
}

/** What a partner sets of a customer: listed here one by one, so that a field of the platform's is never theirs by accident. */
export class CreatePartnerOrganization extends PickType(CreateOrganization, ['name', 'scope_ceiling']) {
  /** An organization beneath your own, to make one beneath that. Left out: your own. */
  @Omittable()
  @IsUUID()
  parent_id?: string;
}

export class UpdatePartnerOrganization extends PickType(UpdateOrganization, ['name', 'scope_ceiling', 'disabled']) {}

/** An organization beneath the caller's own. */
export class PartnerOrganizationView extends OmitType(OrganizationView, ['platform']) {}

export class PartnerOrganizationList {
  data: PartnerOrganizationView[];
  next_cursor: string | null;
}

@ApiTags('Partner')
@Controller('api/v1/partner/orgs')
export class PartnerController {
  constructor(
    private readonly organizations: Organizations,
    private readonly cursors: Cursors,
  ) {}

  @Get()
  @RequireScopes('partner:orgs:read')
  @ApiOperation({
    operationId: 'listPartnerOrganizations',
    summary: 'The organizations beneath your own, oldest first',
    description:
      "Those beneath them too. To accounts of the platform's own organization every other one is shown. Whatever is not beneath your own answers 404, as if it did not exist.",
  })
  @ApiOkResponse({ type: PartnerOrganizationList })
  list(@CurrentCaller() caller: Caller, @Query() query: PartnerOrganizationQuery): Promise<PartnerOrganizationList> {
    const { search } = query;
    const list = { route: 'partner/orgs', organization: caller.organizationId, search };
    return page(this.cursors, list, query, async (limit, after) =>
      (await this.organizations.list(limit, after?.[0], { partner: caller, search })).map(view),
    );
  }

  @Post()
  @RequireScopes('partner:orgs:write')
  @ApiOperation({
    operationId: 'createPartnerOrganization',
    summary: 'Make an organization beneath your own',
    description:
      'What it may have at most lies within what its parent may have, now and whenever that is changed. Its name is unique among those beneath the same parent.',
  })
  @ApiCreatedResponse({ type: PartnerOrganizationView })
  async create(
    @CurrentCaller() caller: Caller,
    @Body() body: CreatePartnerOrganization,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<PartnerOrganizationView> {
    const { name, scope_ceiling: scopeCeiling, parent_id: parentId } = body;
    return view(created(reply, await this.organizations.createBeneath(caller, { name, scopeCeiling, parentId })));
  }

  @Get(':id')
  @RequireScopes('partner:orgs:read')
  @ApiOperation({ operationId: 'getPartnerOrganization', summary: 'One organization beneath your own' })
  @ApiOkResponse({ type: PartnerOrganizationView })
  async get(@CurrentCaller() caller: Caller, @Param('id') id: string): Promise<PartnerOrganizationView> {
    return view(await this.organizations.getBeneath(caller, id));
  }

  @Patch(':id')
  @RequireScopes('partner:orgs:write')
  @ApiOperation({
    operationId: 'updatePartnerOrganization',
    summary: 'Rename, bound, disable or enable an organization beneath your own',
    description:
      "Disabling ends its tokens and its people's sessions on every instance before this answers, not those of organizations beneath it. What was disabled by somebody above you is enabled by them.",
  })
  @ApiOkResponse({ type: PartnerOrganizationView })
  async update(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() body: UpdatePartnerOrganization,
  ): Promise<PartnerOrganizationView> {
    const { name, scope_ceiling: scopeCeiling, disabled } = body;
    return view(await this.organizations.updateBeneath(caller, id, { name, scopeCeiling, disabled }));
  }
}

const view = (organization: Organization): PartnerOrganizationView => {
  const { platform: _, ...shown } = organizationView(organization);
  return shown;
};
