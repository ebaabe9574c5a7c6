import { Logger, type OnApplicationShutdown } from '@nestjs/common';
import type pg from 'pg';
import type { Database } from '../database/database.module.js';
import type { Clock } from '../kernel/clock.js';
import { Unavailable } from '../kernel/problem.js';
import { MAX_RATE_WINDOW_SECONDS, type RateLimit } from '../kernel/rate-limit.js';
import type { RevocationFeed } from '../revocation/revocation-feed.js';
import { type Charged, RateLimits, type Standing, standing } from './rate-limits.js';

/** What all instances together may admit unseen by each other, of a limit. */
const UNSEEN = 0.05;
/** Counts wait this long for company, unless half of what may be unseen has come together sooner. */
const FLUSH_AFTER_MS = 20;
const RETRY_AFTER_MS = 100;
const FORGET_EVERY_MS = 60_000;

/** A request that waits for the database to say which one of the window it is. Undefined: ask again, in the next window. */
interface Waiting {
  resolve(place: number | undefined): void;
  reject(error: unknown): void;
}

/** The present window of one who is charged, as far as this instance knows. */
class Window {
  /** Everybody's requests, as the database last said. */
  total = 0;
  /** Admitted here, and not sent yet. */
  unflushed = 0;
  /** Admitted here, sent, and not answered yet. */
  inFlight = 0;
  waiting: Waiting[] = [];
  /** Those who wait for the flush under way. */
  aboard: Waiting[] = [];
  /** Another one has taken its place: what is counted here now counts for nothing. */
  over = false;

  constructor(
    readonly subjectId: string,
    readonly seconds: number,
    /** ms since the Unix epoch. */
    readonly start: number,
  ) {}

  get end(): number {
    return this.start + this.seconds * 1000;
  }

  /** Admitted, and no other instance can know of it. */
  get unseen(): number {
    return this.unflushed + this.inFlight;
  }

  /** Every place of the window that is taken for certain. */
  get used(): number {
    return this.total + this.unseen + this.waiting.length + this.aboard.length;
  }
}

interface FlushRow {
  subject_id: string;
  start: number;
  used: number;
}

/**
 * Adds what was counted here and learns what everybody counted. A row whose window is the next one already — another instance's clock
 * is some milliseconds ahead — is left as it is; any other window is begun anew. Rows come in one order, so no two flushes deadlock.
 */
const FLUSH = `
  INSERT INTO rate_limit_window AS w (subject_id, window_seconds, starts_at, used)
  SELECT o, s, to_timestamp(t), u FROM unnest($1::uuid[], $2::integer[], $3::float8[], $4::integer[]) WITH ORDINALITY AS c (o, s, t, u, n) ORDER BY n
  ON CONFLICT (subject_id, window_seconds) DO UPDATE SET
    starts_at = CASE WHEN w.starts_at = excluded.starts_at + make_interval(secs => w.window_seconds) THEN w.starts_at ELSE excluded.starts_at END,
    used = CASE WHEN w.starts_at = excluded.starts_at THEN w.used + excluded.used
                WHEN w.starts_at = excluded.starts_at + make_interval(secs => w.window_seconds) THEN w.used
                ELSE excluded.used END
  RETURNING subject_id, extract(epoch FROM starts_at)::float8 * 1000 AS start, used::float8`;

/**
 * Counts in memory, and tells PostgreSQL behind the requests: one flush under way at a time, all who are charged in one statement. A request
 * does no I/O; only one that finds its instance's share of unseen requests used up waits for the flush that counts it.
 *
 * Never more than the limit and a tenth. Each request has a place in the order in which the database counts them. At most `limit` have a place
 * up to the limit. Whoever waited is admitted only with such a place. Of the rest, an instance admits one only while what it knows to be
 * used is below the limit, and fewer than its share `c` = ⌊0.05 · limit / n⌋ are unseen. Take the flush whose commit brings the count to the
 * limit: until its own next flush is answered, and tells it so, an instance has at most `c` unseen, sent or not; after that it admits none. So
 * of the n instances n · c have a place beyond the limit, a twentieth of it. The other twentieth is for instances that join within the
 * 100 ms in which the rest have not heard of them (n comes with the poll for revocations), and for counts that die with a killed one.
 *
 * And never fewer, but for a flush that failed without an answer and is sent again: what it carried, `c` at most, may count twice.
 * Where `c` is 0 — a limit under 20 an instance — everybody waits, and the limit is exact.
 */
