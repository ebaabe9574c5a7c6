import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import type pg from 'pg';
import type { NewAuditEvent } from '../audit/audit-event.js';
import { AuditLog, appendSql, type EventRecord, recordsSql } from '../audit/audit-log.js';
import { Config } from '../config/config.js';
import { Database } from '../database/database.module.js';
import type { Holds } from '../kernel/actor.js';
import { Unavailable } from '../kernel/problem.js';
import { sqlState } from './changes.js';
import { GroupCommit } from './group-commit.js';
import { consumeSql, keyOf, SINGLE_USE_COLUMNS, type SingleUse, singleUseRecord, UsedBefore } from './single-use.js';

/** What must still be true, in the statement that records it, for an event to be recorded at all. */
export interface Demands {
  unchanged?: { era: number; holds: Holds };
  /** Used up by this very event: when it was used before, the event is refused. */
  once?: SingleUse;
}

interface Entry extends Pick<Demands, 'unchanged'> {
  record: EventRecord;
}

type Outcome = 'recorded' | 'refused' | 'used before';

const RECORDED = `
  SELECT id FROM audit_event JOIN unnest($1::uuid[], $2::uuid[]) AS asked (organization_id, id) USING (organization_id, id)`;

const IN_FLIGHT = 2;

/**
 * An event with demands is refused when the era or any epoch is no longer the one relied on: the token that was signed meanwhile
 * is not handed out. What is absent has no epoch, and so is refused too. Events name their set of demands by its number, and each
 * set is looked up once a batch: the events of a busy client hang on the same few rows. An id that is null stands for the era.
 */
const DECLARED = ', demands integer';
const STILL_TRUE = `(e.demands IS NULL OR e.demands <> ALL (ARRAY(
     SELECT d.demands FROM unnest($2::integer[], $3::uuid[], $4::integer[]) AS d (demands, id, epoch)
      WHERE d.epoch IS DISTINCT FROM
            CASE WHEN d.id IS NULL THEN (SELECT era FROM era) ELSE (SELECT epoch FROM revocable WHERE id = d.id) END)))`;
const RECORD = `${appendSql(recordsSql(DECLARED))} WHERE ${STILL_TRUE}`;

/**
 * The same for a batch in which something is used up: in one statement, so that no event is without its value and no value has two.
 * What fails another demand uses up nothing.
 */
const RECORD_ONCE = `
  WITH demanded AS (SELECT * FROM ${recordsSql(`${DECLARED}, ${SINGLE_USE_COLUMNS}`)} WHERE ${STILL_TRUE}),
       consumed AS (${consumeSql('demanded')}),
       recorded AS (${appendSql('demanded')} WHERE jti_hash IS NULL
          OR (jti_account_id, jti_hash) IN (SELECT service_account_id, jti_hash FROM consumed) RETURNING id)
  SELECT demanded.id, recorded.id IS NOT NULL AS recorded FROM demanded LEFT JOIN recorded USING (id)`;

/** Records the events that no transaction of their own belongs to — issuances, refusals — by group commit (P2 at a share of a commit). */
@Injectable()
export class Recorder implements OnApplicationShutdown {
  private readonly pool: pg.Pool;
  private readonly queue: GroupCommit<Entry, Outcome>;
  private readonly remembered = new Set<string>();

  constructor(
    private readonly audit: AuditLog,
    private readonly config: Config,
    database: Database,
  ) {
    // Left to itself PostgreSQL plans the statement anew each time, for a quarter of what it costs.
    this.pool = database.pool(
      { max: IN_FLIGHT, application_name: 'gatehouse recorder' },
      { plan_cache_mode: 'force_generic_plan' },
    );
    this.queue = new GroupCommit((entries) => this.flush(entries), {
      inFlight: IN_FLIGHT,
      batch: 500,
      queue: 10_000,
      age: 5_000,
    });
  }

