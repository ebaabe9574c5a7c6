import { Injectable } from '@nestjs/common';
import { DataSource, type EntityManager } from 'typeorm';
import { Config } from '../config/config.js';
import type { Actor, CredentialType, Held, Holds, Target } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { MAX_TOKEN_TTL_SECONDS } from '../kernel/limits.js';
import { IS_GONE, RevocationFeed } from './revocation-feed.js';

/** What can be revoked: each has a row in `revocable` whose epoch tokens and sessions carry. */
export type RevocableKind =
  | 'organization'
  | 'service_account'
  | CredentialType
  | 'user'
  | 'membership'
  | 'session'
  | 'key';

/** One line to publish. `revoke: false` only makes caches forget the subject. */
export interface Publication {
  kind: RevocableKind | 'token' | 'era' | 'scope';
  subject: Target;
  organizationId: string;
  revoke: boolean;
  reason?: string;
  /** When what it ends expires by itself, in seconds since the Unix epoch. Default: when the longest token would that is issued now. */
  expiresAt?: number;
}

export interface PublishedRevocation {
  id: number;
  subjectId: string;
  subjectName: string;
  kind: string;
  organizationId: string;
  epoch: number;
  reason: string | null;
  actor: { type: string; id: string | null; name: string };
  revokedAt: Date;
  /** When the last token from before has expired at the latest. */
  mattersUntil: Date;
}

/** What a wait for every instance showed (CONTRACT §7). */
export interface Barrier {
  instances: { live: number; confirmed: number };
  waited_ms: number;
  bound_ms: number;
}

/** Tokens live a day at most. The margin covers an issuing statement under way while the revocation commits, and unequal clocks. */
const MARGIN_SECONDS = 300;
const MATTERS_UNTIL = `coalesce(to_timestamp($10), clock_timestamp() + make_interval(secs => ${MAX_TOKEN_TTL_SECONDS})) + make_interval(secs => ${MARGIN_SECONDS})`;
const FEED_LOCK = '7315, 4';

/**
 * Row locks alone are not fair: as long as changes overlap, each takes its share and a revocation waits for ever, so whoever stole a
 * secret could hold off its end by using it. At an advisory lock whoever comes after the revocation waits behind it.
 */
const gateOf = (id: string) => `hashtextextended(${id}::text, 7315)`;
const STILL_HELD = `
  WITH gate AS MATERIALIZED (SELECT count(pg_advisory_xact_lock_shared(${gateOf('id')})) AS passed FROM unnest($1::uuid[]) AS id)
  SELECT r.id, r.epoch, gate.passed FROM gate, revocable AS r WHERE r.id = ANY($1) ORDER BY r.id FOR SHARE OF r`;

/** Owns epochs, the feed and the barrier. Refuses to know what an account or a token is. */
@Injectable()
export class Revocations {
  constructor(
    private readonly database: DataSource,
    private readonly feed: RevocationFeed,
    private readonly clock: Clock,
    private readonly config: Config,
  ) {}

  /** Gives something new its row; whatever is issued on it carries epoch 0. */
  async register(tx: EntityManager, kind: RevocableKind, id: string, organizationId: string): Promise<void> {
    await tx.query('INSERT INTO revocable (id, kind, organization_id) VALUES ($1, $2, $3)', [id, kind, organizationId]);
  }

  /**
   * Whether all of these are still what they were, and the token not revoked by itself, locked so that they stay so until commit. Ids
   * are locked in one order. Takes place inside the transaction of a change: a caller revoked meanwhile changes nothing any more.
   */
  async stillHeld(tx: EntityManager, named: Holds, tokenId: string | null): Promise<boolean> {
    const holds = Object.values(named);
    const gates = holds.map(({ id }) => id).concat(tokenId ?? []);
    const rows: Held[] = await tx.query(STILL_HELD, [gates.sort()]);
    const present = new Map(rows.map(({ id, epoch }) => [id, epoch]));
    if (!holds.every(({ id, epoch }) => present.get(id) === epoch)) return false;
    return tokenId === null || !(await this.isRevoked(tx, tokenId));
  }

