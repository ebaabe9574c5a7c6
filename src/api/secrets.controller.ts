import { Body, Controller, Get, Header, HttpCode, Param, Post, Query, Res } from '@nestjs/common';
import { ApiCreatedResponse, ApiOkResponse, ApiOperation, ApiTags } from '@nestjs/swagger';
import { IsInt, IsString, Max, MaxLength, Min } from 'class-validator';
import type { FastifyReply } from 'fastify';
import { CurrentCaller, EvenOverLimit, RequireScopes, StepUp } from '../access/access.js';
import { IsInstant, Omittable } from '../access/fields.js';
import { PageQuery, page } from '../access/page.js';
import { created } from '../access/replay.js';
import type { Caller } from '../kernel/actor.js';
import { Cursors } from '../keyring/cursors.js';
import { Credentials } from '../service-accounts/credentials/credentials.service.js';
import { SecretKind } from '../service-accounts/credentials/secret.js';

export class CreateSecret {
  @Omittable()
  @IsString()
  @MaxLength(128)
  label?: string;

  /** When it ends by itself. No token issued on it lives longer. */
  @Omittable()
  @IsInstant()
  expires_at?: string;
}

export class RotateSecret extends CreateSecret {
  /** The old secret expires after this long: at least the account's `token_ttl_seconds`. Left out: when it is revoked. */
  @Omittable()
  @IsInt()
  @Min(60)
  @Max(365 * 86_400)
  overlap_seconds?: number;
}

export class RevokeSecret {
  /** Stands in the audit log and in the revocation list. */
  @Omittable()
  @IsString()
  @MaxLength(256)
  reason?: string;
}

export class Creator {
  type: string;
  id: string | null;
  /** The name at that moment. */
  name: string;
}

export class SecretView {
  id: string;
  label: string;
  /** The last four characters of the secret. */
  hint: string;
  created_by: Creator;
  created_at: Date;
  expires_at: Date | null;
  revoked_at: Date | null;
  last_token_issued_at: Date | null;
}

export class NewSecretView extends SecretView {
  /** The client secret, in this answer and never again; not in a repeat under the same Idempotency-Key either. */
  secret?: string;
}

export class SecretPage {
  data: SecretView[];
  next_cursor: string | null;
}

export class Instances {
  live: number;
  /** Those that said so themselves; the others were waited out. */
  confirmed: number;
}

export class Receipt {
  revocation_id: string;
  revoked_at: Date;
  credential_id: string;
  /** When the last token issued on it has expired at the latest: from then on even a verifier that never asked is safe. */
  tokens_expire_by: Date;
  instances: Instances;
  waited_ms: number;
  bound_ms: number;
}

@ApiTags('Secrets')
@Controller('api/v1/service-accounts/:id/secrets')
@RequireScopes('admin:access')
export class SecretsController {
  constructor(
    private readonly credentials: Credentials,
    private readonly kind: SecretKind,
    private readonly cursors: Cursors,
  ) {}

  @Get()
  @ApiOperation({ operationId: 'listSecrets', summary: "List an account's secrets" })
  @ApiOkResponse({ type: SecretPage })
  list(@CurrentCaller() caller: Caller, @Param('id') id: string, @Query() query: PageQuery): Promise<SecretPage> {
    const list = { route: 'secrets', organization: caller.organizationId, id };
    return page(this.cursors, list, query, (limit, after) =>
      this.credentials.list(caller.organizationId, this.kind, id, limit, after?.[0]),
    );
  }

  // It shows a credential, so it carries the headers of RFC 6749 §5.1, as a token does.
  @Post()
  @StepUp()
  @Header('Pragma', 'no-cache')
  @ApiOperation({ operationId: 'createSecret', summary: 'Create a secret' })
  @ApiCreatedResponse({ type: NewSecretView })
  async create(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Body() body: CreateSecret,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<NewSecretView> {
    return created(reply, await this.credentials.create(caller, this.kind, id, settings(body)));
  }

  @Post(':secret_id/rotate')
  @StepUp()
  @Header('Pragma', 'no-cache')
  @ApiOperation({
    operationId: 'rotateSecret',
    summary: 'Rotate a secret by overlap',
    description: 'Adds a successor and lets the old secret go on, so that traffic moves without a gap.',
  })
  @ApiCreatedResponse({ type: NewSecretView })
  async rotate(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Param('secret_id') secretId: string,
    @Body() body: RotateSecret,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<NewSecretView> {
    return created(
      reply,
      await this.credentials.rotate(caller, this.kind, id, secretId, {
        ...settings(body),
        overlapSeconds: body.overlap_seconds,
      }),
    );
  }

  @Post(':secret_id/revoke')
  @EvenOverLimit()
  @HttpCode(200)
  @ApiOperation({
    operationId: 'revokeSecret',
    summary: 'Revoke a secret and its tokens',
    description:
      'Kills every token that was issued on the secret, on every instance, before it answers. Tokens of its siblings live on.',
  })
  @ApiOkResponse({ type: Receipt })
  revoke(
    @CurrentCaller() caller: Caller,
    @Param('id') id: string,
    @Param('secret_id') secretId: string,
    @Body() { reason }: RevokeSecret,
  ): Promise<Receipt> {
    return this.credentials.revoke(caller, this.kind, id, secretId, reason);
  }
}

const settings = ({ label, expires_at }: CreateSecret) => ({
  label,
  expiresAt: expires_at === undefined ? undefined : new Date(expires_at),
});
