import { Injectable, Logger, type OnApplicationShutdown } from '@nestjs/common';
import type { JWK } from 'jose';
import { Changes, type Initiator } from '../changes/changes.js';
import { Config } from '../config/config.js';
import { PLATFORM_ORGANIZATION } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { MAX_TOKEN_TTL_SECONDS } from '../kernel/limits.js';
import { type Key, type KeyAlgorithm, type KeyPurpose, Keyring } from '../keyring/keyring.js';
import { RevocationFeed } from '../revocation/revocation-feed.js';

const DAY_MS = 86_400_000;
const MAINTAIN_EVERY_MS = 30_000;
/** Who published a key that takes over at once sees to it when all instances have it. After this, which is longer, anybody does. */
const ABANDONED_SECONDS = 30;

export const SYSTEM: Initiator = {
  actor: { type: 'system', id: null, name: 'gatehouse', organizationId: PLATFORM_ORGANIZATION },
  request: { id: 'system', address: null, userAgent: null },
};

/** The purposes that rotate. Kept after retiring until the last token under them has expired. */
type Rotating = Extract<KeyPurpose, 'token-seal' | 'token-sign'>;

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

  /**
   * Begins a rotation: publishes the next key. A sealing key takes over at once, as only our instances need it; a signing key after
   * verifiers have had twice JWKS_MAX_AGE_SECONDS. Resolves with that moment. A rotation that is under way is not begun twice.
   */
  async rotate(purpose: Rotating, by: Initiator = SYSTEM): Promise<Date> {
    await this.keyring.load();
    const pending = this.keyring.all(purpose).find(({ state }) => state === 'pending');
    if (pending) return pending.activatesAt;
    const algorithm: KeyAlgorithm = purpose === 'token-sign' ? this.config.JWT_ALG : 'A256GCM';
    const wait = purpose === 'token-sign' ? this.config.JWKS_MAX_AGE_SECONDS * 2 : 0;
    // An RSA key takes a while to make, and a transaction that is idle so long is ended.
    const key = await this.keyring.generate(purpose, algorithm);
    await this.changes.run(by, async (change) => {
      await this.keyring.addPending(change.tx, key, wait || ABANDONED_SECONDS);
      const target = { type: 'key', id: PLATFORM_ORGANIZATION, name: purpose };
      change.record({ action: 'key.published', targets: [target] });
      change.forget('key', target, PLATFORM_ORGANIZATION);
      return undefined;
    });
    await this.keyring.load();
    if (wait === 0) await this.activate(purpose, by);
    const next = this.keyring.all(purpose).find(({ state }) => state === 'pending');
    return next?.activatesAt ?? this.keyring.active(purpose).activatedAt!;
  }

  /** Takes the steps that are due. Every instance may call it at any time; the database lets each step happen once. */
  async maintain(): Promise<void> {
    await this.keyring.load();
    const now = this.clock.now();
    if (olderThan(this.keyring.active('token-seal'), now - DAY_MS)) await this.rotate('token-seal');
    if (this.keyring.active('token-sign').algorithm !== this.config.JWT_ALG) await this.rotate('token-sign');
    for (const purpose of ['token-seal', 'token-sign'] as const) {
      const keys = this.keyring.all(purpose);
      if (keys.some(({ state, activatesAt }) => state === 'pending' && activatesAt.getTime() <= now))
        await this.activate(purpose);
      const ended = now - (MAX_TOKEN_TTL_SECONDS + 600) * 1000;
      if (keys.some(({ state, retiringAt }) => state === 'retiring' && retiringAt!.getTime() < ended))
        await this.retire(purpose, new Date(ended));
    }
  }

  private async activate(purpose: Rotating, by: Initiator = SYSTEM): Promise<void> {
    await this.changes.run(by, async (change) => {
      if (!(await this.keyring.activatePending(change.tx, purpose))) return undefined;
      const target = { type: 'key', id: PLATFORM_ORGANIZATION, name: purpose };
      change.record({ action: 'key.activated', targets: [target] });
      change.forget('key', target, PLATFORM_ORGANIZATION);
      return undefined;
    });
    await this.keyring.load();
  }

  private async retire(purpose: Rotating, before: Date): Promise<void> {
    await this.changes.run(SYSTEM, async (change) => {
      if ((await this.keyring.retire(change.tx, purpose, before)) === 0) return undefined;
      const target = { type: 'key', id: PLATFORM_ORGANIZATION, name: purpose };
      change.record({ action: 'key.retired', targets: [target] });
      change.forget('key', target, PLATFORM_ORGANIZATION);
      return undefined;
    });
  }
}

const olderThan = (key: Key, moment: number) => key.activatedAt !== null && key.activatedAt.getTime() < moment;
