import { Inject, Injectable } from '@nestjs/common';
import QuickLRU from 'quick-lru';
import type { NewAuditEvent } from '../audit/audit-event.js';
import { type Demands, Recorder } from '../changes/recorder.js';
import { Config } from '../config/config.js';
import type { Actor, Holds, RequestInfo } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { uuidv7 } from '../kernel/ids.js';
import { OAuthError } from '../kernel/oauth-error.js';
import { allowedScopes } from '../kernel/scope.js';
import { type Key, Keyring } from '../keyring/keyring.js';
import { type MemberFacts, Members } from '../organizations/members.js';
import { type OrganizationFacts, Organizations } from '../organizations/organizations.service.js';
import { RevocationView } from '../revocation/revocation-view.js';
import { type Client, Clients } from '../service-accounts/clients.js';
import { type AccessToken, type ClientToken, isSealed, type TokenFormat } from './access-token.js';
import type { Authorization } from './authorization.js';

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

/** A token that is good now, and its owner and organization as they are now. */
export interface VerifiedToken {
  token: AccessToken;
  /** The owner under their present name. */
  actor: Actor;
  organization: OrganizationFacts;
  /** Those of the token that the owner may still use. */
  scopes: string[];
  /** Those of the token that were asked about and that the account may still ask for. */
  audience: string[];
  /** What a change by this token must find unchanged. */
  holds: Holds;
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
  private readonly demands = new WeakMap<Holds, NonNullable<Demands['unchanged']>>();
  /** As of which departure of a key from the keyring `opened` holds. */
  private departures = 0;
  /** What our own resources are to a token. */
  private readonly own: readonly string[];

  constructor(
    @Inject(FORMATS) private readonly formats: readonly TokenFormat[],
    private readonly keyring: Keyring,
    private readonly view: RevocationView,
    private readonly clients: Clients,
    private readonly members: Members,
    private readonly organizations: Organizations,
    private readonly recorder: Recorder,
    private readonly clock: Clock,
    private readonly config: Config,
  ) {
    this.own = [config.AUDIENCE];
  }

  /** RFC 8707: our own audience, or one that the account is set to and that the platform still has. */
  mayAskFor(owner: Client | MemberFacts, audience: string): boolean {
    if (audience === this.config.AUDIENCE) return true;
    return 'resources' in owner && owner.resources.includes(audience) && this.config.RESOURCES.includes(audience);
  }

  /**
   * Issues a token. The caller gets it only after its issuance is on disk and the same statement found all that it hangs on unchanged.
   * Undefined: something was revoked meanwhile, and nothing was issued.
   * Throws UsedBefore when the client's proof is good for one request and was used before; Unavailable when this instance is blind or
   * the event could not be recorded.
   */
  async issue(authorization: Authorization, request: RequestInfo): Promise<IssuedToken | undefined> {
    const { client, organization, credential, subject, resource, holds, scopes, audience, once } = authorization;
    const era = this.view.era;
    if (!this.view.alive({ era, holds })) return undefined;
    const now = this.clock.now();
    const issuedAt = Math.floor(now / 1000);
    let expiresAt = issuedAt + client.tokenTtlSeconds;
    if (credential.expiresAt !== null) expiresAt = Math.min(expiresAt, Math.floor(credential.expiresAt / 1000));
    if (expiresAt <= issuedAt) return undefined;
    const token: ClientToken = {
      id: uuidv7(now),
      issuedAt,
      expiresAt,
      clientId: client.id,
      subjectId: subject.id,
      organizationId: organization.id,
      credentialId: credential.id,
      scopes,
      audience,
      era,
      holds,
      resource,
    };
    const format = this.formats.find(({ name }) => name === client.tokenFormat);
    if (!format || !isSealed(format)) throw new Error(`no token format ${client.tokenFormat}`);
    const named = audience.join(' ');
    const event: NewAuditEvent = {
      action: 'token.issued',
      actor: client.actor,
      onBehalfOf: subject.id === client.id ? undefined : subject,
      credentialId: credential.id,
      tokenId: token.id,
      changes: {
        scope: { to: scopes.join(' ') },
        expires_at: { to: new Date(expiresAt * 1000).toISOString() },
        ...(named !== this.config.AUDIENCE && { audience: { to: named } }),
        ...(once && { jti_sha256: { to: once.hash.toString('hex') } }),
      },
      request,
    };
    for (;;) {
      const key = this.keyring.active(format.purpose);
      const text = format.seal(token, key);
      // What nobody would accept is not handed out: headers hold 16 KiB.
      if (text.length > MAX_TOKEN_LENGTH)
        throw new OAuthError(
          'invalid_scope',
          'A token with all these scopes and audiences would be too long: ask for fewer',
        );
      const recorded = await this.recorder.record(event, { unchanged: this.unchanged(era, holds, key), once });
      if (recorded) return { text, expiresIn: expiresAt - issuedAt };
      // When it was the key that was revoked meanwhile, the client has no part in it: once more, with the one that took over.
      await this.keyring.load();
      if (this.keyring.active(format.purpose).id === key.id) return undefined;
    }
  }

