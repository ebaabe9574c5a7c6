import { Injectable } from '@nestjs/common';
import { DataSource, type EntityManager, QueryFailedError } from 'typeorm';
import type { NewAuditEvent } from '../audit/audit-event.js';
import { AuditLog } from '../audit/audit-log.js';
import type { Actor, Caller, RequestInfo, Target } from '../kernel/actor.js';
import { Problem, problem, Unavailable } from '../kernel/problem.js';
import { type Barrier, type Publication, type RevocableKind, Revocations } from '../revocation/revocations.js';

/** Who makes a change when no guarded request does: sign-in, the first start, a scheduled rotation. */
export interface Initiator {
  actor: Actor;
  request: RequestInfo;
}

/** What a committed change tells of its revocations and of the wait for every instance; undefined when it published nothing. */
export interface Outcome<T> {
  result: T;
  barrier: Barrier | undefined;
  /** Whether an earlier request with this Idempotency-Key made it. */
  replayed: boolean;
}

/** What a change may do beside writing its own module's tables through `tx`. */
export class Change {
  readonly events: NewAuditEvent[] = [];
  readonly publications: (Publication & { epoch: number | null })[] = [];

  constructor(
    readonly tx: EntityManager,
    private readonly by: Initiator & Partial<Caller>,
    private readonly revocations: Revocations,
  ) {}

  /** Adds an event; it commits with the change. */
  record(event: Omit<NewAuditEvent, 'actor' | 'request'>): void {
    this.events.push({
      actor: this.by.actor,
      request: this.by.request,
      organizationId: this.by.organizationId,
      tokenId: this.by.tokenId,
      ...event,
      credentialId: event.credentialId ?? this.by.credential?.id,
    });
  }

  /** Gives something new the row that its epoch lives in. */
  register(kind: RevocableKind, id: string, organizationId: string): Promise<void> {
    return this.revocations.register(this.tx, kind, id, organizationId);
  }

  /** Ends everything issued on the subject before this commits: in every instance when the change returns. */
  async revoke(kind: RevocableKind, subject: Target, organizationId: string, reason?: string): Promise<void> {
    const epoch = await this.revocations.raise(this.tx, subject.id);
    this.publications.push({ kind, subject, organizationId, revoke: true, reason, epoch });
  }

  /** Ends one access token, in every instance when the change returns; its siblings live. False when it was ended before. */
  async revokeToken(subject: Target, organizationId: string, expiresAt: number): Promise<boolean> {
    if (!(await this.revocations.endToken(this.tx, subject.id))) return false;
    this.publications.push({ kind: 'token', subject, organizationId, revoke: true, epoch: 1, expiresAt });
    return true;
  }

  /** Ends what is judged by its row alone (a session): nothing caches it, so nothing need be told. */
  async end(id: string): Promise<void> {
    await this.revocations.raise(this.tx, id);
  }

  /** Makes every instance forget what it caches of the subject before the change returns. */
  forget(kind: Publication['kind'], subject: Target, organizationId: string): void {
    this.publications.push({ kind, subject, organizationId, revoke: false, epoch: null });
  }
}

const IDEMPOTENCY_HOURS = 24;

/**
 * The one way to change anything (P1, P2): one transaction that re-checks the caller, does the work, appends the events, publishes
 * what must be forgotten last, commits, and waits until every instance has heard of it.
 */
@Injectable()
export class Changes {
  constructor(
    private readonly database: DataSource,
    private readonly audit: AuditLog,
    private readonly revocations: Revocations,
  ) {}

  /**
   * `oneTime` names members of the result that are shown in this answer alone: a repeat under the same Idempotency-Key lacks them.
   * Throws Unavailable when it could not be recorded (nothing changed) or its commit got no answer (nobody knows).
   */
  async run<T extends object | undefined>(
    by: Caller | Initiator,
    work: (change: Change) => Promise<T>,
    oneTime: readonly string[] = [],
  ): Promise<Outcome<T>> {
    const caller = 'holds' in by ? by : undefined;
    let last = 0;
    let replayed = false;
    let settled = false;
    const result = await this.transaction(async (tx) => {
      if (caller && !(await this.revocations.stillHeld(tx, caller.holds, caller.tokenId)))
        throw problem('unauthenticated', 'The credential of this request was revoked');
      const earlier = caller?.idempotency && (await this.reserve<T>(tx, caller));
      if (earlier) {
        replayed = settled = true;
        return earlier;
      }
      const change = new Change(tx, by, this.revocations);
      const made = await work(change);
      settled = change.events.length === 0;
      if (caller?.idempotency) await this.remember(tx, caller, made, oneTime);
      await this.appendAll(tx, change.events);
      if (change.publications.length > 0) last = await this.revocations.publish(tx, by.actor, change.publications);
      return made;
    });
    // Found done already: another call may have committed it a moment ago and still wait for the instances. This answer waits as well.
    if (settled && last === 0) last = await this.revocations.head();
    return { result, barrier: last > 0 ? await this.revocations.barrier(last) : undefined, replayed };
  }

