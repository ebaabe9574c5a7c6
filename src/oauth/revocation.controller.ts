import { Controller, Req, Res } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { requestInfo } from '../access/access.js';
import { charge } from '../access/rate-limit.js';
import { Config } from '../config/config.js';
import { OAuthError } from '../kernel/oauth-error.js';
import { RateLimits } from '../rate-limits/rate-limits.js';
import { TokenRevocations } from '../tokens/token-revocations.js';
import { ClientAuthentication } from './client-authentication.js';
import { answer, OAuthEndpoint } from './endpoint.js';
import { PresentedToken } from './oauth.dto.js';
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

  @OAuthEndpoint(REVOCATION_PATHS, {
    operationId: 'revokeToken',
    summary: "Revoke an access token of one's own",
    description:
      'RFC 7009. When it answers 200, no instance accepts the token: because it was revoked now or before, has expired, or never was one. A token of another client that has not expired is refused as `unauthorized_client`. It ends one token; to end all that a leaked secret was used for, revoke the secret.',
    body: PresentedToken,
    ok: { schema: { type: 'object', example: {} }, description: 'It is dead' },
    refusals: {
      400: "The request is not valid, or another client's",
      429: 'Too many failed attempts, or tokens revoked singly',
    },
  })
  async revoke(@Req() http: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    assertRealm(http, this.config);
    const request = readRequest(http);
    const client = await this.authentication.authenticate(request);
    // Charged and never refused: a limit that a stolen token has used up must not keep it alive.
    const withinLimit = await charge(this.limits, client.organization, reply, true);
    const token = request.parameters.get('token');
    if (token === undefined) throw new OAuthError('invalid_request', 'token is missing');
    // `token_type_hint` could only speed up a search, and nothing is searched for.
    await this.revocations.revoke(client, token, requestInfo(http), withinLimit);
    answer(reply, {}); // an empty body is no JSON, and some clients parse it
  }
}