  /** What the event of an issuance must find unchanged. Tokens on the same holds share one object. */
  private unchanged(era: number, holds: Holds, key: Key): NonNullable<Demands['unchanged']> {
    const known = this.demands.get(holds);
    if (known?.era === era && known.holds.key?.id === key.id) return known;
    const unchanged = { era, holds: { ...holds, key: heldOf(key) } };
    this.demands.set(holds, unchanged);
    return unchanged;
  }

  /**
   * Whether a token is good now for one of these audiences, by default for our own resources: one that is presented as text, or one
   * that was opened already. No I/O but for what is not in memory. Throws TokenRejected, or Unavailable (503) when this instance
   * could not know.
   */
  async verify(presented: string | AccessToken, audiences: readonly string[] = this.own): Promise<VerifiedToken> {
    const opened = typeof presented === 'string' ? this.open(presented) : presented;
    const token = opened instanceof Promise ? await opened : opened;
    if (!token.audience.some((name) => audiences.includes(name))) throw new TokenRejected('wrong_audience');
    if (token.expiresAt * 1000 <= this.clock.now()) throw new TokenRejected('expired');
    if (!this.view.alive(token)) throw new TokenRejected('revoked');
    const owner =
      token.clientId === null ? this.members.byId(token.holds.membership!.id) : this.clients.byId(token.clientId);
    const present = owner instanceof Promise ? await owner : owner;
    const facts = this.organizations.facts(token.organizationId);
    const organization = facts instanceof Promise ? await facts : facts;
    if (!present || isEnded(present) || !organization || organization.disabled) throw new TokenRejected('revoked');
    const assigned = 'role' in present ? this.members.scopesOf(present, organization) : present.scopes;
    const allowed = assigned instanceof Promise ? await assigned : allowedScopes(assigned, organization);
    // Loading took its time: what was revoked meanwhile is refused, and what was loaded may be newer than the view.
    const loaded = owner instanceof Promise || facts instanceof Promise || assigned instanceof Promise;
    if (loaded && !this.view.alive(token)) throw new TokenRejected('revoked');
    // The view forgets what no token of an account can be older than; a personal one can.
    const ownerHeld = token.holds.account ?? token.holds.membership;
    if (present.epoch > ownerHeld!.epoch || organization.epoch > token.holds.organization!.epoch)
      throw new TokenRejected('revoked');
    const audience = token.audience.filter((name) => audiences.includes(name) && this.mayAskFor(present, name));
    if (audience.length === 0) throw new TokenRejected('wrong_audience');
    const scopes = token.scopes.filter((scope) => allowed.includes(scope));
    return { token, actor: actorOf(present), organization, scopes, audience, holds: presentHolds(token, present) };
  }

  /** What a text says that this server has made, dead or alive. Throws TokenRejected for any other. */
  open(text: string): AccessToken | Promise<AccessToken> {
    if (this.departures !== this.keyring.departures) {
      this.opened.clear();
      this.departures = this.keyring.departures;
    }
    const known = this.opened.get(text);
    if (known) return known;
    const format =
      text.length <= MAX_TOKEN_LENGTH ? this.formats.find((candidate) => candidate.recognises(text)) : undefined;
    // A row that a text stands for changes: it is not remembered here.
    if (format && !isSealed(format)) {
      const read = format.read(text);
      return read instanceof Promise ? read.then((token) => token ?? this.refuse(text)) : (read ?? this.refuse(text));
    }
    const kid = format?.kidOf(text);
    const key = format && kid !== undefined ? this.keyring.find(format.purpose, kid) : undefined;
    const said = key && format?.open(text, key);
    if (!key || !said) {
      if (kid !== undefined && this.keyring.isRevoked(kid)) throw new TokenRejected('revoked');
      if (kid !== undefined && !key) this.view.assertFresh(); // it may be of a key that came after the last news
      return this.refuse(text);
    }
    const token = { ...said, holds: { ...said.holds, key: heldOf(key) } };
    this.opened.set(text, token);
    return token;
  }

  private refuse(text: string): never {
    const other = this.config.ENVIRONMENT === 'live' ? 'test' : 'live';
    const isOfOther = /^[A-Za-z0-9]{1,32}_(oa2|pat)_/.test(text) && text.split('_', 3)[2] === other;
    throw new TokenRejected(isOfOther ? 'other_environment' : 'malformed');
  }
}

/** A key is revoked once and for all, so its epoch at issue is always 0. */
const heldOf = (key: Key) => ({ id: key.id, epoch: 0 });

/** The owner as the actor of an event: the name is the one of this moment. */
export const actorOf = (owner: Client | MemberFacts): Actor =>
  'role' in owner
    ? { type: 'user', id: owner.userId, name: owner.name, organizationId: owner.organizationId }
    : owner.actor;

const isEnded = (owner: Client | MemberFacts) => owner.disabled || ('deleted' in owner && owner.deleted);

/** A person's role may have changed since: what they have under way is re-checked against the epoch of the present one. */
const presentHolds = ({ holds }: AccessToken, owner: Client | MemberFacts): Holds =>
  'role' in owner ? { ...holds, membership: { id: owner.id, epoch: owner.presentEpoch } } : holds;
