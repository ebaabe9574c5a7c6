import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  generateKeyPair,
  type KeyObject,
} from 'node:crypto';
import { promisify } from 'node:util';
import { Injectable } from '@nestjs/common';
import { calculateJwkThumbprint, type JWK } from 'jose';
import { DataSource, type EntityManager } from 'typeorm';
import { Config } from '../config/config.js';
import { Clock } from '../kernel/clock.js';
import { publicId, randomOctets, uuidv7 } from '../kernel/ids.js';
import { StartupError } from '../kernel/startup-error.js';
import { masterKeyId, WRONG_MASTER_KEY } from './master-key.js';

/** What a key is for; it is part of the AAD, so a ciphertext moved to another row does not open. */
export type KeyPurpose = 'credential-hash' | 'cursor' | 'token-seal' | 'token-sign';
/** Published before use, used only after every live instance has confirmed it, kept until the last token under it has ended. */
export type KeyState = 'pending' | 'active' | 'retiring' | 'retired';
export type KeyAlgorithm = 'HS256' | 'A256GCM' | 'ES256' | 'RS256' | 'PS256';

export interface Key {
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

/**
 * The random keys in the database, each wrapped with MASTER_KEY (AES-256-GCM), and in memory the open ones that are not retired.
 * Owns key material and its states; refuses to know what a token or a secret is.
 */
@Injectable()
export class Keyring {
  private keys: readonly Key[] = [];
  private turns = 0;
  private loaded = 0;
  private readonly masterKey: KeyObject;
  private readonly masterKeyId: string;

  constructor(
    private readonly database: DataSource,
    private readonly clock: Clock,
    config: Config,
  ) {
    this.masterKey = config.masterKey;
    this.masterKeyId = masterKeyId(this.masterKey);
  }

  /** Reads every key that is not retired. Throws a StartupError (78) when MASTER_KEY is not the one that wrapped them. */
  async load(tx: EntityManager = this.database.manager): Promise<void> {
    const turn = ++this.turns;
    const rows: Row[] = await tx.query(
      `SELECT id, purpose, algorithm, state, wrapped, master_key_id, kid, public_jwk, activates_at, activated_at, retiring_at
         FROM keyring_key WHERE state <> 'retired' ORDER BY id`,
    );
    if (turn < this.loaded) return; // a later look was answered first, and may have seen a key that this one did not
    this.keys = rows.map((row) => this.open(row));
    this.loaded = turn;
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
    await this.insert(this.database.manager, await this.generate(purpose, algorithm), 'active', 0);
    await this.load();
  }

  /** A new key, wrapped; nothing is stored yet. */
  async generate(purpose: KeyPurpose, algorithm: KeyAlgorithm): Promise<NewKey> {
    const id = uuidv7(this.clock.now());
    const { plain, publicJwk, kid } = await generate(algorithm, id);
    const wrapped = this.wrap(plain, purpose, kid);
    plain.fill(0);
    return { id, purpose, algorithm, kid, wrapped, publicJwk };
  }

  /** Adds the next key, to be used so many seconds from now on, by the database's clock. Does nothing when one is pending already. */
  async addPending(tx: EntityManager, key: NewKey, seconds: number): Promise<void> {
    await this.insert(tx, key, 'pending', seconds);
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

  private async insert(tx: EntityManager, key: NewKey, state: 'pending' | 'active', seconds: number): Promise<void> {
    await tx.query(
      `INSERT INTO keyring_key (id, purpose, algorithm, state, wrapped, master_key_id, kid, public_jwk, activates_at, activated_at)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp() + make_interval(secs => $9), CASE WHEN $4 = 'active' THEN clock_timestamp() END)
       ON CONFLICT DO NOTHING`,
      [
        key.id,
        key.purpose,
        key.algorithm,
        state,
        key.wrapped,
        this.masterKeyId,
        key.kid,
        key.publicJwk ? JSON.stringify(key.publicJwk) : null,
        seconds,
      ],
    );
  }

  private wrap(plain: Buffer, purpose: string, kid: string): Buffer {
    const nonce = randomOctets(12);
    const cipher = createCipheriv('aes-256-gcm', this.masterKey, nonce).setAAD(Buffer.from(`${purpose}|${kid}`));
    return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  }

  private open(row: Row): Key {
    if (row.master_key_id !== this.masterKeyId) {
      throw new StartupError(WRONG_MASTER_KEY, 78);
    }
    let plain: Buffer;
    try {
      const decipher = createDecipheriv('aes-256-gcm', this.masterKey, row.wrapped.subarray(0, 12));
      decipher.setAAD(Buffer.from(`${row.purpose}|${row.kid}`)).setAuthTag(row.wrapped.subarray(-16));
      plain = Buffer.concat([decipher.update(row.wrapped.subarray(12, -16)), decipher.final()]);
    } catch {
      throw new StartupError(
        `The key ${row.kid} in the database was altered: restore it from a backup. Nothing was changed.`,
        78,
      );
    }
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

/** A key that is wrapped and not stored yet. */
export interface NewKey {
  id: string;
  purpose: KeyPurpose;
  algorithm: KeyAlgorithm;
  kid: string;
  wrapped: Buffer;
  publicJwk?: JWK;
}

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

async function generate(algorithm: KeyAlgorithm, id: string): Promise<{ plain: Buffer; publicJwk?: JWK; kid: string }> {
  if (algorithm === 'HS256' || algorithm === 'A256GCM') return { plain: randomOctets(32), kid: publicId(id) };
  const { privateKey, publicKey } =
    algorithm === 'ES256'
      ? await makeKeyPair('ec', { namedCurve: 'P-256' })
      : await makeKeyPair('rsa', { modulusLength: 2048 });
  const jwk = publicKey.export({ format: 'jwk' }) as JWK;
  const kid = await calculateJwkThumbprint(jwk);
  return {
    plain: privateKey.export({ format: 'der', type: 'pkcs8' }),
    publicJwk: { ...jwk, kid, use: 'sig', alg: algorithm },
    kid,
  };
}
