import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import type pg from 'pg';
import type { NewAuditEvent } from '../audit/audit-event.js';
import { AuditLog, appendSql, type EventRecord, recordsSql } from '../audit/audit-log.js';
import { Config } from '../config/config.js';
import { Database } from '../database/database.module.js';
import type { Held } from '../kernel/actor.js';
import { Unavailable } from '../kernel/problem.js';
import { sqlState } from './changes.js';
import { GroupCommit } from './group-commit.js';
import { consumeSql, keyOf, SINGLE_USE_COLUMNS, type SingleUse, singleUseRecord, UsedBefore } from './single-use.js';

/** What must still be true, in the statement that records it, for an event to be recorded at all. */
export interface Demands {
  era?: number;
  holds?: readonly Held[];
  /** Used up by this very event: when it was used before, the event is refused. */
  once?: SingleUse;
}

type Outcome = 'recorded' | 'refused' | 'used before';

const RECORDED = `
  SELECT id FROM audit_event JOIN unnest($1::uuid[], $2::uuid[]) AS asked (organization_id, id) USING (organization_id, id)`;

const IN_FLIGHT = 2;

/**
 * An event with demands is refused when the era or any epoch is no longer the one relied on: the token that was signed meanwhile
 * is not handed out. What is absent does not join, and so is refused too.
 */
const DECLARED = ', era integer, holds uuid[], epochs integer[]';
const STILL_TRUE = `e.era IS NULL OR (e.era = (SELECT era FROM era)
     AND (SELECT count(*) FROM unnest(e.holds, e.epochs) AS h (id, epoch) JOIN revocable USING (id, epoch)) = cardinality(e.holds))`;
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
  private readonly queue: GroupCommit<EventRecord, Outcome>;
  private readonly remembered = new Set<string>();

  constructor(
    private readonly audit: AuditLog,
    private readonly config: Config,
    database: Database,
  ) {
    this.pool = database.pool({ max: IN_FLIGHT, application_name: 'gatehouse recorder' });
    this.queue = new GroupCommit((records) => this.flush(records), {
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
  async record(event: NewAuditEvent, { era, holds, once }: Demands = {}): Promise<boolean> {
    const record = this.audit.record(event);
    if (holds) {
      record.era = era;
      record.holds = holds.map(({ id }) => id);
      record.epochs = holds.map(({ epoch }) => epoch);
    }
    if (once) this.useUp(record, once);
    const outcome = await this.queue.add(record);
    if (outcome === 'used before') throw new UsedBefore();
    return outcome === 'recorded';
  }

  private useUp(record: EventRecord, once: SingleUse): void {
    const used = singleUseRecord(once);
    if (!this.config.sabotaged('jti_in_memory')) Object.assign(record, used);
    else if (this.remembered.has(keyOf(used))) throw new UsedBefore();
    else this.remembered.add(keyOf(used));
  }

  private async flush(records: EventRecord[]): Promise<Outcome[]> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await (records.some(usesUp) ? this.recordOnce(records) : this.recordAll(records));
      } catch (error) {
        // Deadlock, serialization failure: nothing was committed for certain, so it may be tried again.
        if (/^40(001|P01)$/.test(sqlState(error) ?? '') && attempt < 4) continue;
        throw new Unavailable('the audit log cannot be written', 1, error);
      }
    }
  }

  private async recordAll(records: EventRecord[]): Promise<Outcome[]> {
    const { rowCount } = await this.pool.query({
      name: 'record',
      text: RECORD,
      values: [JSON.stringify(records)],
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

  private async recordOnce(records: EventRecord[]): Promise<Outcome[]> {
    // Of two in one batch that use up the same, the first may.
    const firsts = new Map<string, EventRecord>();
    for (const record of records) if (usesUp(record)) firsts.set(keyOf(record), firsts.get(keyOf(record)) ?? record);
    const isFirst = (record: EventRecord) => !usesUp(record) || firsts.get(keyOf(record)) === record;
    const { rows } = await this.pool.query<{ id: string; recorded: boolean }>({
      name: 'record-once',
      text: RECORD_ONCE,
      values: [JSON.stringify(records.filter(isFirst))],
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

const usesUp = (record: EventRecord): record is EventRecord & ReturnType<typeof singleUseRecord> =>
  record.jti_hash !== undefined;
