import { Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { Unavailable } from '../kernel/problem.js';
import { GroupCommit } from './group-commit.js';

/** What is good for one request: the `jti` of a client's assertion (RFC 7523 §3). Two accounts may use the same one. */
export interface SingleUse {
  serviceAccountId: string;
  /** SHA-256 of the `jti`. */
  hash: Buffer;
  /** From then on it is refused by its time, ms since the Unix epoch. */
  expiresAt: number;
}

/** It was used before, here or on another instance. */
export class UsedBefore extends Error {
  override name = 'UsedBefore';
}

/** The members of a JSON record that use one up. */
export const singleUseRecord = ({ serviceAccountId, hash, expiresAt }: SingleUse) => ({
  jti_account_id: serviceAccountId,
  jti_hash: `\\x${hash.toString('hex')}`,
  jti_expires_at: new Date(expiresAt).toISOString(),
});
export const SINGLE_USE_COLUMNS = 'jti_account_id uuid, jti_hash bytea, jti_expires_at timestamptz';

/**
 * Uses up those among the rows of `from` that nobody has used, and returns the keys of these. Whoever comes second waits for the first
 * to commit, and then has none. In one order everywhere, so that two statements never wait for each other.
 */
export const consumeSql = (from: string) => `
  INSERT INTO assertion_jti (service_account_id, jti_hash, expires_at)
  SELECT jti_account_id, jti_hash, jti_expires_at FROM ${from}
   WHERE jti_hash IS NOT NULL ORDER BY jti_account_id, jti_hash
  ON CONFLICT DO NOTHING RETURNING service_account_id, jti_hash`;

type Used = ReturnType<typeof singleUseRecord>;
export const keyOf = ({ jti_account_id, jti_hash }: Used) => `${jti_account_id} ${jti_hash}`;

const CONSUME = `
  WITH consumed AS (${consumeSql(`json_to_recordset($1::json) AS j (${SINGLE_USE_COLUMNS})`)})
  SELECT service_account_id AS jti_account_id, '\\x' || encode(jti_hash, 'hex') AS jti_hash FROM consumed`;

const PRUNE_AT_ONCE = 5000;
/** Past their end by so much that no instance's clock can still take the assertion for good. */
const PRUNE = `
  DELETE FROM assertion_jti WHERE (service_account_id, jti_hash) IN (
    SELECT service_account_id, jti_hash FROM assertion_jti WHERE expires_at < clock_timestamp() - interval '1 minute'
     ORDER BY expires_at LIMIT ${PRUNE_AT_ONCE} FOR UPDATE SKIP LOCKED)`;

/** Uses up what no recorded event does, many in one commit, and forgets what has had its time. */
@Injectable()
export class SingleUses {
  private readonly queue: GroupCommit<Used, boolean>;

  constructor(private readonly database: DataSource) {
    const options = { inFlight: 1, batch: 500, queue: 10_000, age: 5_000 };
    this.queue = new GroupCommit((records) => this.flush(records), options);
  }

  /** Rejects with UsedBefore, or with Unavailable when it could not be written or nobody knows whether it was. */
  async consume(value: SingleUse): Promise<void> {
    if (!(await this.queue.add(singleUseRecord(value)))) throw new UsedBefore();
  }

  /** Drops those that could not be used again anyway. */
  async prune(): Promise<void> {
    let dropped: number;
    do [, dropped] = await this.database.query(PRUNE);
    while (dropped === PRUNE_AT_ONCE);
  }

  private async flush(records: Used[]): Promise<boolean[]> {
    try {
      const rows: Used[] = await this.database.query(CONSUME, [JSON.stringify(records)]);
      const consumed = new Set(rows.map(keyOf));
      // Of two in one batch the first has it.
      return records.map((record) => consumed.delete(keyOf(record)));
    } catch (error) {
      throw new Unavailable('used assertions cannot be written', 1, error);
    }
  }
}
