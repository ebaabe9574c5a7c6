import { Body, Controller, Get, Header, HttpCode, Param, Post, Query, Res } from '@nestjs/common';
import { ApiCreatedResponse, ApiOkResponse, ApiOperation, ApiProperty, ApiTags } from '@nestjs/swagger';
import { ArrayMaxSize, ArrayMinSize, IsArray, IsString, Length, MaxLength } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, EvenOverLimit, SignedIn, StepUp } from '../access/access.js';
import { IsInstant, Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import { created } from '../access/replay.js';
import type { Caller } from '../kernel/actor.js';
import { Cursors } from '../keyring/cursors.js';
import {
  type ListedPersonalAccessToken,
  type PersonalAccessTokenStatus,
  PersonalAccessTokens,
} from '../tokens/personal-access-tokens.service.js';
import { Creator, Receipt } from './secrets.controller.js';

export class CreatePersonalAccessToken {
  @IsString()
  @Length(1, 128)
  label: string;

  /** What it may be used for: nothing that you do not hold here. Used later, it has of these what you hold then. */
  @IsArray()
  @ArrayMinSize(1)
  @ArrayMaxSize(200)
  @IsString({ each: true })
  @MaxLength(128, { each: true })
  scopes: string[];

  /** When it ends by itself: within 365 days, unless the platform has set it otherwise. */
  @IsInstant()
  expires_at: string;
}

export class RevokePersonalAccessToken {
  /** Stands in the audit log and in the revocation list. */
  @Omittable()
  @IsString()
  @MaxLength(256)
  reason?: string;
}

export class PersonalAccessTokenView {
  id: string;
  label: string;
  /** The last four characters of the token. */
  hint: string;
  scopes: string[];
  created_by: Creator;
  created_at: Date;
  expires_at: Date;
  /** When it was revoked itself. */
  revoked_at: Date | null;
}

export class NewPersonalAccessTokenView extends PersonalAccessTokenView {
  /** The token, in this answer and never again; not in a repeat under the same Idempotency-Key either. */
  token?: string;
}

export class ListedPersonalAccessTokenView extends PersonalAccessTokenView {
  /** `revoked` also when it ended with its owner or the organization: neither enabling nor coming back revives it. */
  @ApiProperty({ enum: ['active', 'expired', 'revoked'] })
  status: PersonalAccessTokenStatus;
}

export class PersonalAccessTokenPage {
  data: ListedPersonalAccessTokenView[];
  next_cursor: string | null;
}

@ApiTags('Personal access tokens')
@Controller('api/v1/personal-access-tokens')
@SignedIn()
export class PersonalAccessTokensController {
  constructor(
    private readonly tokens: PersonalAccessTokens,
    private readonly cursors: Cursors,
  ) {}

  @Get()
  @ApiOperation({
    operationId: 'listPersonalAccessTokens',
    summary: 'Your own personal access tokens',
    description: 'Those of the organization that you are turned to.',
  })
  @ApiOkResponse({ type: PersonalAccessTokenPage })
  list(@CurrentCaller() caller: Caller, @Query() query: PageQuery): Promise<PersonalAccessTokenPage> {
    const list = {
      route: 'personal-access-tokens',
      organization: caller.organizationId,
      user: caller.actor.id,
    };
    return page(this.cursors, list, query, async (limit, after) =>
      (await this.tokens.listOwn(caller, limit, after?.[0])).map(view),
    );
  }

  // It shows a credential, so it carries the headers of RFC 6749 §5.1, as a token does.
  @Post()
  @StepUp()
  @Header('Pragma', 'no-cache')
  @ApiOperation({
    operationId: 'createPersonalAccessToken',
    summary: 'Make yourself a personal access token',
    description:
      'A bearer token that acts in your name in the organization that you are turned to, for programs of your own. It does less when your role does, and ends with your membership.',
  })
  @ApiCreatedResponse({ type: NewPersonalAccessTokenView })
  async create(
    @CurrentCaller() caller: Caller,
    @Body() { label, scopes, expires_at }: CreatePersonalAccessToken,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<NewPersonalAccessTokenView> {
    const settings = { label, scopes, expiresAt: new Date(expires_at) };
    return view(created(reply, await this.tokens.createOwn(caller, settings)));
  }

  @Post(':id/revoke')
  @EvenOverLimit()
  @HttpCode(200)
  @ApiOperation({
    operationId: 'revokePersonalAccessToken',
    summary: 'Revoke one of your personal access tokens',
    description: 'No instance accepts it any more when this answers.',
  })
  @ApiOkResponse({ type: Receipt })
  revoke(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() { reason }: RevokePersonalAccessToken,
  ): Promise<Receipt> {
    return this.tokens.revokeOwn(caller, id, reason);
  }
}

/** No token is issued on one, so there is no last time to show. */
const view = <Token extends Partial<ListedPersonalAccessToken>>({ last_token_issued_at: _, ...rest }: Token) => rest;
