import { Injectable, Logger, type OnApplicationShutdown } from '@nestjs/common';
import type { JWK } from 'jose';
import type { AuditAction } from '../audit/audit-event.js';
import { type Change, Changes, type Initiator } from '../changes/changes.js';
import { Config } from '../config/config.js';
import { type Caller, PLATFORM_ORGANIZATION } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { MAX_TOKEN_TTL_SECONDS } from '../kernel/limits.js';
import { problem, Unavailable } from '../kernel/problem.js';
import { type Key, type KeyAlgorithm, type KeyPurpose, type KeyRecord, Keyring } from '../keyring/keyring.js';
import { RevocationFeed } from '../revocation/revocation-feed.js';
import { type Barrier, Revocations } from '../revocation/revocations.js';

const DAY_MS = 86_400_000;
const MAINTAIN_EVERY_MS = 30_000;
/** Who published a key that takes over at once sees to it when all instances have it. After this, which is longer, anybody does. */
const ABANDONED_SECONDS = 30;

export const SYSTEM: Initiator = {
  actor: { type: 'system', id: null, name: 'gatehouse', organizationId: PLATFORM_ORGANIZATION },
  request: { id: 'system', address: null, userAgent: null },
};

/** The purposes whose keys end: after retiring they are kept until the last token under them has expired. They can be revoked. */
const OF_TOKENS = ['token-seal', 'token-sign'] as const;
/** The purposes that rotate. A key of credential hashes retires for ever: it is needed for as long as a hash names it. */
export const ROTATING = [...OF_TOKENS, 'credential-hash'] as const satisfies KeyPurpose[];
export type Rotating = (typeof ROTATING)[number];
const ALGORITHMS = { 'token-seal': 'A256GCM', 'credential-hash': 'HS256' } as const;

/** What the revocation of a key did. */
export interface KeyReceipt extends Barrier {
  revocation_id: string;
  revoked_at: Date;
  kid: string;
  /** The key in use now. */
  active_kid: string;
  tokens_expire_by: Date;
  /** Until when a verifier elsewhere may go on with a copy of the JWKS that holds the key; null for keys that are in none. */
  jwks_cached_until: Date | null;
}

/**
 * The keys of tokens over time: pending → active → retiring → retired. Each step is a change on the feed, so every instance has
 * loaded a key before any uses it, and verifiers elsewhere have had twice the JWKS's max-age to see it.
 */
