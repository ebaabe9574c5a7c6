import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { headerCount, requestInfo } from '../access/access.js';
import { Recorder } from '../changes/recorder.js';
import { SingleUses, UsedBefore } from '../changes/single-use.js';
import { Config } from '../config/config.js';
import { PLATFORM_ORGANIZATION } from '../kernel/actor.js';
import { Attempts, networkOf, shareOf } from '../kernel/attempts.js';
import { Clock } from '../kernel/clock.js';
import { basicChallenge, OAuthError } from '../kernel/oauth-error.js';
import { RevocationView } from '../revocation/revocation-view.js';
import type { AuthenticatedClient, Refusal, Refused } from '../service-accounts/clients.js';
import { accountIdOf } from '../service-accounts/service-account.entity.js';
import { SYSTEM } from '../tokens/keys.service.js';
import type { AssertionFault, ClientAuthMethod } from './client-auth/client-auth-method.js';
import type { OAuthRequest } from './token-request.js';

export const METHODS = Symbol('client authentication methods');

/**
 * Refusals that one network, and one network with one client id, may cause in a minute before they are only counted. Nobody guesses
 * 256 bits: the limits keep a flood from filling the audit log, and leave room for a fleet that was given a wrong secret.
 */
const REFUSALS_PER_NETWORK = 1200;
const REFUSALS_PER_CLIENT = 600;
const WINDOW_MS = 60_000;
const MAX_NETWORKS = 50_000;
const COUNT_EVERY_MS = 10_000;

/**
 * Authenticates clients at every OAuth endpoint: exactly one method a request, one answer for every refusal, each refusal recorded.
 * Only failures are charged, to their network: whoever guesses wrong never locks out the rightful client, even from the same address.
 */
@Injectable()
export class ClientAuthentication implements OnApplicationShutdown {
  private readonly byNetwork: Attempts;
  private readonly byClient: Attempts;
  private throttled = new Map<string, number>();
  private readonly counter: NodeJS.Timeout;

  constructor(
    @Inject(METHODS) private readonly methods: readonly ClientAuthMethod[],
    private readonly recorder: Recorder,
    private readonly singleUses: SingleUses,
    private readonly view: RevocationView,
    clock: Clock,
    config: Config,
  ) {
    const buckets = (limit: number) =>
      new Attempts(shareOf(limit, config.WORKERS), WINDOW_MS, MAX_NETWORKS, () => clock.monotonic());
    this.byNetwork = buckets(REFUSALS_PER_NETWORK);
    this.byClient = buckets(REFUSALS_PER_CLIENT);
    this.counter = setInterval(() => this.recordThrottled(), COUNT_EVERY_MS).unref();
  }

  /**
   * The client that the request proves to be. A proof that is good for one request is used up by this, unless the caller records an
   * event that does so (`deferred`). Throws invalid_client (401), invalid_request, or Unavailable when this instance is blind.
   */
  async authenticate(request: OAuthRequest, { deferred = false } = {}): Promise<AuthenticatedClient> {
    this.view.assertFresh();
    const { http, parameters } = request;
    // Base64 has no comma, so Basic credentials with one are two; other schemes have parameters, and fail as what they are.
    if (headerCount(http, 'authorization') > 1 || /^basic\b[^,]*,/i.test(http.headers.authorization ?? '')) {
      throw new OAuthError('invalid_request', 'There is more than one Authorization header');
    }
    const used = this.methods.filter((method) => method.uses(request));
    if (used.length > 1) throw new OAuthError('invalid_request', 'The request authenticates in more than one way');
    const [method] = used;
    const named = parameters.get('client_id');
    if (!method) throw await this.refuse(request, named, undefined, 'no_credentials');
    const { claimed, outcome, noted } = await method.prove(request);
    if (claimed !== undefined && named !== undefined && named !== claimed) {
      throw await this.refuse(request, claimed, undefined, 'client_id_mismatch');
    }
    if ('refused' in outcome) throw await this.refuse(request, claimed, outcome, outcome.refused, noted);
    const { client, credential } = outcome;
    if (client.clientAuthMethods && !client.clientAuthMethods.includes(method.name))
      throw await this.refuse(request, claimed, { client, credentialId: credential.id }, 'method_not_allowed');
    if (outcome.once && !deferred) {
      await this.singleUses.consume(outcome.once).catch(async (error) => {
        throw error instanceof UsedBefore ? await this.refuseReplay(request, outcome) : error;
      });
    }
    return outcome;
  }