  /** Ends a single token once this commits: changes by it wait, and then find it ended. False when it was ended before. */
  async endToken(tx: EntityManager, id: string): Promise<boolean> {
    await tx.query(`SELECT pg_advisory_xact_lock(${gateOf('$1::uuid')})`, [id]);
    return !(await this.isRevoked(tx, id));
  }

  /**
   * How many single tokens of an organization are on the feed that have not expired, counted up to `most`, and in how many seconds the
   * first of them goes. Revocations that run at once do not see each other: a quota holds but for these few.
   */
  async endedTokens(tx: EntityManager, organizationId: string, most: number): Promise<{ count: number; wait: number }> {
    const [row] = await tx.query(
      `SELECT count(*)::integer AS count, ceil(extract(epoch FROM min(matters_until) - clock_timestamp()))::float8 AS wait FROM (
         SELECT matters_until FROM revocation
          WHERE organization_id = $1 AND kind = 'token' AND matters_until > clock_timestamp()
          ORDER BY matters_until LIMIT $2) AS ended`,
      [organizationId, most],
    );
    return row;
  }

  /** Raises the epoch: everything issued on the subject before is dead once this commits. Returns the new epoch. */
  async raise(tx: EntityManager, id: string): Promise<number> {
    await tx.query(`SELECT pg_advisory_xact_lock(${gateOf('$1::uuid')})`, [id]);
    const [rows] = await tx.query('UPDATE revocable SET epoch = epoch + 1 WHERE id = $1 RETURNING epoch', [id]);
    return rows[0].epoch;
  }

  /** Present epochs of these ids. */
  async epochs(ids: readonly string[], tx: EntityManager = this.database.manager): Promise<Map<string, number>> {
    const rows: Held[] = await tx.query('SELECT id, epoch FROM revocable WHERE id = ANY($1)', [ids]);
    return new Map(rows.map(({ id, epoch }) => [id, epoch]));
  }

  /**
   * Appends to the feed: the very last thing that a transaction does before it commits. The lock is held until the commit is
   * visible, so ids become visible in order and a reader at `id > last` never skips one. Returns the highest id.
   */
  async publish(
    tx: EntityManager,
    actor: Actor,
    lines: readonly (Publication & { epoch: number | null })[],
  ): Promise<number> {
    if (!this.config.sabotaged('cursor_without_lock')) await tx.query(`SELECT pg_advisory_xact_lock(${FEED_LOCK})`);
    let last = 0;
    for (const { kind, subject, organizationId, epoch, reason, expiresAt } of lines) {
      const [row] = await tx.query(
        `INSERT INTO revocation (id, kind, subject_id, subject_name, organization_id, epoch, reason, actor_type, actor_id, actor_name, matters_until)
         VALUES (nextval('revocation_id_seq'), $1, $2, $3, $4, $5, $6, $7, $8, $9, ${MATTERS_UNTIL}) RETURNING id`,
        [
          kind,
          subject.id,
          subject.name,
          organizationId,
          epoch,
          reason ?? null,
          actor.type,
          actor.id,
          actor.name,
          expiresAt ?? null,
        ],
      );
      last = Number(row.id);
    }
    return last;
  }

  /**
   * Resolves when no instance anywhere can decide on knowledge from before the feed entry: each has confirmed it or is gone, or the
   * largest bound and a tenth has passed since this was called, which is after the commit. It never fails: what it cannot see it waits out.
   */
  async barrier(entry: number): Promise<Barrier> {
    const committedAt = this.clock.monotonic();
    this.feed.nudge();
    // Not in the transaction: a full queue of notifications would undo the revocation. Who is not told polls.
    this.database.query('NOTIFY revocation').catch(() => undefined);
    let bound = this.feed.largestBound;
    let live = 0;
    let confirmed = 0;
    for (let pause = 2; ; pause = Math.min(pause * 1.5, 25)) {
      try {
        const rows: { bound_ms: number; confirmed: string }[] = await this.database.query(
          'SELECT bound_ms, confirmed FROM instance',
        );
        bound = Math.max(bound, ...rows.map((row) => row.bound_ms));
        live = rows.length;
        confirmed = rows.filter((row) => Number(row.confirmed) >= entry).length;
        if (confirmed === live) break;
      } catch {
        // The registry cannot be read: wait it out.
      }
      const left = bound * 1.1 - (this.clock.monotonic() - committedAt);
      if (left <= 0) break;
      await new Promise((resolve) => setTimeout(resolve, Math.min(pause, left)));
    }
    return {
      instances: { live, confirmed },
      waited_ms: Math.round(this.clock.monotonic() - committedAt),
      bound_ms: bound,
    };
  }

