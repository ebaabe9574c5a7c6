import { createHash } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import bcrypt from 'bcrypt';
import { Config } from '../config/config.js';
import { Unavailable } from '../kernel/problem.js';
import { isStorableText } from '../kernel/text.js';

/** bcrypt runs on libuv's four threads, which the revocation feed needs as well: it never gets more than these. */
const AT_ONCE = 2;
const WAITING = 64;

/** So many at once; the rest wait in a queue that has an end. */
class Gate {
  private running = 0;
  private readonly waiting: (() => void)[] = [];

  constructor(private readonly atOnce: number) {}

  async pass<T>(work: () => Promise<T>): Promise<T> {
    if (this.running >= this.atOnce) {
      if (this.waiting.length >= WAITING) throw new Unavailable('too many passwords to check');
      await new Promise<void>((resolve) => this.waiting.push(resolve)); // whoever leaves hands its place over
    } else this.running++;
    try {
      return await work();
    } finally {
      const next = this.waiting.shift();
      if (next) next();
      else this.running--;
    }
  }
}

/**
 * Passwords: 8 to 128 code points, whatever they are but NUL and lone surrogates. They are compared in NFC, as RFC 8265 §4.2 has
 * it, since one keyboard writes `é` as one code point and another as two. bcrypt reads 72 bytes at most and stops at NUL, so it is
 * given the 44 characters of a SHA-256 in base64: two passwords that differ anywhere differ.
 */
@Injectable()
export class Passwords {
  /** How many hashes were computed; a test holds it equal for people who exist and people who do not (LG-02). */
  computations = 0;
  private readonly cost: number;
  /** Well-formed, at the same cost, and nobody's: what a password is compared with when there is no hash. */
  private readonly nobodys: string;
  private readonly all = new Gate(AT_ONCE);
  /** Whoever sets passwords, for person after person, is one among those who sign in, and fills no queue but this. */
  private readonly setting = new Gate(1);

  constructor(config: Config) {
    this.cost = config.NODE_ENV === 'test' ? 4 : 12;
    this.nobodys = `$2b$${String(this.cost).padStart(2, '0')}$${'.'.repeat(53)}`;
  }

  acceptable(password: string): boolean {
    if (!isStorableText(password)) return false;
    const length = [...password.normalize('NFC')].length;
    return length >= 8 && length <= 128;
  }

  hash(password: string): Promise<string> {
    return this.setting.pass(() => this.compute(() => bcrypt.hash(digest(password), this.cost)));
  }

  /** Costs the same whether or not there is a hash. */
  verify(password: string, hash: string | null | undefined): Promise<boolean> {
    return this.compute(async () => (await bcrypt.compare(digest(password), hash ?? this.nobodys)) && hash != null);
  }

  private compute<T>(work: () => Promise<T>): Promise<T> {
    return this.all.pass(() => {
      this.computations++;
      return work();
    });
  }
}

const digest = (password: string) => createHash('sha256').update(password.normalize('NFC')).digest('base64');
