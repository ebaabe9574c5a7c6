import { Injectable } from '@nestjs/common';
import { Changes } from '../changes/changes.js';
import { Recorder } from '../changes/recorder.js';
import { Config } from '../config/config.js';
import type { Caller, RequestInfo } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { clientRefused, OAuthError } from '../kernel/oauth-error.js';
import { Problem } from '../kernel/problem.js';
import { RevocationView } from '../revocation/revocation-view.js';
import { Revocations } from '../revocation/revocations.js';
import type { AuthenticatedClient } from '../service-accounts/clients.js';
import { type AccessToken, isPersonal } from './access-token.js';
import { TokenRejected, Tokens } from './tokens.service.js';

/** RFC 7009: clients end single tokens of their own. Each costs a line on the feed until it would have expired, so there is a quota. */
@Injectable()
export class TokenRevocations {
  constructor(
    private readonly tokens: Tokens,
    private readonly changes: Changes,
    private readonly recorder: Recorder,
    private readonly revocations: Revocations,
    private readonly view: RevocationView,
    private readonly clock: Clock,
    private readonly config: Config,
  ) {}

  /**
   * When it resolves, no instance accepts the text as a token any more: because it never did, or not since now (P1). A token of
   * another client is refused, which its sender is told (RFC 7009 §2.1): a success would leave them in the belief that it is dead.
   * Refusals are recorded while their sender is within its limit, so that nobody fills a log with them.
   */
  async revoke(client: AuthenticatedClient, text: string, request: RequestInfo, withinLimit: boolean): Promise<void> {
    const token = await this.read(text);
    if (!token || token.expiresAt * 1000 <= this.clock.now()) return;
    try {
      if (token.clientId !== client.client.id)
        throw new OAuthError('unauthorized_client', 'The token was not issued to this client');
      // RFC 7009 §2.2.1. It is a credential, with a row that says whether it was revoked, and by whom.
      if (isPersonal(token))
        throw new OAuthError('unsupported_token_type', 'A personal access token is revoked through the management API');
      await this.end(token, this.caller(client, request));
    } catch (error) {
      if (error instanceof OAuthError && withinLimit) {
        const { actor, credential } = this.caller(client, request);
        const failure = { action: 'token.revoked', outcome: 'failure', reason: error.code } as const;
        await this.recorder.record({ ...failure, actor, credentialId: credential.id, request });
      }
      // Its secret was revoked since it authenticated.
      if (error instanceof Problem && error.code === 'unauthenticated') throw clientRefused();
      throw error;
    }
  }

  private async end(token: AccessToken, by: Caller): Promise<void> {
    await this.changes.run(by, async (change) => {
      // Dead already, with its secret or by itself: nothing is recorded, and the answer waits until every instance knows.
      if (!this.view.alive(token)) return undefined;
      const { organizationId } = token;
      const target = { type: 'access_token', id: token.id, name: `${by.actor.name}, issued ${time(token.issuedAt)}` };
      if (!(await change.revokeToken(target, organizationId, token.expiresAt))) return undefined;
      const most = this.config.MAX_TOKEN_REVOCATIONS_PER_ORGANIZATION;
      const { count, wait } = await this.revocations.endedTokens(change.tx, organizationId, most);
      if (count >= most) {
        const advice = 'Too many tokens were revoked one by one: revoke their secret, which ends all of them at once';
        const headers = { 'Retry-After': String(Math.max(1, wait)) };
        throw new OAuthError('temporarily_unavailable', advice, { status: 429, headers });
      }
      change.record({
        action: 'token.revoked',
        tokenId: token.id,
        targets: [target],
        changes: { credential_id: { from: token.credentialId }, expires_at: { from: time(token.expiresAt) } },
      });
      return undefined;
    });
  }

  /** Undefined for what was never issued here. */
  private async read(text: string): Promise<AccessToken | undefined> {
    try {
      return await this.tokens.open(text);
    } catch (error) {
      if (error instanceof TokenRejected) return undefined;
      throw error;
    }
  }

  /** The client as one who makes a change: its own secret is re-checked within it. It needs no scope to end what is its own. */
  private caller({ client, credential, holds }: AuthenticatedClient, request: RequestInfo): Caller {
    return {
      actor: client.actor,
      organizationId: client.organizationId,
      scopes: new Set(),
      credential: { type: credential.kind, id: credential.id },
      tokenId: null,
      holds,
      authenticatedAt: null,
      request,
    };
  }
}

const time = (numericDate: number) => new Date(numericDate * 1000).toISOString();
