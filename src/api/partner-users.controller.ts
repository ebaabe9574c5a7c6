import { Body, Controller, Delete, Get, HttpCode, Param, Patch, Post, Query, Res } from '@nestjs/common';
import {
  ApiCreatedResponse,
  ApiNoContentResponse,
  ApiOkResponse,
  ApiOperation,
  ApiProperty,
  ApiTags,
  OmitType,
} from '@nestjs/swagger';
import { IsIn } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, RequireScopes, StepUp } from '../access/access.js';
import { Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import { created } from '../access/replay.js';
import type { Caller } from '../kernel/actor.js';
import { CLIENT_ROLES, type ClientRole } from '../kernel/scope.js';
import { Cursors } from '../keyring/cursors.js';
import { Users } from '../organizations/users.service.js';
import { CreateUser, UpdateUser, UserList, UserView, userView } from './users.controller.js';

export class CreatePartnerUser extends OmitType(CreateUser, ['role']) {
  @ApiProperty({ enum: [...CLIENT_ROLES] })
  @IsIn(CLIENT_ROLES)
  role: ClientRole;
}

export class UpdatePartnerUser extends OmitType(UpdateUser, ['role']) {
  @ApiProperty({ enum: [...CLIENT_ROLES], required: false })
  @Omittable()
  @IsIn(CLIENT_ROLES)
  role?: ClientRole;
}

/**
 * The people of organizations beneath the caller's own. Names and addresses of people are shown to those who manage them:
 * `partner:orgs:read` alone reads organizations.
 */
@ApiTags('Partner')
@Controller('api/v1/partner/orgs/:id/users')
@RequireScopes('partner:users:write')
export class PartnerUsersController {
  constructor(
    private readonly users: Users,
    private readonly cursors: Cursors,
  ) {}

  @Get()
  @ApiOperation({
    operationId: 'listPartnerUsers',
    summary: 'Members of an organization beneath your own, and those invited',
    description: 'Reading people needs `partner:users:write` as well: `partner:orgs:read` shows organizations alone.',
  })
  @ApiOkResponse({ type: UserList })
  list(@CurrentCaller() caller: Caller, @Param('id') id: string, @Query() query: PageQuery): Promise<UserList> {
    const list = { route: 'partner/orgs/users', organization: caller.organizationId, id };
    return page(this.cursors, list, query, async (limit, after) =>
      (await this.users.list(caller, limit, after?.[0], id)).map(userView),
    );
  }

  @Post()
  @StepUp()
  @ApiOperation({
    operationId: 'createPartnerUser',
    summary: 'Make a person a member of an organization beneath your own, or invite one who has a user already',
    description: 'It needs no role in that organization: this is how it gets its first admin.',
  })
  @ApiCreatedResponse({ type: UserView })
  async create(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() body: CreatePartnerUser,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<UserView> {
    return userView(created(reply, await this.users.create(caller, body, id)));
  }

  @Get(':user_id')
  @ApiOperation({ operationId: 'getPartnerUser', summary: 'One member of an organization beneath your own' })
  @ApiOkResponse({ type: UserView })
  async get(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Param('user_id') userId: string,
  ): Promise<UserView> {
    return userView(await this.users.get(caller, userId, id));
  }

  @Patch(':user_id')
  @StepUp()
  @ApiOperation({
    operationId: 'updatePartnerUser',
    summary: "Change a member's role in an organization beneath your own, disable or enable them there",
  })
  @ApiOkResponse({ type: UserView })
  async update(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Param('user_id') userId: string,
    @Body() body: UpdatePartnerUser,
  ): Promise<UserView> {
    return userView(await this.users.update(caller, userId, body, id));
  }

  @Delete(':user_id')
  @HttpCode(204)
  @ApiOperation({
    operationId: 'deletePartnerUser',
    summary: 'End a membership in an organization beneath your own',
    description: 'Their sessions there end. The person and their other memberships stay.',
  })
  @ApiNoContentResponse()
  async remove(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Param('user_id') userId: string,
  ): Promise<void> {
    await this.users.remove(caller, userId, id);
  }
}
