import { Body, Controller, Delete, Get, HttpCode, Param, Patch, Post, Query, Res } from '@nestjs/common';
import {
  ApiCreatedResponse,
  ApiNoContentResponse,
  ApiOkResponse,
  ApiOperation,
  ApiTags,
  PartialType,
} from '@nestjs/swagger';
import { ArrayMaxSize, IsArray, IsIn, IsInt, IsString, Length, Max, MaxLength, Min, ValidateIf } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, EvenOverLimit, RequireScopes } from '../access/access.js';
import { IsDisplayName, Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import { created } from '../access/replay.js';
import type { Caller } from '../kernel/actor.js';
import { MAX_TOKEN_TTL_SECONDS, MIN_TOKEN_TTL_SECONDS } from '../kernel/limits.js';
import { Cursors } from '../keyring/cursors.js';
import { clientIdOf, type ServiceAccount } from '../service-accounts/service-account.entity.js';
import {
  ACCOUNT_SORTS,
  type AccountSettings,
  type AccountSort,
  ServiceAccounts,
} from '../service-accounts/service-accounts.service.js';

export class CreateServiceAccount {
  /** Unique among the organization's living accounts, in any case. Stands in the audit log against everything the account does. */
  @IsDisplayName()
  name: string;

  @Omittable()
  @IsString()
  @MaxLength(1024)
  description?: string;

  /** What its tokens may hold: within the organization's ceiling, and nothing that the caller does not hold. */
  @IsArray()
  @ArrayMaxSize(200)
  @IsString({ each: true })
  @MaxLength(128, { each: true })
  scopes: string[];

  /** `opaque` (the default) or `jwt`. */
  @Omittable()
  @IsString()
  token_format?: string;

  /** How long its tokens live. Default 3600. */
  @Omittable()
  @IsInt()
  @Min(MIN_TOKEN_TTL_SECONDS)
  @Max(MAX_TOKEN_TTL_SECONDS)
  token_ttl_seconds?: number;

  /** How it may authenticate: `client_secret_basic`, `client_secret_post`, `private_key_jwt`. Null: any of them. */
  @ValidateIf((_, value) => value !== undefined && value !== null)
  @IsArray()
  @ArrayMaxSize(10)
  @IsString({ each: true })
  client_auth_methods?: string[] | null;

  /** Audiences beside the platform's own that it may ask tokens for (RFC 8707), out of the setting `RESOURCES`. */
  @Omittable()
  @IsArray()
  @ArrayMaxSize(20)
  @IsString({ each: true })
  @MaxLength(256, { each: true })
  resources?: string[];
}

export class UpdateServiceAccount extends PartialType(CreateServiceAccount, { skipNullProperties: false }) {}

export class ServiceAccountQuery extends PageQuery {
  /** Finds within names, in any case. */
  @Omittable()
  @IsString()
  @Length(1, 128)
  search?: string;

  /** `-` for descending. */
  @Omittable()
  @IsIn(ACCOUNT_SORTS)
  sort?: AccountSort;
}

export class Disable {
  /** Stands in the audit log and in the revocation list. */
  @Omittable()
  @IsString()
  @MaxLength(256)
  reason?: string;
}

export class ServiceAccountView {
  id: string;
  /** The OAuth client id. */
  client_id: string;
  name: string;
  description: string;
  scopes: string[];
  token_format: string;
  token_ttl_seconds: number;
  client_auth_methods: string[] | null;
  /** Audiences beside the platform's own that it may ask tokens for (RFC 8707). */
  resources: string[];
  created_at: Date;
  updated_at: Date;
  /** Null while it is enabled. */
  disabled_at: Date | null;
}

export class ServiceAccountPage {
  data: ServiceAccountView[];
  next_cursor: string | null;
}

@ApiTags('Service accounts')
@Controller('api/v1/service-accounts')
@RequireScopes('admin:access')
export class ServiceAccountsController {
  constructor(
    private readonly accounts: ServiceAccounts,
    private readonly cursors: Cursors,
  ) {}

  @Get()
  @ApiOperation({ operationId: 'listServiceAccounts', summary: 'List service accounts' })
  @ApiOkResponse({ type: ServiceAccountPage })
  list(@CurrentCaller() caller: Caller, @Query() query: ServiceAccountQuery): Promise<ServiceAccountPage> {
    const { search, sort = 'name' } = query;
    const list = { route: 'service-accounts', organization: caller.organizationId, search, sort };
    const fetch = async (limit: number, after: readonly string[] | undefined) =>
      (await this.accounts.list(caller.organizationId, { search, sort, limit, after })).map(view);
    return page(this.cursors, list, query, fetch, ({ id, name, created_at }) => [
      sort.endsWith('name') ? name : created_at.toISOString(),
      id,
    ]);
  }

  @Post()
  @ApiOperation({ operationId: 'createServiceAccount', summary: 'Create a service account' })
  @ApiCreatedResponse({ type: ServiceAccountView })
  async create(
    @CurrentCaller() caller: Caller,
    @Body() body: CreateServiceAccount,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<ServiceAccountView> {
    return view(
      created(reply, await this.accounts.create(caller, { ...settings(body), name: body.name, scopes: body.scopes })),
    );
  }

  @Get(':id')
  @ApiOperation({ operationId: 'getServiceAccount', summary: 'Read a service account' })
  @ApiOkResponse({ type: ServiceAccountView })
  async get(@CurrentCaller() caller: Caller, @Param('id') id: string): Promise<ServiceAccountView> {
    return view(await this.accounts.get(caller.organizationId, id));
  }

  @Patch(':id')
  @ApiOperation({ operationId: 'updateServiceAccount', summary: 'Change a service account' })
  @ApiOkResponse({ type: ServiceAccountView })
  async update(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() body: UpdateServiceAccount,
  ): Promise<ServiceAccountView> {
    return view((await this.accounts.update(caller, id, settings(body))).result);
  }

  @Delete(':id')
  @EvenOverLimit()
  @HttpCode(204)
  @ApiOperation({
    operationId: 'deleteServiceAccount',
    summary: 'Delete a service account',
    description:
      'Leaves a tombstone: its tokens are dead, its client id is never used again, its events keep its name.',
  })
  @ApiNoContentResponse()
  delete(@CurrentCaller() caller: Caller, @Param('id') id: string): Promise<void> {
    return this.accounts.delete(caller, id);
  }

  @Post(':id/disable')
  @EvenOverLimit()
  @HttpCode(200)
  @ApiOperation({
    operationId: 'disableServiceAccount',
    summary: 'Disable a service account',
    description: 'Every token of the account is dead on every instance when this answers.',
  })
  @ApiOkResponse({ type: ServiceAccountView })
  async disable(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() { reason }: Disable,
  ): Promise<ServiceAccountView> {
    return view((await this.accounts.disable(caller, id, reason)).result);
  }

  @Post(':id/enable')
  @HttpCode(200)
  @ApiOperation({
    operationId: 'enableServiceAccount',
    summary: 'Enable a service account',
    description: 'Tokens from before do not come back.',
  })
  @ApiOkResponse({ type: ServiceAccountView })
  async enable(@CurrentCaller() caller: Caller, @Param('id') id: string): Promise<ServiceAccountView> {
    return view((await this.accounts.enable(caller, id)).result);
  }
}

const settings = (body: Partial<CreateServiceAccount>): Partial<AccountSettings> => ({
  name: body.name,
  description: body.description,
  scopes: body.scopes,
  tokenFormat: body.token_format,
  tokenTtlSeconds: body.token_ttl_seconds,
  clientAuthMethods: body.client_auth_methods,
  resources: body.resources,
});

export const view = (account: ServiceAccount): ServiceAccountView => ({
  id: account.id,
  client_id: clientIdOf(account.id),
  name: account.name,
  description: account.description,
  scopes: account.scopes,
  token_format: account.tokenFormat,
  token_ttl_seconds: account.tokenTtlSeconds,
  client_auth_methods: account.clientAuthMethods,
  resources: account.resources,
  created_at: account.createdAt,
  updated_at: account.updatedAt,
  disabled_at: account.disabledAt,
});