@Injectable()
export class Keys implements OnApplicationShutdown {
  private readonly log = new Logger('Keys');
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly keyring: Keyring,
    private readonly changes: Changes,
    private readonly revocations: Revocations,
    private readonly clock: Clock,
    private readonly config: Config,
    feed: RevocationFeed,
  ) {
    feed.onEntries((entries, blind) =>
      blind || entries.some(({ kind }) => kind === 'key') ? keyring.load() : undefined,
    );
  }

  /** Opens the keyring, makes the keys that are missing, and looks after them from then on. */
  async start(): Promise<void> {
    await this.open();
    const tick = () => {
      this.maintain()
        .catch((error) => this.log.warn(`keys were not maintained: ${error.message}`))
        .finally(() => {
          if (this.timer) this.timer = setTimeout(tick, MAINTAIN_EVERY_MS).unref();
        });
    };
    this.timer = setTimeout(tick, 1000).unref();
  }

  /** Opens the keyring and makes what is missing. */
  async open(): Promise<void> {
    await this.keyring.load();
    await this.keyring.ensure('credential-hash', 'HS256');
    await this.keyring.ensure('cursor', 'HS256');
    await this.keyring.ensure('token-seal', 'A256GCM');
    await this.keyring.ensure('token-sign', this.config.JWT_ALG);
  }

  onApplicationShutdown(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  /** RFC 7517: public halves of every signing key that is not retired, the next one included. */
  jwks(): { keys: JWK[] } {
    return { keys: this.keyring.all('token-sign').map((key) => key.publicJwk!) };
  }

  /** Of every state, newest first. `after`: the kid that the page before ended with. */
  list(limit: number, after?: string): Promise<KeyRecord[]> {
    return this.keyring.list(limit, after);
  }

  /**
   * Begins a rotation: publishes the next key. A signing key takes over after verifiers have had twice JWKS_MAX_AGE_SECONDS, any other
   * at once, as only our instances need it. Resolves with the key that is pending or took over. A rotation that is under way is not begun twice.
   */
  async rotate(purpose: Rotating, by: Caller | Initiator = SYSTEM): Promise<KeyRecord> {
    const initiator = withoutIdempotency(by);
    await this.keyring.load();
    if (!this.pending(purpose)) await this.publishNext(purpose, initiator);
    if (this.noticeOf(purpose) === 0) await this.activate(purpose, initiator);
    const { kid } = this.pending(purpose) ?? this.keyring.active(purpose);
    return (await this.keyring.record(kid))!;
  }

  /**
   * The key leaked: every token made with it is dead, on every instance, before this returns (P1), and its material is destroyed.
   * When it was in use the next one takes over in the same transaction. Revoking again waits on the first and answers with its receipt.
   * Throws not_found, key_not_revocable.
   */
  async revoke(kid: string, by: Caller | Initiator = SYSTEM, reason?: string): Promise<KeyReceipt> {
    const initiator = withoutIdempotency(by);
    for (let attempt = 1; attempt <= 5; attempt++) {
      const key = await this.keyring.record(kid);
      if (!key) throw problem('not_found', 'There is no such key');
      assertRevocable(key);
      // Known to every instance before it is used, so that none refuses what another issues with it.
      if (key.state === 'active') await this.publishNext(key.purpose as Rotating, initiator);
      const { result, barrier } = await this.changes.run(initiator, async (change) => {
        const outcome = key.state === 'revoked' ? 'ended' : await this.keyring.revoke(change.tx, key, reason);
        if (outcome === 'replaced') tell(change, 'key.activated', key.purpose);
        if (outcome === 'replaced' || outcome === 'revoked') {
          const target = { type: 'key', id: key.id, name: kid };
          await change.revoke('key', target, PLATFORM_ORGANIZATION, reason);
          change.record({
            action: 'key.revoked',
            organizationId: PLATFORM_ORGANIZATION,
            targets: [target],
            reason,
            changes: { purpose: { to: key.purpose } },
          });
        }
        return { outcome };
      });
      // Someone else was faster: what is so now is looked at anew.
      if (result.outcome === 'no successor' || (result.outcome === 'ended' && key.state !== 'revoked')) continue;
      await this.keyring.load();
      return this.receipt(key, barrier);
    }
    throw new Unavailable('others change the keys at the same time');
  }

  /** Takes the steps that are due. Every instance may call it at any time; the database lets each step happen once. */
  async maintain(): Promise<void> {
    await this.keyring.load();
    const now = this.clock.now();
    if (olderThan(this.keyring.active('token-seal'), now - DAY_MS)) await this.rotate('token-seal');
    const signing = this.keyring.active('token-sign');
    const days = this.config.SIGNING_KEY_ROTATION_DAYS;
    if (signing.algorithm !== this.config.JWT_ALG || (days > 0 && olderThan(signing, now - days * DAY_MS)))
      await this.rotate('token-sign');
    for (const purpose of ROTATING) {
      const keys = this.keyring.all(purpose);
      if (keys.some(({ state, activatesAt }) => state === 'pending' && activatesAt.getTime() <= now))
        await this.activate(purpose);
      const ended = now - (MAX_TOKEN_TTL_SECONDS + 600) * 1000;
      const isOver = ({ state, retiringAt }: Key) => state === 'retiring' && retiringAt!.getTime() < ended;
      if (isOfTokens(purpose) && keys.some(isOver)) await this.retire(purpose, new Date(ended));
    }
  }

  private pending(purpose: KeyPurpose): Key | undefined {
    return this.keyring.all(purpose).find(({ state }) => state === 'pending');
  }

  /** For how many seconds the next key is to be seen before it is used. */
  private noticeOf(purpose: Rotating): number {
    return purpose === 'token-sign' ? this.config.JWKS_MAX_AGE_SECONDS * 2 : 0;
  }

  /** Makes the next key known to every instance. Nothing happens when one is pending already. */
  private async publishNext(purpose: Rotating, by: Caller | Initiator): Promise<void> {
    const algorithm: KeyAlgorithm = purpose === 'token-sign' ? this.config.JWT_ALG : ALGORITHMS[purpose];
    // An RSA key takes a while to make, and a transaction that is idle so long is ended.
    const key = await this.keyring.generate(purpose, algorithm);
    const notice = this.noticeOf(purpose) || ABANDONED_SECONDS;
    await this.changes.run(by, async (change) => {
      if (await this.keyring.addPending(change.tx, key, notice)) tell(change, 'key.published', purpose);
      return undefined;
    });
    await this.keyring.load();
  }

  private async activate(purpose: Rotating, by: Caller | Initiator = SYSTEM): Promise<void> {
    await this.changes.run(by, async (change) => {
      if (await this.keyring.activatePending(change.tx, purpose)) tell(change, 'key.activated', purpose);
      return undefined;
    });
    await this.keyring.load();
  }

  private async retire(purpose: Rotating, before: Date): Promise<void> {
    await this.changes.run(SYSTEM, async (change) => {
      if ((await this.keyring.retire(change.tx, purpose, before)) > 0) tell(change, 'key.retired', purpose);
      return undefined;
    });
  }

  private async receipt({ id, kid, purpose }: KeyRecord, barrier: Barrier | undefined): Promise<KeyReceipt> {
    const { id: revocation, revokedAt, mattersUntil } = (await this.revocations.find(id))!;
    const maxAge = this.config.JWKS_MAX_AGE_SECONDS * 1000;
    return {
      revocation_id: String(revocation),
      revoked_at: revokedAt,
      kid,
      active_kid: this.keyring.active(purpose).kid,
      tokens_expire_by: mattersUntil,
      jwks_cached_until: purpose === 'token-sign' ? new Date(revokedAt.getTime() + maxAge) : null,
      ...(barrier ?? (await this.revocations.barrier(revocation))),
    };
  }
}

/** The platform's log and every instance hear of a step in the life of a purpose's keys. */
function tell(change: Change, action: AuditAction, purpose: KeyPurpose): void {
  const target = { type: 'key', id: PLATFORM_ORGANIZATION, name: purpose };
  change.record({ action, organizationId: PLATFORM_ORGANIZATION, targets: [target] });
  change.forget('key', target, PLATFORM_ORGANIZATION);
}

const isOfTokens = (purpose: KeyPurpose) => OF_TOKENS.some((name) => name === purpose);

function assertRevocable({ purpose, state }: KeyRecord): void {
  if (!isOfTokens(purpose))
    throw problem(
      'key_not_revocable',
      purpose === 'credential-hash'
        ? 'Every secret and session that it hashed would end with it: rotate it, and revoke those that may have leaked'
        : 'No token is made with it',
    );
  if (state === 'retired')
    throw problem(
      'key_not_revocable',
      'It is retired: its material is destroyed, and every token made with it has expired',
    );
}

/** These changes are done once by their nature, and take more than one transaction, of which each would find the other's answer. */
const withoutIdempotency = (by: Caller | Initiator): Caller | Initiator => ({ ...by, idempotency: undefined });

const olderThan = (key: Key, moment: number) => key.activatedAt !== null && key.activatedAt.getTime() < moment;
