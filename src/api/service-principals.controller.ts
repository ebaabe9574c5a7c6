import { Body, Controller, Get, Header, HttpCode, Param, Post, Query, Res } from '@nestjs/common';
import { ApiCreatedResponse, ApiOkResponse, ApiOperation, ApiTags, OmitType, PickType } from '@nestjs/swagger';
import { IsString, Length } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, EvenOverLimit, RequireScopes, StepUp } from '../access/access.js';
import { IsInstant, Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import { created } from '../access/replay.js';
import type { Caller } from '../kernel/actor.js';
import { Cursors } from '../keyring/cursors.js';
import { ServiceAccounts } from '../service-accounts/service-accounts.service.js';
import { PersonalAccessTokens } from '../tokens/personal-access-tokens.service.js';
import {
  CreatePersonalAccessToken,
  ListedPersonalAccessTokenView,
  NewPersonalAccessTokenView,
  RevokePersonalAccessToken,
} from './personal-access-tokens.controller.js';
import { Receipt } from './secrets.controller.js';
import { CreateServiceAccount, ServiceAccountPage, ServiceAccountView, view } from './service-accounts.controller.js';

export class CreateServicePrincipal extends PickType(CreateServiceAccount, ['name', 'description', 'scopes']) {}

export class CreateServicePrincipalToken extends PickType(CreatePersonalAccessToken, ['scopes']) {
  @IsString()
  @Length(1, 128)
  name: string;

  /** When it ends by itself: within 365 days, unless the platform has set it otherwise. Left out: after 90. */
  @Omittable()
  @IsInstant()
  expires_at?: string;
}

export class NewServicePrincipalToken extends OmitType(NewPersonalAccessTokenView, ['label']) {
  name: string;
}

export class ServicePrincipalToken extends OmitType(ListedPersonalAccessTokenView, ['label']) {
  name: string;
}

export class ServicePrincipalTokenPage {
  data: ServicePrincipalToken[];
  next_cursor: string | null;
}

/** E4: service accounts and their personal access tokens under the names that EUnifyer's documentation has. */
@ApiTags('Service principals')
@Controller('api/v1/developer/service-principals')
@RequireScopes('admin:access')
export class ServicePrincipalsController {
  constructor(
    private readonly accounts: ServiceAccounts,
    private readonly tokens: PersonalAccessTokens,
    private readonly cursors: Cursors,
  ) {}

  @Get()
  @ApiOperation({
    operationId: 'listServicePrincipals',
    summary: 'List service principals',
    description: 'They are the service accounts, by name.',
  })
  @ApiOkResponse({ type: ServiceAccountPage })
  list(@CurrentCaller() { organizationId }: Caller, @Query() query: PageQuery): Promise<ServiceAccountPage> {
    const list = { route: 'service-principals', organization: organizationId };
    const fetch = async (limit: number, after: readonly string[] | undefined) =>
      (await this.accounts.list(organizationId, { sort: 'name', limit, after })).map(view);
    return page(this.cursors, list, query, fetch, ({ id, name }) => [name, id]);
  }

  @Post()
  @ApiOperation({ operationId: 'createServicePrincipal', summary: 'Create a service principal' })
  @ApiCreatedResponse({ type: ServiceAccountView })
  async create(
    @CurrentCaller() caller: Caller,
    @Body() { name, description, scopes }: CreateServicePrincipal,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<ServiceAccountView> {
    return view(created(reply, await this.accounts.create(caller, { name, description, scopes })));
  }

  @Get(':id/tokens')
  @ApiOperation({ operationId: 'listServicePrincipalTokens', summary: "List a service principal's access tokens" })
  @ApiOkResponse({ type: ServicePrincipalTokenPage })
  tokensOf(
    @CurrentCaller() { organizationId }: Caller,
    @Param('id') id: string,
    @Query() query: PageQuery,
  ): Promise<ServicePrincipalTokenPage> {
    const list = { route: 'service-principal-tokens', organization: organizationId, id };
    return page(this.cursors, list, query, async (limit, after) =>
      (await this.tokens.listOf(organizationId, id, limit, after?.[0])).map(named),
    );
  }

  @Post(':id/tokens')
  @StepUp()
  @Header('Pragma', 'no-cache')
  @ApiOperation({
    operationId: 'createServicePrincipalToken',
    summary: 'Add a personal access token to a service principal',
    description: 'It may be used for some of what the principal may do and the caller may, until it expires.',
  })
  @ApiCreatedResponse({ type: NewServicePrincipalToken })
  async addToken(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() { name, scopes, expires_at }: CreateServicePrincipalToken,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<NewServicePrincipalToken> {
    const expiresAt = expires_at === undefined ? undefined : new Date(expires_at);
    return named(created(reply, await this.tokens.createFor(caller, id, { label: name, scopes, expiresAt })));
  }

  @Post(':id/tokens/:token_id/revoke')
  @EvenOverLimit()
  @HttpCode(200)
  @ApiOperation({
    operationId: 'revokeServicePrincipalToken',
    summary: "Revoke a service principal's access token",
    description: 'No instance accepts it any more when this answers.',
  })
  @ApiOkResponse({ type: Receipt })
  revokeToken(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Param('token_id') tokenId: string,
    @Body() { reason }: RevokePersonalAccessToken,
  ): Promise<Receipt> {
    return this.tokens.revokeOf(caller, id, tokenId, reason);
  }
}

/** What is a label elsewhere is a name here; no token is issued on one, so there is no last time to show. */
const named = <Token extends { label: string; last_token_issued_at?: unknown }>({
  label,
  last_token_issued_at: _,
  ...rest
}: Token) => ({ ...rest, name: label });
