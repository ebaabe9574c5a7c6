import { Controller, HttpCode, Post, Req, Res } from '@nestjs/common';
import {
  ApiBasicAuth,
  ApiBody,
  ApiConsumes,
  ApiOkResponse,
  ApiOperation,
  ApiResponse,
  ApiSecurity,
  ApiTags,
} from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Public, requestInfo } from '../access/access.js';
import { charge } from '../access/rate-limit.js';
import { Config } from '../config/config.js';
import { OAuthError } from '../kernel/oauth-error.js';
import { RateLimits } from '../rate-limits/rate-limits.js';
import { TokenRevocations } from '../tokens/token-revocations.js';
import { answer } from './answer.js';
import { ClientAuthentication } from './client-authentication.js';
import { OAuthErrorBody, PresentedToken } from './oauth.dto.js';
import { assertRealm, REVOCATION_PATHS } from './paths.js';
import { readRequest } from './token-request.js';

/** RFC 7009. */
@ApiTags('OAuth 2.0')
@Controller()
export class RevocationController {
  constructor(
    private readonly authentication: ClientAuthentication,
    private readonly revocations: TokenRevocations,
    private readonly limits: RateLimits,
    private readonly config: Config,
  ) {}

  @Post([...REVOCATION_PATHS])
  @Public({ crossOrigin: true })
  @HttpCode(200)
  @ApiOperation({
    operationId: 'revokeToken',
    summary: "Revoke an access token of one's own",
    description:
      'RFC 7009. When it answers 200, no instance accepts the token: because it was revoked now or before, has expired, or never was one. A token of another client that has not expired is refused as `unauthorized_client`. It ends one token; to end all that a leaked secret was used for, revoke the secret.',
  })
  @ApiConsumes('application/x-www-form-urlencoded', 'application/json')
  @ApiBody({ type: PresentedToken })
  @ApiSecurity({}) // the credentials may stand in the body
  @ApiBasicAuth('client')
  @ApiOkResponse({ schema: { type: 'object', example: {} }, description: 'It is dead' })
  @ApiResponse({ status: 400, type: OAuthErrorBody, description: "The request is not valid, or another client's" })
  @ApiResponse({ status: 401, type: OAuthErrorBody, description: 'Client authentication failed' })
  @ApiResponse({ status: 413, type: OAuthErrorBody, description: 'The body is over 16 KiB' })
  @ApiResponse({ status: 415, type: OAuthErrorBody, description: 'The body has another media type' })
  @ApiResponse({ status: 429, type: OAuthErrorBody, description: 'Too many failed attempts, or tokens revoked singly' })
  @ApiResponse({
    status: 503,
    type: OAuthErrorBody,
    description: 'It could not be recorded, or revocations not be seen',
  })
  async revoke(@Req() http: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    assertRealm(http, this.config);
    const request = readRequest(http);
    const client = await this.authentication.authenticate(request);
    // Charged and never refused: a limit that a stolen token has used up must not keep it alive.
    await charge(this.limits, client.organization, reply, true);
    const token = request.parameters.get('token');
    if (token === undefined) throw new OAuthError('invalid_request', 'token is missing');
    // `token_type_hint` could only speed up a search, and nothing is searched for.
    await this.revocations.revoke(client, token, requestInfo(http));
    answer(reply, {}); // an empty body is no JSON, and some clients parse it
  }
}
