import { Body, Controller, Get, HttpCode, Param, Post, Query } from '@nestjs/common';
import { ApiOkResponse, ApiOperation, ApiProperty, ApiTags } from '@nestjs/swagger';
import { IsIn, IsString, MaxLength } from 'class-validator';
import { CurrentCaller, RequireScopes, StepUp } from '../access/access.js';
import { Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import type { Caller } from '../kernel/actor.js';
import { Cursors } from '../keyring/cursors.js';
import type { KeyRecord } from '../keyring/keyring.js';
import { Keys, ROTATING, type Rotating } from '../tokens/keys.service.js';
import { Instances } from './secrets.controller.js';

export class RotatePlatformKey {
  /** `token-sign` signs JWTs, `token-seal` seals opaque tokens, `credential-hash` hashes secrets and sessions. */
  @IsIn(ROTATING)
  purpose: Rotating;
}

export class RevokePlatformKey {
  /** Stands in the audit log and in the revocation list. */
  @Omittable()
  @IsString()
  @MaxLength(256)
  reason?: string;
}

/** Never the material. */
export class PlatformKeyView {
  kid: string;
  purpose: string;
  algorithm: string;
  @ApiProperty({ enum: ['pending', 'active', 'retiring', 'retired', 'revoked'] })
  state: string;
  /** Names the master key that wraps it; null when its material is destroyed. */
  master_key_id: string | null;
  created_at: Date;
  /** When it is to be used at the earliest. */
  activates_at: Date;
  activated_at: Date | null;
  retiring_at: Date | null;
  retired_at: Date | null;
  revoked_at: Date | null;
  revoked_reason: string | null;
}

export class PlatformKeyPage {
  data: PlatformKeyView[];
  next_cursor: string | null;
}

export class PlatformKeyReceipt {
  revocation_id: string;
  revoked_at: Date;
  kid: string;
  /** The key in use now. */
  active_kid: string;
  /** When the last token made with it has expired at the latest. */
  tokens_expire_by: Date;
  /** Until when a verifier elsewhere may go on with a copy of the JWKS that holds the key, unless it fetches anew; null for sealing keys. */
  jwks_cached_until: Date | null;
  instances: Instances;
  waited_ms: number;
  bound_ms: number;
}

@ApiTags('Platform keys')
@Controller('api/v1/keys')
@RequireScopes('platform:admin')
export class PlatformKeysController {
  constructor(
    private readonly keys: Keys,
    private readonly cursors: Cursors,
  ) {}

  @Get()
  @ApiOperation({
    operationId: 'listPlatformKeys',
    summary: 'The keys of the platform, newest first; never their material',
  })
  @ApiOkResponse({ type: PlatformKeyPage })
  list(@Query() query: PageQuery): Promise<PlatformKeyPage> {
    const fetch = async (limit: number, after?: readonly string[]) =>
      (await this.keys.list(limit, after?.[0])).map(view);
    return page(this.cursors, { route: 'keys' }, query, fetch, ({ kid }) => [kid]);
  }

  @Post('rotate')
  @HttpCode(200)
  @StepUp()
  @ApiOperation({
    operationId: 'rotatePlatformKey',
    summary: 'Begin a rotation',
    description:
      'Answers with the next key: pending until verifiers have had time to see it (a signing key), or in use at once. A rotation that is under way is not begun twice.',
  })
  @ApiOkResponse({ type: PlatformKeyView })
  async rotate(@CurrentCaller() caller: Caller, @Body() { purpose }: RotatePlatformKey): Promise<PlatformKeyView> {
    return view(await this.keys.rotate(purpose, caller));
  }

  @Post(':kid/revoke')
  @HttpCode(200)
  @StepUp()
  @ApiOperation({
    operationId: 'revokePlatformKey',
    summary: 'Revoke a key that leaked, and every token made with it',
    description:
      'Kills every token that was signed or sealed with the key, on every instance, and takes it out of the JWKS, before it answers. ' +
      'The next key takes over at once. Who verifies JWTs with a cached JWKS must fetch it anew: until `jwks_cached_until` they may go on with the old one.',
  })
  @ApiOkResponse({ type: PlatformKeyReceipt })
  revoke(
    @CurrentCaller() caller: Caller,
    @Param('kid') kid: string,
    @Body() { reason }: RevokePlatformKey,
  ): Promise<PlatformKeyReceipt> {
    return this.keys.revoke(kid, caller, reason);
  }
}

const view = (key: KeyRecord): PlatformKeyView => ({
  kid: key.kid,
  purpose: key.purpose,
  algorithm: key.algorithm,
  state: key.state,
  master_key_id: key.masterKeyId,
  created_at: key.createdAt,
  activates_at: key.activatesAt,
  activated_at: key.activatedAt,
  retiring_at: key.retiringAt,
  retired_at: key.retiredAt,
  revoked_at: key.revokedAt,
  revoked_reason: key.revokedReason,
});
