import { Injectable, Logger, type OnApplicationShutdown } from '@nestjs/common';
import type pg from 'pg';
import { Config } from '../config/config.js';
import { Database } from '../database/database.module.js';
import { Clock } from '../kernel/clock.js';
import { uuidv7 } from '../kernel/ids.js';
import { FloorFile, regression } from './floor.js';
import { type FeedEntry, type Poll, RevocationView } from './revocation-view.js';

const POLL_EVERY_MS = 100;
const SEEN_EVERY_MS = 1000;
/** Lines of one poll: few enough to be read well within a poll's patience, however many organizations revoke token after token. */
const PAGE = 10_000;
/** A walk over all that is known: not with every poll. */
const EXPIRE_EVERY_MS = 10_000;

/** Of a row in the registry: whoever has not been seen for so long has stopped accepting, and registers anew before it accepts again. */
export const IS_GONE = `(seen_at < clock_timestamp() - interval '10 s' - make_interval(secs => bound_ms / 1000.0))`;

/** One statement, so one snapshot: everything in it is as of one moment. */
const POLL = `
  SELECT (SELECT era FROM era) AS era,
         (SELECT system_identifier::text FROM pg_control_system()) AS system,
         (SELECT coalesce(max(id), 0) FROM revocation)::float8 AS head,
         extract(epoch FROM clock_timestamp())::float8 * 1000 AS now,
         pg_is_in_recovery() AS standby,
         (SELECT max(bound_ms) FROM instance) AS largest_bound,
         (SELECT count(*) FROM instance)::integer AS instances,
         (SELECT clock_timestamp() - seen_at < interval '${SEEN_EVERY_MS} ms' FROM instance WHERE id = $2) AS seen,
         (SELECT coalesce(json_agg(line ORDER BY id), '[]') FROM (
            SELECT id, kind, subject_id, organization_id, epoch, extract(epoch FROM matters_until) * 1000 AS matters_until
              FROM revocation WHERE id > $1 AND (epoch IS NULL OR matters_until > clock_timestamp()) ORDER BY id LIMIT ${PAGE}) AS line) AS entries`;

interface PollRow extends Poll {
  now: number;
  standby: boolean;
  largest_bound: number | null;
  instances: number;
  /** Null: this instance is not registered. False: registered, but its heartbeat is due. */
  seen: boolean | null;
}

/** `blind`: this instance was silent for so long that news may be gone from the feed; whatever is cached is to be forgotten. */
export type FeedListener = (entries: readonly FeedEntry[], blind: boolean) => void | Promise<void>;

/**
 * Keeps the view fresh: registers this instance, loads what is revoked, polls every 100 ms on a connection of its own and at once
 * on NOTIFY, lets caches forget what changed, and only then confirms the position that the barrier waits for.
 */
@Injectable()
export class RevocationFeed implements OnApplicationShutdown {
  private readonly log = new Logger('RevocationFeed');
  private readonly listeners: FeedListener[] = [];
  private readonly floor: FloorFile;
  /** This process among its like, and in the audit log. */
  readonly instanceId: string;
  /** The largest bound of any instance, as last polled: how long a blind one may go on. */
  largestBound: number;
  /** How many instances are registered, as last polled; this one among them. */
  instances = 1;
  private connection: pg.Client | undefined;
  private listener: pg.Client | undefined;
  private wake: (() => void) | undefined;
  private nudged = false;
  private running = false;
  private loop: Promise<void> = Promise.resolve();
  private ear: Promise<void> = Promise.resolve();
  private confirmed = 0;
  private expiredAt = 0;
  /** The database's system identifier, as last polled. */
  private system: string | undefined;

  constructor(
    private readonly database: Database,
    private readonly view: RevocationView,
    private readonly clock: Clock,
    private readonly config: Config,
  ) {
    this.instanceId = uuidv7(clock.wall());
    this.largestBound = config.REVOCATION_BOUND_MS;
    this.floor = FloorFile.in(config.dataDir);
  }

  /** Calls `listener` with every batch of new entries, after the view has them and before the position is confirmed. */
  onEntries(listener: FeedListener): void {
    this.listeners.push(listener);
  }

  /** Registers, loads and begins to poll; the service is ready when this resolves. Throws a StartupError on a database that went back in time. */
  async start(): Promise<void> {
    await this.floor.read();
    await this.connect();
    await this.register();
    await this.poll((row) => this.floor.check(row));
    this.running = true;
    this.loop = this.run();
    this.ear = this.listen();
  }

  async onApplicationShutdown(): Promise<void> {
    if (!this.running) return;
    this.running = false;
    this.nudge();
    hangUp(this.listener);
    await Promise.all([this.loop, this.ear]);
    // Deregistered only once nothing is accepted here any more; a barrier need not wait for us then.
    this.view.close('shutting down');
    await this.connection?.query('DELETE FROM instance WHERE id = $1', [this.instanceId]).catch(() => undefined);
    await this.connection?.end().catch(() => undefined);
  }

  /** Polls now rather than within 100 ms. */
  nudge(): void {
    this.nudged = true;
    this.wake?.();
  }