export class PostgresRateLimits extends RateLimits implements OnApplicationShutdown {
  private readonly log = new Logger('RateLimits');
  private readonly pool: pg.Pool;
  /** By who is charged; those whose window is over are forgotten within a minute. */
  private readonly windows = new Map<string, Window>();
  private touched = new Set<Window>();
  private flight: Promise<boolean> | undefined;
  private timer: NodeJS.Timeout | undefined;
  /** Half of what may be unseen has come together somewhere: the next flush waits for nothing. */
  private urgent = false;
  private failing = false;
  private readonly forgetting: NodeJS.Timeout;

  constructor(
    database: Database,
    private readonly feed: RevocationFeed,
    private readonly clock: Clock,
    private readonly byDefault: RateLimit,
    /** How long a connection, and an answer, are waited for: after this long without news nothing is accepted here anyway. */
    patienceMs: number,
  ) {
    super();
    // A flush that waits for its commit to be on disk would only make the counts older: they survive a restart of ours, which is enough.
    this.pool = database.pool({
      max: 1,
      application_name: 'gatehouse rate limits',
      connectionTimeoutMillis: patienceMs,
      query_timeout: patienceMs,
    });
    this.forgetting = setInterval(() => this.forget(), FORGET_EVERY_MS).unref();
  }

  charge({ id, rateLimit }: Charged): Standing | Promise<Standing> {
    const rate = rateLimit ?? this.byDefault;
    return this.tryCharge(id, rate) ?? this.chargeInTurn(id, rate);
  }

  /** Its own connection has no news of its own: without the database nothing is accepted anyway. */
  fault(): undefined {
    return undefined;
  }

  async prune(): Promise<void> {
    await this.pool.query(
      `DELETE FROM rate_limit_window WHERE starts_at < now() - make_interval(secs => ${2 * MAX_RATE_WINDOW_SECONDS})`,
    );
  }

  async onApplicationShutdown(): Promise<void> {
    clearInterval(this.forgetting);
    clearTimeout(this.timer);
    while (this.touched.size > 0 && (await this.flush()));
    await this.pool.end();
  }

  /** Without waiting; undefined when only the database can tell. */
  private tryCharge(id: string, { limit, windowSeconds }: RateLimit): Standing | undefined {
    const now = this.clock.now();
    const window = this.present(id, windowSeconds, now);
    if (window.used >= limit) return standing(false, limit, window.used, window.end - now);
    const share = this.shareOf(limit);
    if (window.unseen >= share) return undefined;
    window.unflushed++;
    this.touched.add(window);
    if (window.unflushed * 2 >= share) this.hurry();
    else if (!this.flight && !this.timer) this.departIn(FLUSH_AFTER_MS);
    return standing(true, limit, window.used, window.end - now);
  }

  private shareOf(limit: number): number {
    return Math.floor((UNSEEN * limit) / this.feed.instances);
  }

  private async chargeInTurn(id: string, rate: RateLimit): Promise<Standing> {
    for (;;) {
      const known = this.tryCharge(id, rate);
      if (known) return known;
      const window = this.present(id, rate.windowSeconds, this.clock.now());
      const place = await new Promise<number | undefined>((resolve, reject) => {
        window.waiting.push({ resolve, reject });
        this.touched.add(window);
        this.hurry();
      });
      if (place !== undefined) return standing(place <= rate.limit, rate.limit, place, window.end - this.clock.now());
    }
  }

