import { Injectable } from '@nestjs/common';
import { Config } from '../config/config.js';
import type { HoldName, Holds } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { Unavailable } from '../kernel/problem.js';

/** What one poll of the database said, in one snapshot. */
export interface Poll {
  era: number;
  /** The database's system identifier: another one is another database, or a copy that went its own way. */
  system: string;
  /** The highest feed id. */
  head: number;
  entries: FeedEntry[];
}

/** A line of the feed. `epoch` null: nothing is revoked, but what is cached of the subject is to be forgotten. */
export interface FeedEntry {
  id: number;
  kind: string;
  subject_id: string;
  organization_id: string;
  epoch: number | null;
  /** Until when a token from before may still be unexpired: ms since the Unix epoch. */
  matters_until: number;
}

/**
 * What this instance knows of revocations, and how fresh that knowledge is. `alive` is the only judge of a token.
 * Knowledge is as old as the moment at which its poll was *sent*: the answer may have been on its way for long.
 */
@Injectable()
export class RevocationView {
  private epochs = new Map<string, { epoch: number; until: number }>();
  private sentAt = Number.NEGATIVE_INFINITY;
  /** Wall minus monotonic time when the poll was sent; a suspended machine comes back with another difference. */
  private drift = 0;
  private closedBecause: string | undefined;
  era = 0;
  /** Feed entries up to this id are in the view. */
  position = 0;

  constructor(
    private readonly clock: Clock,
    private readonly config: Config,
  ) {}

  /**
   * Whether nothing that a token carries was revoked since it was issued, nor the token itself. `id`: of one that was issued already.
   * Throws Unavailable (503 with Retry-After) when this instance could not know: P5, closed when blind.
   */
  alive({ id, era, holds }: { id?: string; era: number; holds: Holds }): boolean {
    this.assertFresh();
    if (era !== this.era || (id !== undefined && this.epochs.has(id))) return false;
    for (const name in holds) {
      const held = holds[name as HoldName]!;
      if ((this.epochs.get(held.id)?.epoch ?? 0) > held.epoch) return false;
    }
    return true;
  }

  assertFresh(): void {
    const reason = this.staleness();
    if (reason) throw new Unavailable(reason);
  }

  /** Why nothing may be accepted now; undefined when the view is fresh. */
  staleness(): string | undefined {
    if (this.closedBecause) return this.closedBecause;
    if (this.config.sabotaged('serve_stale')) return undefined;
    const bound = this.config.REVOCATION_BOUND_MS;
    const now = this.clock.monotonic();
    if (now - this.sentAt > bound) return 'no news of revocations';
    if (Math.abs(this.clock.wall() - now - this.drift) > bound) return 'the clocks have drifted apart';
    return undefined;
  }

  /** Takes in what a poll said is revoked; at once, before anything else hears of it. */
  apply(poll: Poll): void {
    for (const { subject_id, epoch, matters_until } of poll.entries) {
      if (epoch === null) continue;
      const known = this.epochs.get(subject_id);
      this.epochs.set(subject_id, {
        epoch: Math.max(epoch, known?.epoch ?? 0),
        until: Math.max(matters_until, known?.until ?? 0),
      });
    }
    this.era = poll.era;
  }

  /** Everything up to `position` is known here, caches and keys included. */
  reach(position: number): void {
    this.position = Math.max(this.position, position);
  }

  /** And it is all that there was when a poll was sent, at this monotonic time. */
  stamp(position: number, sentAt: number): void {
    this.reach(position);
    this.sentAt = this.config.sabotaged('stamp_at_completion') ? this.clock.monotonic() : sentAt;
    this.drift = this.clock.wall() - this.clock.monotonic();
  }

  /** Nothing is accepted any more until the process is started anew. */
  close(reason: string): void {
    this.closedBecause ??= reason;
  }

  get closed(): string | undefined {
    return this.closedBecause;
  }

  /** Forgets entries that no unexpired token can be older than; by the database's time. */
  expire(): void {
    const now = this.clock.now();
    for (const [id, { until }] of this.epochs) if (until < now) this.epochs.delete(id);
  }

  get size(): number {
    return this.epochs.size;
  }
}