  private async run(): Promise<void> {
    let failures = 0;
    while (this.running) {
      try {
        if (!this.connection) await this.connect();
        await this.poll();
        failures = 0;
      } catch (error) {
        if (failures++ === 0) this.log.warn(`no news of revocations: ${(error as Error).message}`);
        this.disconnect();
      }
      if (!this.nudged) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, POLL_EVERY_MS);
          this.wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
    }
  }

  private async poll(check?: (row: PollRow) => void, blind = false): Promise<void> {
    this.nudged = false;
    const sentAt = this.clock.monotonic();
    const { rows } = await this.connection!.query<PollRow>({
      name: 'poll',
      text: POLL,
      values: [this.view.position, this.instanceId],
    });
    const row = rows[0];
    check?.(row);
    if (row.standby) throw new Error('the database is a standby');
    this.closeOnRegression(row);
    // Nothing of it is kept: the floor must still stand above it when the process is started anew.
    if (this.view.closed) return;
    // A poll counts only for a registered instance that was seen of late: whoever is not in the registry is not waited for.
    if (row.seen === null) {
      await this.register();
      return this.poll(check, true);
    }
    if (row.seen === false) await this.heartbeat();
    this.clock.synchronize(row.now, sentAt, this.clock.monotonic());
    this.largestBound = Math.max(row.largest_bound ?? 0, this.config.REVOCATION_BOUND_MS);
    this.instances = Math.max(1, row.instances);
    this.view.apply(row);
    if (row.entries.length > 0 || blind)
      await Promise.all(this.listeners.map((listener) => listener(row.entries, blind)));
    if (row.entries.length === PAGE) {
      // Not all of it: the view is as fresh as it was until the rest is in.
      this.view.reach(row.entries[PAGE - 1].id);
      return this.poll(check, blind);
    }
    this.view.stamp(row.head, sentAt);
    if (sentAt - this.expiredAt > EXPIRE_EVERY_MS) {
      this.view.expire();
      this.expiredAt = sentAt;
    }
    await this.floor.raise({ system: row.system, era: row.era, head: row.head });
    if (this.view.position > this.confirmed) {
      await this.connection!.query({
        name: 'confirm',
        text: 'UPDATE instance SET confirmed = $2, seen_at = clock_timestamp() WHERE id = $1',
        values: [this.instanceId, this.view.position],
      });
      this.confirmed = this.view.position;
    }
  }

  private closeOnRegression(row: PollRow): void {
    if (!this.running) return; // the start checks against the floor and says what to do
    const system = this.system ?? row.system;
    // A raised era excuses a restored backup at a start, when everything is loaded anew; what is in memory here is of the other one.
    const reason =
      system !== row.system || row.head < this.view.position
        ? 'The database is not the one that it was'
        : regression({ system, era: this.view.era, head: 0 }, row);
    this.system = row.system;
    if (reason && !this.view.closed) {
      this.log.error(`${reason}: nothing is accepted here until a restart`);
      this.view.close(reason);
    }
  }

  private async register(): Promise<void> {
    this.confirmed = 0;
    await this.connection!.query(
      `INSERT INTO instance (id, bound_ms, master_key_ids) VALUES ($1, $2, $3)
       ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), confirmed = 0`,
      [this.instanceId, this.config.REVOCATION_BOUND_MS, this.config.masterKeys.registered],
    );
  }

  private async heartbeat(): Promise<void> {
    const { rowCount } = await this.connection!.query({
      name: 'seen',
      text: 'UPDATE instance SET seen_at = clock_timestamp() WHERE id = $1',
      values: [this.instanceId],
    });
    if (rowCount === 0) throw new Error('this instance was taken off the registry');
    await this.connection!.query(`DELETE FROM instance WHERE ${IS_GONE}`);
  }

  private async connect(): Promise<void> {
    // A poll that has no answer within two bounds is given up, connection and all: on a silent network it would hang for minutes.
    const patience = 2 * this.config.REVOCATION_BOUND_MS;
    const client = this.database.client({
      application_name: 'gatehouse feed',
      connectionTimeoutMillis: patience,
      query_timeout: patience,
    });
    try {
      await client.connect();
    } catch (error) {
      client.end().catch(() => undefined);
      throw error;
    }
    this.connection = client;
  }

  private disconnect(): void {
    hangUp(this.connection);
    this.connection = undefined;
  }

  /** NOTIFY only makes news faster; when this connection is dead without a sign, polling keeps the bound and it is replaced. */
  private async listen(): Promise<void> {
    while (this.running) {
      const client = this.database.client({
        application_name: 'gatehouse listener',
        connectionTimeoutMillis: 1000,
        query_timeout: 1000,
      });
      this.listener = client;
      try {
        await client.connect();
        client.on('notification', () => this.nudge());
        await client.query('LISTEN revocation');
        this.nudge();
        while (this.running) {
          await new Promise((resolve) => setTimeout(resolve, 1000));
          if (this.running) await client.query('SELECT 1');
        }
      } catch {
        if (this.running) await new Promise((resolve) => setTimeout(resolve, 200));
      }
      hangUp(client);
    }
  }
}

/** `end()` would wait for a server that does not answer; and a connection that is still being made would then never settle. */
function hangUp(client: pg.Client | undefined): void {
  (client as unknown as { connection?: { stream?: { destroy(): void } } })?.connection?.stream?.destroy();
}
