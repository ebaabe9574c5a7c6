import { Body, Controller, Get, Post, Query, Res } from '@nestjs/common';
import { ApiCreatedResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { IsString, MaxLength, MinLength } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { AnyCaller, CurrentCaller, RequireScopes } from '../access/access.js';
import { PageQuery, page } from '../access/page.js';
import type { Caller } from '../kernel/actor.js';
import { Cursors } from '../keyring/cursors.js';
import type { Scope } from '../organizations/scope.entity.js';
import { Scopes } from '../organizations/scopes.service.js';

export class CreateScope {
  /** 1 to 128 characters of RFC 6749 §3.3 (`pockets.read`); neither `platform:*` nor `openid`. */
  @IsString()
  @MaxLength(128)
  name: string;

  /** The sentence that a consent page shows. */
  @IsString()
  @MinLength(1)
  @MaxLength(500)
  description: string;
}

export class ScopeView {
  name: string;
  description: string;
  /** Whether it ships with Gatehouse. */
  built_in: boolean;
  created_at: Date;
}

export class ScopeList {
  data: ScopeView[];
  next_cursor: string | null;
}

@ApiTags('Scopes')
@Controller('api/v1/scopes')
export class ScopesController {
  constructor(
    private readonly scopes: Scopes,
    private readonly cursors: Cursors,
  ) {}

  @Get()
  @AnyCaller()
  @ApiOperation({ operationId: 'listScopes', summary: 'The scopes that exist, by name' })
  @ApiOkResponse({ type: ScopeList })
  list(@Query() query: PageQuery): Promise<ScopeList> {
    const fetch = async (limit: number, after?: readonly string[]) =>
      (await this.scopes.list(limit, after?.[0])).map(view);
    return page(this.cursors, { route: 'scopes' }, query, fetch, ({ name }) => [name]);
  }

  @Post()
  @RequireScopes('platform:admin')
  @ApiOperation({ operationId: 'createScope', summary: "Register a scope of the platform's own" })
  @ApiCreatedResponse({ type: ScopeView })
  async create(
    @CurrentCaller() caller: Caller,
    @Body() body: CreateScope,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<ScopeView> {
    const { result, replayed } = await this.scopes.create(caller, body);
    if (replayed) reply.header('idempotent-replayed', 'true');
    return view(result);
  }
}

/** Times pass through untouched: in an answer that is repeated under its Idempotency-Key they are text already. */
const view = (scope: Scope): ScopeView => ({
  name: scope.name,
  description: scope.description,
  built_in: scope.builtIn,
  created_at: scope.createdAt,
});
