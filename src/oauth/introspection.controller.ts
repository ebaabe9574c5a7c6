import { Controller, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { bearerToken } from '../access/access.js';
import { charge } from '../access/rate-limit.js';
import { Config } from '../config/config.js';
import { bearerChallenge, OAuthError } from '../kernel/oauth-error.js';
import { allowedScopes } from '../kernel/scope.js';
import type { OrganizationFacts } from '../organizations/organizations.service.js';
import { RateLimits } from '../rate-limits/rate-limits.js';
import { clientIdOf } from '../service-accounts/service-account.entity.js';
import { TokenRejected, Tokens, type VerifiedToken } from '../tokens/tokens.service.js';
import { ClientAuthentication } from './client-authentication.js';
import { answer, OAuthEndpoint } from './endpoint.js';
import { Introspection, PresentedToken } from './oauth.dto.js';
import { assertRealm, INTROSPECTION_PATHS } from './paths.js';
import { type OAuthRequest, readRequest } from './token-request.js';

const INTROSPECT = 'tokens:introspect';

/** Who asks about a token: where they belong, and what they may. */
interface Asker {
  organization: OrganizationFacts;
  scopes: readonly string[];
}

/** RFC 7662. It judges as the guards do; that an API asked is counted with its use of this one, not recorded. */
@ApiTags('OAuth 2.0')
@Controller()
export class IntrospectionController {
  constructor(
    private readonly authentication: ClientAuthentication,
    private readonly tokens: Tokens,
    private readonly limits: RateLimits,
    private readonly config: Config,
  ) {}

  @OAuthEndpoint(INTROSPECTION_PATHS, {
    operationId: 'introspectToken',
    summary: 'Whether an access token is good now',
    description:
      'RFC 7662, for APIs that were presented a token. Any service account may ask about tokens of its own organization, by its credentials or by an access token that holds `tokens:introspect`; an account of the platform\'s organization that holds that scope, about all. Every other token is `{"active": false}`. An API accepts a token only if `aud` names that API. An answer is true for the moment: who caches it accepts a token for that long after it was revoked.',
    body: PresentedToken,
    ok: { type: Introspection, description: 'What the token says, or that it is not active' },
    refusals: {
      401: 'Neither the client nor its access token is accepted',
      403: 'The access token lacks `tokens:introspect`',
      503: 'Revocations cannot be seen',
    },
  })
  @ApiBearerAuth('bearer')
  async introspect(@Req() http: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    assertRealm(http, this.config);
    const request = readRequest(http);
    const asker = await this.asker(request);
    await charge(this.limits, asker.organization, reply);
    const token = request.parameters.get('token');
    if (token === undefined) throw new OAuthError('invalid_request', 'token is missing');
    answer(reply, await this.tell(asker, token));
  }

  private async asker(request: OAuthRequest): Promise<Asker> {
    if (/^bearer( |$)/i.test(request.http.headers.authorization ?? '')) return this.byToken(request);
    const { client, organization } = await this.authentication.authenticate(request);
    return { organization, scopes: allowedScopes(client.scopes, organization) };
  }

  /** RFC 7662 §2.1: a token of the API's own. Unlike credentials it is given for a purpose, so it must hold the scope for this one. */
  private async byToken({ http, parameters }: OAuthRequest): Promise<Asker> {
    const text = bearerToken(http);
    if (typeof text !== 'string')
      throw refused('invalid_request', 'The Authorization header is not one bearer token', { status: 400 });
    if (
      ['client_secret', 'client_assertion', 'client_assertion_type'].some((name) => parameters.get(name) !== undefined)
    )
      throw refused('invalid_request', 'The request authenticates in more than one way', { status: 400 });
    const { organization, scopes } = await this.tokens.verify(text).catch((error) => {
      throw error instanceof TokenRejected ? refused('invalid_token', error.message) : error;
    });
    if (!scopes.includes(INTROSPECT))
      throw refused('insufficient_scope', 'The access token lacks a scope', { scope: INTROSPECT });
    return { organization, scopes };
  }

  /** RFC 7662 §2.2: why a token is not active, and whether there is one, nobody is told. */
  private async tell(asker: Asker, text: string): Promise<Introspection> {
    try {
      const verified = await this.tokens.verify(text, [this.config.AUDIENCE, ...this.config.RESOURCES]);
      const own = verified.organization.id === asker.organization.id;
      const everywhere = asker.organization.platform && asker.scopes.includes(INTROSPECT);
      return own || everywhere ? this.describe(verified) : { active: false };
    } catch (error) {
      if (error instanceof TokenRejected) return { active: false };
      throw error;
    }
  }

  /** The claims of the JWT format (RFC 9068), whatever the format. */
  private describe({ token, scopes, audience }: VerifiedToken): Introspection {
    return {
      active: true,
      iss: this.config.ISSUER_URL,
      sub: token.subjectId,
      aud: audience.length === 1 ? audience[0] : audience,
      ...(token.clientId !== null && { client_id: clientIdOf(token.clientId) }),
      scope: scopes.join(' '),
      exp: token.expiresAt,
      iat: token.issuedAt,
      jti: token.id,
      token_type: 'Bearer',
      org_id: token.organizationId,
      credential_id: token.credentialId,
    };
  }
}

/** RFC 6750 §3.1, in the form that errors have here. */
function refused(
  code: 'invalid_request' | 'invalid_token' | 'insufficient_scope',
  description: string,
  { status, scope }: { status?: number; scope?: string } = {},
): OAuthError {
  return new OAuthError(code, description, {
    status,
    headers: { 'WWW-Authenticate': bearerChallenge(code, description, scope) },
  });
}
