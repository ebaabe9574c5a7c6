import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import type pg from 'pg';
import type { NewAuditEvent } from '../audit/audit-event.js';
import { AuditLog, appendSql, type EventRecord } from '../audit/audit-log.js';
import { Database } from '../database/database.module.js';
import type { Held } from '../kernel/actor.js';
import { Unavailable } from '../kernel/problem.js';
import { GroupCommit } from './group-commit.js';

/** What must still be true, in the statement that records it, for an event to be recorded at all. */
export interface Demands {
  era: number;
  holds: readonly Held[];
}

const RECORDED = `
  SELECT id FROM audit_event JOIN unnest($1::uuid[], $2::uuid[]) AS asked (organization_id, id) USING (organization_id, id)`;

const IN_FLIGHT = 2;

/**
 * An event with demands is refused when the era or any epoch is no longer the one relied on: the token that was signed meanwhile
 * is not handed out. What is absent does not join, and so is refused too.
 */
const RECORD = appendSql(
  ', era integer, holds uuid[], epochs integer[]',
  `e.era IS NULL OR (e.era = (SELECT era FROM era)
     AND (SELECT count(*) FROM unnest(e.holds, e.epochs) AS h (id, epoch) JOIN revocable USING (id, epoch)) = cardinality(e.holds))`,
);

/** Records the events that no transaction of their own belongs to — issuances, refusals — by group commit (P2 at a share of a commit). */
@Injectable()
export class Recorder implements OnApplicationShutdown {
  private readonly pool: pg.Pool;
  private readonly queue: GroupCommit<EventRecord, boolean>;

  constructor(
    private readonly audit: AuditLog,
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
   * Rejects with Unavailable when it could not be recorded, or nobody knows whether it was.
   */
  record(event: NewAuditEvent, demands?: Demands): Promise<boolean> {
    const record = this.audit.record(event);
    if (demands) {
      record.era = demands.era;
      record.holds = demands.holds.map(({ id }) => id);
      record.epochs = demands.holds.map(({ epoch }) => epoch);
    }
    return this.queue.add(record);
  }

  private async flush(records: EventRecord[]): Promise<boolean[]> {
    try {
      const { rowCount } = await this.pool.query({
        name: 'record',
        text: RECORD,
        values: [JSON.stringify(records)],
      });
      if (rowCount === records.length) return records.map(() => true);
      // Seldom: something was revoked a moment ago. Which were recorded is asked for only then.
      const { rows } = await this.pool.query<{ id: string }>(RECORDED, [
        records.map((record) => record.organization_id),
        records.map(({ id }) => id),
      ]);
      const recorded = new Set(rows.map(({ id }) => id));
      return records.map(({ id }) => recorded.has(id));
    } catch (error) {
      throw new Unavailable('the audit log cannot be written', 1, error);
    }
  }

  async onApplicationShutdown(): Promise<void> {
    await this.pool.end();
  }
}
