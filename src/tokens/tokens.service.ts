import { Inject, Injectable } from '@nestjs/common';
import QuickLRU from 'quick-lru';
import { Recorder } from '../changes/recorder.js';
import { Config } from '../config/config.js';
import type { Actor, RequestInfo } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { uuidv7 } from '../kernel/ids.js';
import { OAuthError } from '../kernel/oauth-error.js';
import { allowedScopes } from '../kernel/scope.js';
import { type OrganizationFacts, Organizations } from '../organizations/organizations.service.js';
import { RevocationView } from '../revocation/revocation-view.js';
import { type AuthenticatedClient, type Client, Clients } from '../service-accounts/clients.js';
import type { AccessToken, TokenFormat } from './access-token.js';

export const FORMATS = Symbol('token formats');

/** Why a token is not accepted, and what its holder is told (RFC 6750 §3.1: all are `invalid_token`). */
export const REJECTIONS = {
  malformed: 'The access token is malformed or was not issued here',
  other_environment: 'The access token is of another environment',
  wrong_audience: 'The access token is for another audience',
  expired: 'The access token expired',
  revoked: 'The access token was revoked',
} as const;

export class TokenRejected extends Error {
  override name = 'TokenRejected';
  constructor(readonly reason: keyof typeof REJECTIONS) {
    super(REJECTIONS[reason]);
  }
}

/** A token that is good now, and its account and organization as they are now. */
export interface VerifiedToken {
  token: AccessToken;
  client: Client;
  organization: OrganizationFacts;
  /** Those of the token that the account may still use. */
  scopes: string[];
  /** Those of the token that were asked about and that the account may still ask for. */
  audience: string[];
}

export interface IssuedToken {
  text: string;
  /** Seconds. */
  expiresIn: number;
}

const MAX_TOKEN_LENGTH = 8192;

/** One function decides whether a token may be issued, one whether it is good: everyone asks these. */
@Injectable()
export class Tokens {
  /** Texts that were opened: the signature need not be checked again, everything else is. */
  private readonly opened = new QuickLRU<string, AccessToken>({ maxSize: 20_000 });
  /** What our own resources are to a token. */
  private readonly own: readonly string[];

  constructor(
    @Inject(FORMATS) private readonly formats: readonly TokenFormat[],
    private readonly view: RevocationView,
    private readonly clients: Clients,
    private readonly organizations: Organizations,
    private readonly recorder: Recorder,
    private readonly clock: Clock,
    private readonly config: Config,
  ) {
    this.own = [config.AUDIENCE];
  }

  /** RFC 8707: our own audience, or one that the account is set to and that the platform still has. */
  mayAskFor(client: Client, audience: string): boolean {
    if (audience === this.config.AUDIENCE) return true;
    return client.resources.includes(audience) && this.config.RESOURCES.includes(audience);
  }