  /** How many instances are live, and how many of them lack a master key; null: the folder of the embedded database. */
  async lackingMasterKey(tx: EntityManager, id: string | null): Promise<{ live: number; lacking: number }> {
    const [row] = await tx.query(
      `SELECT count(*)::int AS live,
              (count(*) FILTER (WHERE CASE WHEN $1::text IS NULL THEN master_key_ids IS NOT NULL
                                           ELSE $1 = ANY (master_key_ids) IS NOT TRUE END))::int AS lacking
         FROM instance WHERE NOT ${IS_GONE}`,
      [id],
    );
    return row;
  }

  /** The highest feed id of what has committed. */
  async head(): Promise<number> {
    const [row] = await this.database.query('SELECT coalesce(max(id), 0) AS head FROM revocation');
    return Number(row.head);
  }

  /** The first revocation of something that is revoked once and for all. */
  async find(subjectId: string): Promise<PublishedRevocation | undefined> {
    const [row] = await this.database.query(
      `${SELECT_REVOCATION} WHERE subject_id = $1 AND epoch IS NOT NULL ORDER BY id LIMIT 1`,
      [subjectId],
    );
    return row && published(row);
  }

  /** The revocation list of an organization, newest first, from before a feed id. */
  async list(organizationId: string, limit: number, before?: number): Promise<PublishedRevocation[]> {
    const rows = await this.database.query(
      `${SELECT_REVOCATION} WHERE organization_id = $1 AND epoch IS NOT NULL AND id < $2 ORDER BY id DESC LIMIT $3`,
      [organizationId, before ?? Number.MAX_SAFE_INTEGER, limit],
    );
    return rows.map(published);
  }

  /**
   * Drops feed lines that revoked nothing and that every instance has long read, and those of single tokens that have expired since.
   * The newest line stays: it is the head.
   */
  async prune(): Promise<void> {
    for (const gone of [
      `epoch IS NULL AND revoked_at < clock_timestamp() - interval '1 day'`,
      `epoch IS NOT NULL AND kind = 'token' AND matters_until < clock_timestamp()`,
    ])
      await this.database.query(`DELETE FROM revocation WHERE ${gone} AND id < (SELECT max(id) FROM revocation)`);
  }

  /** In a statement of its own, behind the gate: the one that waited there has its snapshot from before what it waited for. */
  private async isRevoked(tx: EntityManager, id: string): Promise<boolean> {
    const lines = await tx.query('SELECT 1 FROM revocation WHERE subject_id = $1 AND epoch IS NOT NULL LIMIT 1', [id]);
    return lines.length > 0;
  }
}

const SELECT_REVOCATION = `
  SELECT id, kind, subject_id, subject_name, organization_id, epoch, reason, actor_type, actor_id, actor_name, revoked_at, matters_until FROM revocation`;

// biome-ignore lint/suspicious/noExplicitAny: a row as pg returns it
const published = (row: any): PublishedRevocation => ({
  id: Number(row.id),
  subjectId: row.subject_id,
  subjectName: row.subject_name,
  kind: row.kind,
  organizationId: row.organization_id,
  epoch: row.epoch,
  reason: row.reason,
  actor: { type: row.actor_type, id: row.actor_id, name: row.actor_name },
  revokedAt: row.revoked_at,
  mattersUntil: row.matters_until,
});