  /**
   * Resolves once the event is on disk: true; or false when its demands are no longer met and nothing was recorded.
   * Rejects with UsedBefore, and with Unavailable when it could not be recorded, or nobody knows whether it was.
   */
  async record(event: NewAuditEvent, { unchanged, once }: Demands = {}): Promise<boolean> {
    const record = this.audit.record(event);
    if (once) this.useUp(record, once);
    const outcome = await this.queue.add({ record, unchanged });
    if (outcome === 'used before') throw new UsedBefore();
    return outcome === 'recorded';
  }

  private useUp(record: EventRecord, once: SingleUse): void {
    const used = singleUseRecord(once);
    if (!this.config.sabotaged('jti_in_memory')) Object.assign(record, used);
    else if (this.remembered.has(keyOf(used))) throw new UsedBefore();
    else this.remembered.add(keyOf(used));
  }

  private async flush(entries: Entry[]): Promise<Outcome[]> {
    const demands = numbered(entries);
    const records = entries.map(({ record }) => record);
    for (let attempt = 1; ; attempt++) {
      try {
        return await (records.some(usesUp) ? this.recordOnce(records, demands) : this.recordAll(records, demands));
      } catch (error) {
        // Deadlock, serialization failure: nothing was committed for certain, so it may be tried again.
        if (/^40(001|P01)$/.test(sqlState(error) ?? '') && attempt < 4) continue;
        throw new Unavailable('the audit log cannot be written', 1, error);
      }
    }
  }

  private async recordAll(records: EventRecord[], demands: unknown[]): Promise<Outcome[]> {
    const { rowCount } = await this.pool.query({
      name: 'record',
      text: RECORD,
      values: [JSON.stringify(records), ...demands],
    });
    if (rowCount === records.length) return records.map(() => 'recorded');
    // Seldom: something was revoked a moment ago. Which were recorded is asked for only then.
    const { rows } = await this.pool.query<{ id: string }>(RECORDED, [
      records.map((record) => record.organization_id),
      records.map(({ id }) => id),
    ]);
    const recorded = new Set(rows.map(({ id }) => id));
    return records.map(({ id }) => (recorded.has(id) ? 'recorded' : 'refused'));
  }

  private async recordOnce(records: EventRecord[], demands: unknown[]): Promise<Outcome[]> {
    // Of two in one batch that use up the same, the first may.
    const firsts = new Map<string, EventRecord>();
    for (const record of records) if (usesUp(record)) firsts.set(keyOf(record), firsts.get(keyOf(record)) ?? record);
    const isFirst = (record: EventRecord) => !usesUp(record) || firsts.get(keyOf(record)) === record;
    const { rows } = await this.pool.query<{ id: string; recorded: boolean }>({
      name: 'record-once',
      text: RECORD_ONCE,
      values: [JSON.stringify(records.filter(isFirst)), ...demands],
    });
    const recorded = new Map(rows.map((row) => [row.id, row.recorded]));
    return records.map((record) => {
      if (!isFirst(record)) return 'used before';
      const outcome = recorded.get(record.id);
      return outcome ? 'recorded' : outcome === false ? 'used before' : 'refused';
    });
  }

  async onApplicationShutdown(): Promise<void> {
    await this.pool.end();
  }
}

/**
 * Numbers the sets of demands in a batch, and each record's set by its number: what {@link STILL_TRUE} reads, from $2 on. Events of
 * one client share one object, so that the set is looked up once.
 */
function numbered(entries: readonly Entry[]): [demands: number[], ids: (string | null)[], epochs: number[]] {
  const sets = new Map<NonNullable<Entry['unchanged']>, number>();
  const lines: ReturnType<typeof numbered> = [[], [], []];
  for (const { record, unchanged } of entries) {
    if (!unchanged) continue;
    const known = sets.get(unchanged);
    record.demands = known ?? sets.size;
    if (known !== undefined) continue;
    for (const { id, epoch } of [{ id: null, epoch: unchanged.era }, ...Object.values(unchanged.holds)]) {
      lines[0].push(sets.size);
      lines[1].push(id);
      lines[2].push(epoch);
    }
    sets.set(unchanged, sets.size);
  }
  return lines;
}

const usesUp = (record: EventRecord): record is EventRecord & ReturnType<typeof singleUseRecord> =>
  record.jti_hash !== undefined;