  /** The window that is now. One that lies a whole window ahead is of a clock that went back. */
  private present(id: string, seconds: number, now: number): Window {
    const window = this.windows.get(id);
    const length = seconds * 1000;
    if (window?.seconds === seconds && now < window.end && now >= window.start - length) return window;
    return this.begin(id, seconds, Math.floor(now / length) * length);
  }

  private begin(id: string, seconds: number, start: number): Window {
    this.end(this.windows.get(id));
    const window = new Window(id, seconds, start);
    this.windows.set(id, window);
    return window;
  }

  private end(window: Window | undefined): void {
    if (!window) return;
    window.over = true;
    this.touched.delete(window);
    for (const { resolve } of window.waiting) resolve(undefined);
    window.waiting = [];
  }

  private forget(): void {
    const now = this.clock.now();
    for (const [id, window] of this.windows) {
      if (now < window.end) continue;
      this.end(window);
      this.windows.delete(id);
    }
  }

  private hurry(): void {
    if (this.urgent) return;
    this.urgent = true;
    if (!this.flight) setImmediate(() => this.depart());
  }

  private departIn(ms: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.depart(), ms).unref();
  }

  private depart(): void {
    if (this.touched.size > 0) void this.flush();
  }

  /** The flush under way, or a new one; whether it was answered. */
  private flush(): Promise<boolean> {
    if (this.flight) return this.flight;
    clearTimeout(this.timer);
    this.timer = undefined;
    this.urgent = false;
    this.flight = this.fly().finally(() => {
      this.flight = undefined;
      if (this.touched.size === 0) return;
      if (this.failing) this.departIn(RETRY_AFTER_MS);
      else if (this.urgent) setImmediate(() => this.depart());
      else this.departIn(FLUSH_AFTER_MS);
    });
    return this.flight;
  }

  private async fly(): Promise<boolean> {
    const windows = [...this.touched].sort((a, b) => (a.subjectId < b.subjectId ? -1 : 1));
    this.touched = new Set();
    for (const window of windows) {
      window.inFlight = window.unflushed;
      window.unflushed = 0;
      window.aboard = window.waiting;
      window.waiting = [];
    }
    try {
      const { rows } = await this.pool.query<FlushRow>({
        name: 'count requests',
        text: FLUSH,
        values: [
          windows.map(({ subjectId }) => subjectId),
          windows.map(({ seconds }) => seconds),
          windows.map(({ start }) => start / 1000),
          windows.map(({ inFlight, aboard }) => inFlight + aboard.length),
        ],
      });
      const answers = new Map(rows.map((row) => [row.subject_id, row]));
      for (const window of windows) this.land(window, answers.get(window.subjectId)!);
      this.failing = false;
      return true;
    } catch (error) {
      if (!this.failing) this.log.warn(`requests cannot be counted: ${(error as Error).message}`);
      this.failing = true;
      this.giveUp(windows, new Unavailable('requests cannot be counted', 1, error));
      return false;
    }
  }

  private land(window: Window, { start, used }: FlushRow): void {
    const { aboard } = window;
    const first = used - aboard.length + 1;
    window.inFlight = 0;
    window.aboard = [];
    if (!window.over && start !== window.start) this.begin(window.subjectId, window.seconds, start).total = used;
    if (!window.over) window.total = used;
    for (const [i, { resolve }] of aboard.entries()) resolve(window.over ? undefined : first + i);
  }

  /** Nobody knows whether it was counted. What was admitted is sent again; those who wait are not admitted. */
  private giveUp(windows: readonly Window[], error: Unavailable): void {
    for (const window of windows) {
      window.unflushed += window.inFlight;
      window.inFlight = 0;
      if (window.unflushed > 0 && !window.over) this.touched.add(window);
    }
    for (const window of new Set([...windows, ...this.touched])) {
      for (const { reject } of [...window.aboard, ...window.waiting]) reject(error);
      window.aboard = [];
      window.waiting = [];
    }
  }
}