  /**
   * Issues a token on what a client proved. It is handed out only once its issuance is on disk and all that it hangs on was found
   * unchanged in that same statement; undefined when something was revoked meanwhile, and then nothing was issued.
   * Throws UsedBefore when the proof was one that is good for one request, and Unavailable when this instance is blind or the event could not be recorded.
   */
  async issue(
    { client, organization, credential, holds, once }: AuthenticatedClient,
    scopes: readonly string[],
    audience: readonly string[],
    request: RequestInfo,
  ): Promise<IssuedToken | undefined> {
    const era = this.view.era;
    if (!this.view.alive({ era, holds })) return undefined;
    const now = this.clock.now();
    const issuedAt = Math.floor(now / 1000);
    let expiresAt = issuedAt + client.tokenTtlSeconds;
    if (credential.expiresAt !== null) expiresAt = Math.min(expiresAt, Math.floor(credential.expiresAt / 1000));
    if (expiresAt <= issuedAt) return undefined;
    const token: AccessToken = {
      id: uuidv7(now),
      issuedAt,
      expiresAt,
      clientId: client.id,
      organizationId: organization.id,
      credentialId: credential.id,
      scopes,
      audience,
      era,
      holds,
    };
    const format = this.formats.find(({ name }) => name === client.tokenFormat);
    if (!format) throw new Error(`no token format ${client.tokenFormat}`);
    const text = format.seal(token);
    // What nobody would accept is not handed out: headers hold 16 KiB.
    if (text.length > MAX_TOKEN_LENGTH)
      throw new OAuthError(
        'invalid_scope',
        'A token with all these scopes and audiences would be too long: ask for fewer',
      );
    const named = audience.join(' ');
    const recorded = await this.recorder.record(
      {
        action: 'token.issued',
        actor: actorOf(client),
        credentialId: credential.id,
        tokenId: token.id,
        changes: {
          scope: { to: scopes.join(' ') },
          expires_at: { to: new Date(expiresAt * 1000).toISOString() },
          ...(named !== this.config.AUDIENCE && { audience: { to: named } }),
          ...(once && { jti_sha256: { to: once.hash.toString('hex') } }),
        },
        request,
      },
      { era, holds, once },
    );
    return recorded ? { text, expiresIn: expiresAt - issuedAt } : undefined;
  }

  /**
   * Whether a presented token is good now for one of these audiences; by default for our own resources. No I/O but for an account
   * that is not in memory. Throws TokenRejected, or Unavailable (503) when this instance could not know.
   */
  async verify(text: string, audiences: readonly string[] = this.own): Promise<VerifiedToken> {
    const token = this.open(text);
    if (!token.audience.some((name) => audiences.includes(name))) throw new TokenRejected('wrong_audience');
    if (token.expiresAt * 1000 <= this.clock.now()) throw new TokenRejected('expired');
    if (!this.view.alive(token)) throw new TokenRejected('revoked');
    const client = this.clients.byId(token.clientId);
    const present = client instanceof Promise ? await client : client;
    const facts = this.organizations.facts(token.organizationId);
    const organization = facts instanceof Promise ? await facts : facts;
    if (!present || present.disabled || present.deleted || !organization || organization.disabled)
      throw new TokenRejected('revoked');
    // Loading took its time: what was revoked meanwhile is refused, and what was loaded may be newer than the view.
    if ((client instanceof Promise || facts instanceof Promise) && !this.view.alive(token))
      throw new TokenRejected('revoked');
    if (present.epoch > token.holds[1].epoch || organization.epoch > token.holds[0].epoch)
      throw new TokenRejected('revoked');
    const audience = token.audience.filter((name) => audiences.includes(name) && this.mayAskFor(present, name));
    if (audience.length === 0) throw new TokenRejected('wrong_audience');
    const allowed = allowedScopes(present.scopes, organization);
    const scopes = token.scopes.filter((scope) => allowed.includes(scope));
    return { token, client: present, organization, scopes, audience };
  }

  /** What a text says that this server has sealed, dead or alive. Throws TokenRejected for any other. */
  open(text: string): AccessToken {
    const known = this.opened.get(text);
    if (known) return known;
    const format =
      text.length <= MAX_TOKEN_LENGTH ? this.formats.find((candidate) => candidate.recognises(text)) : undefined;
    const token = format?.open(text);
    if (!token) throw new TokenRejected(this.ofOtherEnvironment(text) ? 'other_environment' : 'malformed');
    this.opened.set(text, token);
    return token;
  }

  private ofOtherEnvironment(text: string): boolean {
    const other = this.config.ENVIRONMENT === 'live' ? 'test' : 'live';
    return /^[A-Za-z0-9]{1,32}_oa2_/.test(text) && text.split('_', 3)[2] === other;
  }
}

/** The account as the actor of an event: its name is the one of this moment. */
export const actorOf = (client: Client): Actor => ({
  type: 'service_account',
  id: client.id,
  name: client.name,
  organizationId: client.organizationId,
});
