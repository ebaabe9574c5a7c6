import { Body, Controller, Get, HttpCode, Param, Post, Query, Res } from '@nestjs/common';
import {
  ApiCreatedResponse,
  ApiOkResponse,
  ApiOperation,
  ApiProperty,
  ApiPropertyOptional,
  ApiTags,
} from '@nestjs/swagger';
import { IsIn, IsObject, IsString, MaxLength } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, EvenOverLimit, RequireScopes, StepUp } from '../access/access.js';
import { IsInstant, Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import { created } from '../access/replay.js';
import type { Caller } from '../kernel/actor.js';
import { Cursors } from '../keyring/cursors.js';
import { Credentials } from '../service-accounts/credentials/credentials.service.js';
import { PublicKeyKind } from '../service-accounts/credentials/public-key.js';
import { KEY_ALGORITHMS } from '../service-accounts/credentials/read-public-key.js';
import { Creator, Receipt } from './secrets.controller.js';

export class CreateKey {
  @Omittable()
  @IsString()
  @MaxLength(128)
  label?: string;

  /** The public key as a JWK (RFC 7517), or else `pem`: Ed25519, P-256, or RSA of 2048 to 4096 bits. */
  @Omittable()
  @IsObject()
  @ApiPropertyOptional({
    type: 'object',
    additionalProperties: true,
    example: { kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' },
  })
  jwk?: Record<string, unknown>;

  /** `PUBLIC KEY`, or the `CERTIFICATE` that it stands in. */
  @Omittable()
  @IsString()
  @MaxLength(16_384)
  pem?: string;

  /** The one algorithm that the key is good for. Left out: that of the JWK's `alg`, or of the key's type; for RSA PS256. */
  @Omittable()
  @IsIn([...KEY_ALGORITHMS, 'Ed25519'])
  alg?: string;

  /** When it ends by itself. No token issued on it lives longer. */
  @Omittable()
  @IsInstant()
  expires_at?: string;
}

export class RevokeKey {
  /** Stands in the audit log and in the revocation list. */
  @Omittable()
  @IsString()
  @MaxLength(256)
  reason?: string;
}

/** RFC 7517: its public members. */
export class KeyJwk {
  @ApiProperty({ enum: ['OKP', 'EC', 'RSA'] })
  kty: string;
  /** As it was given, else the thumbprint. */
  kid: string;
  @ApiProperty({ enum: ['sig'] })
  use: string;
  @ApiProperty({ enum: KEY_ALGORITHMS })
  alg: string;
  /** Of an Ed25519 or P-256 key: `crv`, `x`; of the latter `y`. */
  crv?: string;
  x?: string;
  y?: string;
  /** Of an RSA key: `n`, `e`. */
  n?: string;
  e?: string;
}

export class KeyView {
  /** A `kid` in an assertion's header may be this, or `kid`, or that of `jwk`. */
  id: string;
  label: string;
  /** The thumbprint of RFC 7638. */
  kid: string;
  @ApiProperty({ enum: KEY_ALGORITHMS })
  alg: string;
  jwk: KeyJwk;
  created_by: Creator;
  created_at: Date;
  expires_at: Date | null;
  revoked_at: Date | null;
  last_token_issued_at: Date | null;
}

export class KeyPage {
  data: KeyView[];
  next_cursor: string | null;
}

@ApiTags('Public keys')
@Controller('api/v1/service-accounts/:id/keys')
@RequireScopes('admin:access')
export class KeysController {
  constructor(
    private readonly credentials: Credentials,
    private readonly kind: PublicKeyKind,
    private readonly cursors: Cursors,
  ) {}

  @Get()
  @ApiOperation({ operationId: 'listKeys', summary: "List an account's public keys" })
  @ApiOkResponse({ type: KeyPage })
  list(@CurrentCaller() caller: Caller, @Param('id') id: string, @Query() query: PageQuery): Promise<KeyPage> {
    const list = { route: 'keys', organization: caller.organizationId, id };
    return page(this.cursors, list, query, (limit, after) =>
      this.credentials.list(caller.organizationId, this.kind, id, limit, after?.[0]),
    );
  }

  @Post()
  @StepUp()
  @ApiOperation({
    operationId: 'createKey',
    summary: 'Register a public key',
    description:
      'Its private half signs the assertions of `private_key_jwt` (RFC 7523). An account holds several, so that a pair is rotated by registering the next one, and then revoking the old. Keys are given here and never fetched: there is no `jwks_uri`.',
  })
  @ApiCreatedResponse({ type: KeyView })
  async create(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() { expires_at, ...given }: CreateKey,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<KeyView> {
    const expiresAt = expires_at === undefined ? undefined : new Date(expires_at);
    return created(reply, await this.credentials.create(caller, this.kind, id, { ...given, expiresAt }));
  }

  @Post(':key_id/revoke')
  @EvenOverLimit()
  @HttpCode(200)
  @ApiOperation({
    operationId: 'revokeKey',
    summary: 'Revoke a public key and its tokens',
    description:
      'Kills every token that was issued on the key, on every instance, before it answers. Tokens of its siblings live on. A revoked key is never taken again.',
  })
  @ApiOkResponse({ type: Receipt })
  revoke(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Param('key_id') keyId: string,
    @Body() { reason }: RevokeKey,
  ): Promise<Receipt> {
    return this.credentials.revoke(caller, this.kind, id, keyId, reason);
  }
}
