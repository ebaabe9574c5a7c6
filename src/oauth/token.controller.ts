import { Controller, Inject, Req, Res } from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import { ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { requestInfo } from '../access/access.js';
import { charge } from '../access/rate-limit.js';
import { Recorder } from '../changes/recorder.js';
import { UsedBefore } from '../changes/single-use.js';
import { Config } from '../config/config.js';
import type { RequestInfo } from '../kernel/actor.js';
import { clientRefused, OAuthError } from '../kernel/oauth-error.js';
import { parseScope } from '../kernel/scope.js';
import { RateLimits } from '../rate-limits/rate-limits.js';
import type { AuthenticatedClient, Client } from '../service-accounts/clients.js';
import type { Authorization } from '../tokens/authorization.js';
import { type IssuedToken, Tokens } from '../tokens/tokens.service.js';
import { ClientAuthentication } from './client-authentication.js';
import { answer, handleNatively, OAuthEndpoint } from './endpoint.js';
import type { Grant } from './grants/grant.js';
import { TokenRequest, TokenResponse } from './oauth.dto.js';
import { assertRealm, TOKEN_PATHS } from './paths.js';
import { type OAuthRequest, type Parameters, readRequest } from './token-request.js';

export const GRANT_TYPES = Symbol('grants');

@ApiTags('OAuth 2.0')
@Controller()
export class TokenController {
  constructor(
    @Inject(GRANT_TYPES) private readonly grants: readonly Grant[],
    private readonly authentication: ClientAuthentication,
    private readonly tokens: Tokens,
    private readonly recorder: Recorder,
    private readonly limits: RateLimits,
    private readonly config: Config,
    host: HttpAdapterHost,
  ) {
    handleNatively(host, TOKEN_PATHS, (http, reply) => this.token(http, reply));
  }

  @OAuthEndpoint(TOKEN_PATHS, {
    operationId: 'issueToken',
    summary: 'Issue an access token',
    description:
      'Exchanges client credentials for a short-lived access token (RFC 6749 §4.4). Credentials go into the Authorization header (HTTP Basic) or into the body, not both; or the client signs an assertion with its own key (`private_key_jwt`, RFC 7523). There is no refresh token: ask again some 30 seconds before `expires_in` has passed.',
    body: TokenRequest,
    ok: { type: TokenResponse, description: 'The token' },
    refusals: { 503: 'The issuance could not be recorded, or revocations not be seen' },
  })
  async token(@Req() http: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    assertRealm(http, this.config);
    // 1. Parse: flat, no repeated parameter, nothing in the URL.
    const request = readRequest(http);
    // 2. Authenticate the client. The event that step 7 or the refusal records consumes a proof that is good for one request.
    const client = await this.authentication.authenticate(request, { deferred: true });
    // 3. Charge its organization: only now, so that nobody else can use its limit up. A refusal is not recorded one by one.
    await charge(this.limits, client.organization, reply);
    const info = requestInfo(http);
    try {
      // 4. The grant decides.
      const grant = this.grant(request.parameters);
      const decision = await grant.decide(client, request.parameters);
      // 5. Narrow the scopes.
      const scopes = this.narrow(decision.scopes, request.parameters.get('scope'));
      // 6. Choose the audience.
      const audience = this.audience(client.client, request.resources);
      // 7. Sign and record, in one commit with others.
      const issued = await this.tokens.issue({ ...decision, scopes, audience }, info);
      if (!issued) throw clientRefused();
      // 8. Answer.
      answer(reply, tokenResponse(issued, scopes.join(' '), decision.answer));
    } catch (error) {
      throw await this.refusal(error, request, client, info);
    }
  }

  private grant(parameters: Parameters): Grant {
    const asked = parameters.get('grant_type');
    const grant = this.grants.find(({ type }) => type === asked);
    if (grant) return grant;
    // D1: the published error, or RFC 6749 §5.2's by a setting. The description is exact in both.
    const rfc = this.config.GRANT_TYPE_ERRORS === 'rfc6749';
    const supported = `supported: ${this.grants.map(({ type }) => type).join(', ')}`;
    if (asked === undefined)
      throw new OAuthError(rfc ? 'invalid_request' : 'invalid_grant', `grant_type is missing; ${supported}`);
    throw new OAuthError(
      rfc ? 'unsupported_grant_type' : 'invalid_grant',
      `grant_type is not one that this server supports; ${supported}`,
    );
  }

  /** D8: without `scope` all that is allowed; asking beyond it is refused, never narrowed in silence. */
  private narrow(allowed: readonly string[], scope: string | undefined): readonly string[] {
    if (scope === undefined) return allowed;
    const asked = parseScope(scope);
    if (!asked) throw new OAuthError('invalid_scope', 'scope is not a list of scope tokens');
    if (asked.some((token) => !allowed.includes(token)))
      throw new OAuthError('invalid_scope', 'A requested scope is not one that this client may use');
    // `openid` alone asks for nothing that a machine can have (D22).
    return asked.length > 0 ? asked : allowed;
  }

  /**
   * RFC 8707 §2: all that is asked for, or our own. An account that is set to none asks in vain, as a client does of a server that
   * knows no resources.
   */
  private audience(client: Client, resources: readonly string[]): readonly string[] {
    if (resources.length === 0 || client.resources.length === 0) return [this.config.AUDIENCE];
    if (resources.some((resource) => !this.tokens.mayAskFor(client, resource)))
      throw new OAuthError('invalid_target', 'A requested resource is not one that this client may ask for');
    return [...new Set(resources)];
  }

  /** The error to throw, once it is recorded: an assertion that was refused something is used up as well. */
  private async refusal(
    error: unknown,
    oauthRequest: OAuthRequest,
    authenticated: AuthenticatedClient,
    request: RequestInfo,
  ): Promise<unknown> {
    const { client, credential, once } = authenticated;
    try {
      if (error instanceof UsedBefore) throw error;
      if (error instanceof OAuthError) {
        const { actor } = client;
        const event = { action: 'token.issued', outcome: 'failure', reason: error.code, actor, request } as const;
        await this.recorder.record({ ...event, credentialId: credential.id }, { once });
      }
      return error;
    } catch (other) {
      return other instanceof UsedBefore ? this.authentication.refuseReplay(oauthRequest, authenticated) : other;
    }
  }
}

/** RFC 6749 §5.1. Neither a token nor a scope (RFC 6749 §3.3) has a character that JSON escapes, so the text is put together as it is. */
const tokenResponse = ({ text, expiresIn }: IssuedToken, scope: string, more: Authorization['answer']): string =>
  `{"access_token":"${text}","token_type":"Bearer","expires_in":${expiresIn},"scope":"${scope}"${more ? `,${JSON.stringify(more).slice(1, -1)}` : ''}}`;
