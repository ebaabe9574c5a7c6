import { createPrivateKey, createPublicKey, createSecretKey, generateKeyPair, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';
import { Injectable } from '@nestjs/common';
import { calculateJwkThumbprint, type JWK } from 'jose';
import { DataSource, type EntityManager } from 'typeorm';
import { Config } from '../config/config.js';
import { Clock } from '../kernel/clock.js';
import { publicId, randomOctets, uuidv7 } from '../kernel/ids.js';
import { StartupError } from '../kernel/startup-error.js';
import type { MasterKeys } from './master-keys.js';

/** What a key is for; it is part of the AAD, so a ciphertext moved to another row does not open. */
export type KeyPurpose = 'credential-hash' | 'cursor' | 'token-seal' | 'token-sign';
/** Published before use, used only after every live instance has confirmed it, kept until the last token under it has ended. */
export type KeyState = 'pending' | 'active' | 'retiring' | 'retired';
export type KeyAlgorithm = 'HS256' | 'A256GCM' | 'ES256' | 'RS256' | 'PS256';

export interface Key {
  /** Its row in `revocable`: every token that was made with it hangs on it. */
  id: string;
  /** RFC 7638 thumbprint of a signing key; the public id of a symmetric one. */
  kid: string;
  purpose: KeyPurpose;
  algorithm: KeyAlgorithm;
  state: KeyState;
  /** The symmetric key, or the private half. A KeyObject: raw key bytes cost five times as much on Node 24. */
  secret: KeyObject;
  publicKey?: KeyObject;
  publicJwk?: JWK;
  activatesAt: Date;
  activatedAt: Date | null;
  retiringAt: Date | null;
}

/** All that may be told of a key, in whatever state. */
export interface KeyRecord {
  id: string;
  kid: string;
  purpose: KeyPurpose;
  algorithm: KeyAlgorithm;
  state: KeyState | 'revoked';
  /** Of the master key that wraps it; null when its material is destroyed. */
  masterKeyId: string | null;
  createdAt: Date;
  activatesAt: Date;
  activatedAt: Date | null;
  retiringAt: Date | null;
  retiredAt: Date | null;
  revokedAt: Date | null;
  revokedReason: string | null;
}

export type KeyRevocation = 'revoked' | 'replaced' | 'no successor' | 'ended';

const WRAPPING_LOCK = '7315, 10';

/**
 * The random keys in the database, each wrapped with a master key, and in memory the open ones that are not retired.
 * Owns key material and its states; refuses to know what a token or a secret is.
 */
@Injectable()
export class Keyring {
  private keys: readonly Key[] = [];
  private revoked: ReadonlySet<string> = new Set();
  private gone = 0;
  private turns = 0;
  private loaded = 0;
  private readonly masterKeys: MasterKeys;

  constructor(
    private readonly database: DataSource,
    private readonly clock: Clock,
    config: Config,
  ) {
    this.masterKeys = config.masterKeys;
  }

  /** Reads every key that is not retired. Throws a StartupError (78) when a master key that wraps one of them is not at hand. */
  async load(): Promise<void> {
    const turn = ++this.turns;
    const rows: (Row & { revoked: boolean })[] = await this.database.query(
      `SELECT id, purpose, algorithm, state, wrapped, master_key_id, kid, public_jwk, activates_at, activated_at, retiring_at,
              revoked_at IS NOT NULL AS revoked
         FROM keyring_key WHERE state <> 'retired' OR revoked_at IS NOT NULL ORDER BY id`,
    );
    const wrapped = rows.filter(({ revoked }) => !revoked);
    await this.masterKeys.know([...new Set(wrapped.map(({ master_key_id }) => master_key_id))]);
    if (turn < this.loaded) return; // a later look was answered first, and may have seen a key that this one did not
    const keys = wrapped.map((row) => this.open(row));
    if (this.keys.some(({ id }) => !keys.some((key) => key.id === id))) this.gone++;
    this.keys = keys;
    this.revoked = new Set(rows.filter(({ revoked }) => revoked).map(({ kid }) => kid));
    this.loaded = turn;
  }

  /** Changes whenever a key is gone from memory: whatever was checked with one before must be checked anew. */
  get departures(): number {
    return this.gone;
  }

  /** Whether the kid is of a key that was revoked. */
  isRevoked(kid: string): boolean {
    return this.revoked.has(kid);
  }

  /** The key to use now. Throws when there is none: the service is not ready then. */
  active(purpose: KeyPurpose): Key {
    const key = this.keys.find((candidate) => candidate.purpose === purpose && candidate.state === 'active');
    if (!key) throw new Error(`no active ${purpose} key`);
    return key;
  }

  /** A key that what was made earlier may name; an unknown kid costs no I/O. */
  find(purpose: KeyPurpose, kid: string): Key | undefined {
    return this.keys.find((key) => key.purpose === purpose && key.kid === kid);
  }

  byId(id: string): Key | undefined {
    return this.keys.find((key) => key.id === id);
  }

  /** All that are not retired, oldest first: what the JWKS shows of `token-sign`. */
  all(purpose: KeyPurpose): Key[] {
    return this.keys.filter((key) => key.purpose === purpose);
  }

  /** Makes the first key of a purpose active. Of instances that race for it one wins, and all use its key. */
  async ensure(purpose: KeyPurpose, algorithm: KeyAlgorithm): Promise<void> {
    if (this.keys.some((key) => key.purpose === purpose && key.state === 'active')) return;
    const key = await this.generate(purpose, algorithm);
    await this.database.transaction((tx) => this.insert(tx, key, 'active', 0));
    await this.load();
  }

  /** A new key; nothing is stored yet. */
  async generate(purpose: KeyPurpose, algorithm: KeyAlgorithm): Promise<NewKey> {
    const id = uuidv7(this.clock.now());
    return { id, purpose, algorithm, ...(await generate(algorithm, id)) };
  }

  /** Adds the next key, to be used so many seconds from now on, by the database's clock. False when one is pending already. */
  addPending(tx: EntityManager, key: NewKey, seconds: number): Promise<boolean> {
    return this.insert(tx, key, 'pending', seconds);
  }

  /** The active key of the purpose begins to retire and the pending one takes over. False when none is pending. */
  async activatePending(tx: EntityManager, purpose: KeyPurpose): Promise<boolean> {
    const [pending] = await tx.query(`SELECT id FROM keyring_key WHERE purpose = $1 AND state = 'pending' FOR UPDATE`, [
      purpose,
    ]);
    if (!pending) return false;
    await tx.query(
      `UPDATE keyring_key SET state = 'retiring', retiring_at = clock_timestamp() WHERE purpose = $1 AND state = 'active'`,
      [purpose],
    );
    await tx.query(`UPDATE keyring_key SET state = 'active', activated_at = clock_timestamp() WHERE id = $1`, [
      pending.id,
    ]);
    return true;
  }

  /** Retires those of a purpose that began to retire before `before`, and destroys their key material. Returns how many. */
  async retire(tx: EntityManager, purpose: KeyPurpose, before: Date): Promise<number> {
    const [, count] = await tx.query(
      `UPDATE keyring_key SET state = 'retired', retired_at = clock_timestamp(), wrapped = NULL
        WHERE purpose = $1 AND state = 'retiring' AND retiring_at < $2`,
      [purpose, before],
    );
    return count;
  }

  /**
   * Destroys the material of a key. From one in use the pending one takes over (`replaced`); when none is pending nothing is done
   * (`no successor`): a purpose is never without a key. `ended`: it is retired or revoked already.
   */
  async revoke(tx: EntityManager, { id, purpose }: KeyRecord, reason: string | undefined): Promise<KeyRevocation> {
    const rows: { id: string; state: KeyState }[] = await tx.query(
      `SELECT id, state FROM keyring_key WHERE purpose = $1 AND state <> 'retired' ORDER BY id FOR UPDATE`,
      [purpose],
    );
    const state = rows.find((row) => row.id === id)?.state;
    if (!state) return 'ended';
    if (state === 'active' && !(await this.activatePending(tx, purpose))) return 'no successor';
    await tx.query(
      `UPDATE keyring_key SET state = 'retired', retired_at = clock_timestamp(), revoked_at = clock_timestamp(), revoked_reason = $2, wrapped = NULL
        WHERE id = $1`,
      [id, reason ?? null],
    );
    return state === 'active' ? 'replaced' : 'revoked';
  }

  /** Keys of every state, newest first. `after`: the kid that the page before ended with. */
  list(limit: number, after?: string): Promise<KeyRecord[]> {
    return this.database.query(
      `${SELECT_RECORD} WHERE $2::text IS NULL OR id < (SELECT id FROM keyring_key WHERE kid = $2) ORDER BY id DESC LIMIT $1`,
      [limit, after ?? null],
    );
  }

  /** A key of whatever state. */
  async record(kid: string): Promise<KeyRecord | undefined> {
    const [row] = await this.database.query(`${SELECT_RECORD} WHERE kid = $1`, [kid]);
    return row;
  }

  /** Wraps one more key with the current master key, and tells how far that is. Undefined when every key is wrapped by it. */
  async rewrapNext(tx: EntityManager): Promise<Rewrapped | undefined> {
    const to = this.masterKeys.currentId;
    // From here on no new key is wrapped by what was in use before: all that are have been committed, and the rest see this one.
    await tx.query(`SELECT pg_advisory_xact_lock(${WRAPPING_LOCK})`);
    const [row]: Row[] = await tx.query(
      'SELECT * FROM keyring_key WHERE wrapped IS NOT NULL AND master_key_id <> $1 ORDER BY id LIMIT 1 FOR UPDATE',
      [to],
    );
    if (!row) return undefined;
    await this.masterKeys.know([row.master_key_id, to]);
    const plain = this.unwrap(row);
    const wrapped = this.masterKeys.wrap(plain, labelOf(row), to);
    plain.fill(0);
    await tx.query('UPDATE keyring_key SET wrapped = $2, master_key_id = $3 WHERE id = $1', [row.id, wrapped, to]);
    const [{ done, total }] = await tx.query(
      'SELECT count(*) FILTER (WHERE master_key_id = $1)::int AS done, count(*)::int AS total FROM keyring_key WHERE wrapped IS NOT NULL',
      [to],
    );
    return { id: row.id, kid: row.kid, from: row.master_key_id, to, done, total };
  }

  private async insert(tx: EntityManager, key: NewKey, state: 'pending' | 'active', seconds: number): Promise<boolean> {
    await tx.query(`SELECT pg_advisory_xact_lock_shared(${WRAPPING_LOCK})`);
    const used: Pick<Row, 'master_key_id'>[] = await tx.query(
      'SELECT DISTINCT master_key_id FROM keyring_key WHERE wrapped IS NOT NULL ORDER BY 1',
    );
    const inUse = used.map(({ master_key_id }) => master_key_id);
    await this.masterKeys.know(inUse);
    const masterKeyId = this.masterKeys.toWrapWith(inUse);
    const { id, purpose, algorithm, kid, publicJwk } = key;
    const plain =
      key.secret.type === 'secret' ? key.secret.export() : key.secret.export({ format: 'der', type: 'pkcs8' });
    const wrapped = this.masterKeys.wrap(plain, labelOf(key), masterKeyId);
    plain.fill(0);
    const rows = await tx.query(
      `INSERT INTO keyring_key (id, purpose, algorithm, state, wrapped, master_key_id, kid, public_jwk, activates_at, activated_at)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp() + make_interval(secs => $9), CASE WHEN $4 = 'active' THEN clock_timestamp() END)
       ON CONFLICT DO NOTHING RETURNING 1`,
      [id, purpose, algorithm, state, wrapped, masterKeyId, kid, publicJwk ? JSON.stringify(publicJwk) : null, seconds],
    );
    return rows.length > 0;
  }

  private unwrap(row: Row): Buffer {
    try {
      return this.masterKeys.open(row.wrapped, labelOf(row), row.master_key_id);
    } catch {
      throw new StartupError(
        `The key ${row.kid} in the database was altered: restore it from a backup. Nothing was changed.`,
        78,
      );
    }
  }

  private open(row: Row): Key {
    const plain = this.unwrap(row);
    const secret = row.public_jwk
      ? createPrivateKey({ key: plain, format: 'der', type: 'pkcs8' })
      : createSecretKey(plain);
    plain.fill(0);
    return {
      id: row.id,
      kid: row.kid,
      purpose: row.purpose,
      algorithm: row.algorithm,
      state: row.state,
      secret,
      ...(row.public_jwk && { publicKey: createPublicKey(secret), publicJwk: row.public_jwk }),
      activatesAt: row.activates_at,
      activatedAt: row.activated_at,
      retiringAt: row.retiring_at,
    };
  }
}

/** A key that is not stored yet. */
export type NewKey = Pick<Key, 'id' | 'purpose' | 'algorithm' | 'kid' | 'secret' | 'publicJwk'>;

/** One step of a rotation of the master key: which key, from which id to which, and how many of all are wrapped by the latter. */
export interface Rewrapped {
  id: string;
  kid: string;
  from: string;
  to: string;
  done: number;
  total: number;
}

/** What a ciphertext is bound to. */
const labelOf = ({ purpose, kid }: { purpose: KeyPurpose; kid: string }) => `${purpose}|${kid}`;

const SELECT_RECORD = `
  SELECT id, kid, purpose, algorithm, CASE WHEN revoked_at IS NULL THEN state ELSE 'revoked' END AS state,
         CASE WHEN wrapped IS NOT NULL THEN master_key_id END AS "masterKeyId", created_at AS "createdAt",
         activates_at AS "activatesAt", activated_at AS "activatedAt", retiring_at AS "retiringAt", retired_at AS "retiredAt",
         revoked_at AS "revokedAt", revoked_reason AS "revokedReason"
    FROM keyring_key`;

interface Row {
  id: string;
  purpose: KeyPurpose;
  algorithm: KeyAlgorithm;
  state: KeyState;
  wrapped: Buffer;
  master_key_id: string;
  kid: string;
  public_jwk: JWK | null;
  activates_at: Date;
  activated_at: Date | null;
  retiring_at: Date | null;
}

const makeKeyPair = promisify(generateKeyPair);

async function generate(algorithm: KeyAlgorithm, id: string): Promise<Pick<NewKey, 'secret' | 'publicJwk' | 'kid'>> {
  if (algorithm === 'HS256' || algorithm === 'A256GCM')
    return { secret: createSecretKey(randomOctets(32)), kid: publicId(id) };
  const { privateKey, publicKey } =
    algorithm === 'ES256'
      ? await makeKeyPair('ec', { namedCurve: 'P-256' })
      : await makeKeyPair('rsa', { modulusLength: 2048 });
  const jwk = publicKey.export({ format: 'jwk' }) as JWK;
  const kid = await calculateJwkThumbprint(jwk);
  return { secret: privateKey, publicJwk: { ...jwk, kid, use: 'sig', alg: algorithm }, kid };
}
