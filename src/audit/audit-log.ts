import { Injectable } from '@nestjs/common';
import { DataSource, type EntityManager } from 'typeorm';
import { Clock } from '../kernel/clock.js';
import { uuidv7 } from '../kernel/ids.js';
import type { AuditEvent, AuditFilter, NewAuditEvent } from './audit-event.js';

const SCHEMA_VERSION = 1;

/** The columns of a row, as `json_to_recordset` declares them; the names are those of the record and of the table. */
const COLUMNS: Record<string, string> = {
  organization_id: 'uuid',
  id: 'uuid',
  occurred_at: 'timestamptz',
  action: 'text',
  outcome: 'text',
  reason: 'text',
  actor_type: 'text',
  actor_id: 'uuid',
  actor_name: 'text',
  actor_organization_id: 'uuid',
  on_behalf_of: 'jsonb',
  credential_id: 'uuid',
  token_id: 'uuid',
  targets: 'jsonb',
  target_ids: 'text[]',
  request_id: 'text',
  address: 'text',
  user_agent: 'text',
  changes: 'jsonb',
  schema_version: 'smallint',
  boot_id: 'uuid',
  counter: 'bigint',
};
const NAMES = Object.keys(COLUMNS).join(', ');
const DECLARED = Object.entries(COLUMNS)
  .map(([name, type]) => `${name} ${type}`)
  .join(', ');

/** The records of a JSON array given as $1, as rows. `more` declares further members of a record. */
export const recordsSql = (more = '') => `json_to_recordset($1::json) AS e (${DECLARED}${more})`;
/** SQL that appends the rows of `from`; a WHERE behind it may refuse one. */
export const appendSql = (from = recordsSql()) => `INSERT INTO audit_event (${NAMES}) SELECT ${NAMES} FROM ${from}`;

/** An event in the shape that {@link appendSql} reads. */
export type EventRecord = { organization_id: string; id: string } & Record<string, unknown>;

const APPEND = appendSql();
/** Texts from a caller are kept as data, whole up to this length. */
const MAX_TEXT = 512;

const cut = (text: string | null | undefined) =>
  text && text.length > MAX_TEXT ? text.slice(0, MAX_TEXT).toWellFormed() : text;

/** Appends and finds events. Knows nobody: an actor is a value, an organization an id. */
@Injectable()
export class AuditLog {
  private readonly bootId: string;
  private counter = 0;

  constructor(
    private readonly database: DataSource,
    private readonly clock: Clock,
  ) {
    this.bootId = uuidv7(clock.wall());
  }

  /** The record of an event, in the shape that {@link appendSql} reads. Built from listed fields, never by redacting. */
  record(event: NewAuditEvent): EventRecord {
    const now = this.clock.now();
    return {
      organization_id: event.organizationId ?? event.actor.organizationId,
      id: uuidv7(now),
      occurred_at: new Date(now).toISOString(),
      action: event.action,
      outcome: event.outcome ?? 'success',
      reason: cut(event.reason),
      actor_type: event.actor.type,
      actor_id: event.actor.id,
      actor_name: cut(event.actor.name),
      actor_organization_id: event.actor.organizationId,
      on_behalf_of: event.onBehalfOf && { ...event.onBehalfOf, name: cut(event.onBehalfOf.name) },
      credential_id: event.credentialId,
      token_id: event.tokenId,
      targets: event.targets ?? [],
      target_ids: event.targets?.length ? event.targets.map(({ id }) => id) : undefined,
      request_id: event.request.id,
      address: event.request.address,
      user_agent: cut(event.request.userAgent),
      changes: event.changes,
      schema_version: SCHEMA_VERSION,
      boot_id: this.bootId,
      counter: ++this.counter,
    };
  }

  /** Appends inside a transaction of the caller's: the events commit with what they tell of, or not at all. */
  async append(tx: EntityManager, events: readonly NewAuditEvent[]): Promise<void> {
    if (events.length > 0) await tx.query(APPEND, [JSON.stringify(events.map((event) => this.record(event)))]);
  }

  /** Events of one organization, newest first, from before the event `before`. Every filter has its index. */
  async list(organizationId: string, filter: AuditFilter, limit: number, before?: string): Promise<AuditEvent[]> {
    const values: unknown[] = [organizationId];
    const where = ['organization_id = $1'];
    const add = (sql: string, value: unknown) => {
      if (value === undefined) return;
      values.push(value);
      where.push(sql.replace('?', `$${values.length}`));
    };
    add('actor_name = ?', filter.actorName);
    add('actor_id = ?', filter.actorId);
    add('action = ?', filter.action);
    add('outcome = ?', filter.outcome);
    add('target_ids @> ARRAY[?::text]', filter.targetId);
    add('credential_id = ?', filter.credentialId);
    add('request_id = ?', filter.requestId);
    // The id begins with the time, so the primary key serves these two.
    add('id >= ?', filter.from && uuidv7(filter.from.getTime(), 0));
    add('id < ?', filter.to && uuidv7(filter.to.getTime(), 0));
    add('id < ?', before);
    const rows = await this.database.query(
      `${SELECT} WHERE ${where.join(' AND ')} ORDER BY id DESC LIMIT ${Math.trunc(limit)}`,
      values,
    );
    return rows.map(toEvent);
  }

  async find(organizationId: string, id: string): Promise<AuditEvent | undefined> {
    const [row] = await this.database.query(`${SELECT} WHERE organization_id = $1 AND id = $2`, [organizationId, id]);
    return row && toEvent(row);
  }

  /** When a token was last issued on each of these credentials; an index entry each. */
  async lastIssued(organizationId: string, credentialIds: readonly string[]): Promise<Map<string, Date>> {
    const rows: { credential_id: string; occurred_at: Date }[] = await this.database.query(
      `SELECT c.id AS credential_id, last.occurred_at FROM unnest($2::uuid[]) AS c (id), LATERAL (
         SELECT occurred_at FROM audit_event
          WHERE organization_id = $1 AND credential_id = c.id AND action = 'token.issued' AND outcome = 'success'
          ORDER BY id DESC LIMIT 1) AS last`,
      [organizationId, credentialIds],
    );
    return new Map(rows.map((row) => [row.credential_id, row.occurred_at]));
  }

  /** Makes the partitions of the coming months. There is no default one: an event without a place fails loudly. */
  async makePartitions(): Promise<void> {
    await this.database.query('SELECT audit_event_make_partitions(2)');
  }
}

const SELECT = `SELECT organization_id, id, occurred_at, action, outcome, reason, actor_type, actor_id, actor_name, actor_organization_id,
  on_behalf_of, credential_id, token_id, targets, request_id, address, user_agent, changes FROM audit_event`;

// biome-ignore lint/suspicious/noExplicitAny: a row as pg returns it
const toEvent = (row: any): AuditEvent => ({
  id: row.id,
  organizationId: row.organization_id,
  occurredAt: row.occurred_at,
  action: row.action,
  outcome: row.outcome,
  reason: row.reason,
  actor: { type: row.actor_type, id: row.actor_id, name: row.actor_name, organizationId: row.actor_organization_id },
  onBehalfOf: row.on_behalf_of,
  credentialId: row.credential_id,
  tokenId: row.token_id,
  targets: row.targets,
  changes: row.changes,
  requestId: row.request_id,
  address: row.address,
  userAgent: row.user_agent,
});