  /** The refusal of a proof that was good, and was used before. */
  refuseReplay(request: OAuthRequest, { client, credential, once }: AuthenticatedClient): Promise<OAuthError> {
    const noted = once && { jti_sha256: once.hash.toString('hex') };
    const proved = { client, credentialId: credential.id };
    return this.refuse(request, client.clientId, proved, 'replayed_assertion', noted);
  }

  onApplicationShutdown(): void {
    clearInterval(this.counter);
  }

  private async refuse(
    request: OAuthRequest,
    claimed: string | undefined,
    refused: Pick<Refused, 'client' | 'credentialId'> | undefined,
    reason: Refusal | AssertionFault | 'no_credentials' | 'client_id_mismatch' | 'method_not_allowed',
    noted?: Readonly<Record<string, string>>,
  ): Promise<OAuthError> {
    const info = requestInfo(request.http);
    const network = networkOf(info.address);
    const wait = this.byClient.take(`${network} ${claimed?.slice(0, 64) ?? ''}`) || this.byNetwork.take(network);
    if (wait > 0) {
      if (this.throttled.size < MAX_NETWORKS) this.throttled.set(network, (this.throttled.get(network) ?? 0) + 1);
      return new OAuthError('temporarily_unavailable', 'Too many failed attempts from this address', {
        status: 429,
        headers: { 'Retry-After': String(wait) },
      });
    }
    const client = refused?.client;
    const organizationId = client?.organizationId ?? PLATFORM_ORGANIZATION;
    await this.recorder.record({
      action: 'client.authenticated',
      outcome: 'failure',
      reason,
      // Nobody has proved to be the client: the name is a claim. What is no client id is not repeated; it may be a misplaced secret.
      actor: { type: 'anonymous', id: null, name: claimed && accountIdOf(claimed) ? claimed : '', organizationId },
      credentialId: refused?.credentialId,
      targets: client && [{ type: 'service_account', id: client.id, name: client.name }],
      changes: noted && Object.fromEntries(Object.entries(noted).map(([name, to]) => [name, { to }])),
      request: info,
    });
    if (reason === 'client_id_mismatch')
      return new OAuthError('invalid_request', 'client_id is not the one that the request authenticates as');
    return new OAuthError('invalid_client', DESCRIPTIONS[reason] ?? REFUSED, {
      headers: { 'WWW-Authenticate': basicChallenge },
    });
  }

  private recordThrottled(): void {
    const counted = this.throttled;
    if (counted.size === 0) return;
    this.throttled = new Map();
    const sum = [...counted.values()].reduce((a, b) => a + b, 0);
    const worst = [...counted].sort((a, b) => b[1] - a[1]).slice(0, 10);
    const changes = {
      refusals: { to: sum },
      networks: { to: counted.size },
      most_from: { to: Object.fromEntries(worst) },
    };
    this.recorder.record({ ...SYSTEM, action: 'authentication.throttled', outcome: 'failure', changes }).catch(() => {
      for (const [network, count] of counted) this.throttled.set(network, (this.throttled.get(network) ?? 0) + count);
    });
  }
}

/** Unknown id, wrong secret, disabled account, revoked secret: the caller is told the same. */
const REFUSED = 'Client authentication failed';
const DESCRIPTIONS: Partial<Record<string, string>> = {
  no_credentials: 'The request carries no client credentials',
  other_environment: 'The secret is of another environment',
  // Told only to whoever signed with a key of the client's: nobody learns anything of another.
  wrong_issuer: 'iss and sub of the client assertion must both be the client id',
  wrong_audience:
    'aud of the client assertion must be one value: the issuer, or where this server accepts it the URL of this endpoint',
  incomplete_assertion: 'The client assertion needs exp and jti, and its times in whole seconds',
  expired_assertion: 'The client assertion expired',
  assertion_lives_too_long: 'A client assertion may live five minutes at most: exp lies too far ahead',
  assertion_from_the_future: 'The client assertion is not valid yet: iat or nbf lies in the future',
  replayed_assertion: 'The client assertion was used before: sign a new one, with a new jti, for each request',
};