  private async appendAll(tx: EntityManager, events: readonly NewAuditEvent[]): Promise<void> {
    try {
      await this.audit.append(tx, events);
    } catch (error) {
      throw new Unavailable('the audit log cannot be written', 1, error);
    }
  }

  private async transaction<T>(work: (tx: EntityManager) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.database.transaction(work);
      } catch (error) {
        const state = sqlState(error);
        // Serialization failure, deadlock: the transaction is undone for certain, so it may be tried again.
        if ((state === '40001' || state === '40P01') && attempt < 4) continue;
        if (error instanceof Problem || error instanceof Unavailable) throw error;
        if (state === undefined && !(error instanceof QueryFailedError) && !isConnectionError(error)) throw error;
        if (state?.startsWith('23') || state?.startsWith('22')) throw error;
        throw new Unavailable('the database did not answer', 1, error);
      }
    }
  }

  /** The stored answer of an earlier request with this key; undefined when this one is the first, which then holds the key. */
  private async reserve<T>(tx: EntityManager, caller: Caller): Promise<T | undefined> {
    const { key, route, bodyHash } = caller.idempotency!;
    const id = [caller.actor.id, route, key];
    await tx.query(
      `DELETE FROM idempotency_key WHERE caller_id = $1 AND route = $2 AND key = $3 AND created_at < now() - interval '${IDEMPOTENCY_HOURS} hours'`,
      id,
    );
    const inserted = await tx.query(
      'INSERT INTO idempotency_key (caller_id, route, key, body_hash) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING 1',
      [...id, bodyHash],
    );
    if (inserted.length > 0) return undefined;
    const [earlier] = await tx.query(
      'SELECT body_hash, response FROM idempotency_key WHERE caller_id = $1 AND route = $2 AND key = $3',
      id,
    );
    if (!earlier) throw problem('idempotency_key_in_use');
    if (!bodyHash.equals(earlier.body_hash)) throw problem('idempotency_key_reused');
    return earlier.response;
  }

  private async remember(
    tx: EntityManager,
    caller: Caller,
    result: object | undefined,
    oneTime: readonly string[],
  ): Promise<void> {
    const { key, route } = caller.idempotency!;
    const kept = Object.fromEntries(Object.entries(result ?? {}).filter(([name]) => !oneTime.includes(name)));
    await tx.query('UPDATE idempotency_key SET response = $4 WHERE caller_id = $1 AND route = $2 AND key = $3', [
      caller.actor.id,
      route,
      key,
      JSON.stringify(kept),
    ]);
  }

  /** Drops keys that are past their day. */
  async prune(): Promise<void> {
    await this.database.query(
      `DELETE FROM idempotency_key WHERE created_at < now() - interval '${IDEMPOTENCY_HOURS} hours'`,
    );
  }
}

export const sqlState = (error: unknown): string | undefined => {
  const { code, driverError } = (error ?? {}) as { code?: unknown; driverError?: { code?: unknown } };
  const state = driverError?.code ?? code;
  return typeof state === 'string' && /^[0-9A-Z]{5}$/.test(state) ? state : undefined;
};

/** The name of the constraint that a row would have broken. */
export const brokenConstraint = (error: unknown): string | undefined =>
  (error as { driverError?: { constraint?: string } })?.driverError?.constraint;

/** What pg, TypeORM on a connection that broke between two queries, and the network throw when the database is away or does not answer. */
export function isConnectionError(error: unknown): boolean {
  const { code, message } = (error ?? {}) as { code?: string; message?: string };
  return (
    /^E(CONN|PIPE|TIMEDOUT|HOST|NET|NOENT|AI_)/.test(code ?? '') ||
    /Connection terminated|query runner was already released|timeout exceeded when trying to connect|Query read timeout|Client has encountered a connection error|Driver not Connected/i.test(
      message ?? '',
    )
  );
}
