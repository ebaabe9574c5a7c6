import { Injectable } from '@nestjs/common';
import QuickLRU from 'quick-lru';
import { Clock } from '../kernel/clock.js';
import { problem } from '../kernel/problem.js';

const WINDOW_MS = 15 * 60_000;
/** Per window and network: for one person, and for everybody. A victim at another address is never locked out (LG-04). */
const PER_PERSON = 10;
const PER_NETWORK = 100;

interface Bucket {
  tokens: number;
  at: number;
}

/** Attempts at passwords, counted before they are checked, so that no number of parallel ones gets past the count. */
@Injectable()
export class SignInAttempts {
  private readonly buckets = new QuickLRU<string, Bucket>({ maxSize: 50_000 });

  constructor(private readonly clock: Clock) {}

  /** Throws too_many_attempts. Otherwise counts one, and returns what takes it back when the password was right. */
  take(address: string | null, email: string): () => void {
    const network = networkOf(address);
    const person = this.bucket(JSON.stringify([network, email]), PER_PERSON);
    const everybody = this.bucket(network, PER_NETWORK);
    if (person.tokens < 1 || everybody.tokens < 1) {
      const wait = Math.max((1 - person.tokens) / PER_PERSON, (1 - everybody.tokens) / PER_NETWORK) * WINDOW_MS;
      throw problem('too_many_attempts', { headers: { 'Retry-After': String(Math.ceil(wait / 1000)) } });
    }
    person.tokens--;
    everybody.tokens--;
    return () => {
      person.tokens++;
      everybody.tokens++;
    };
  }

  private bucket(key: string, capacity: number): Bucket {
    const now = this.clock.monotonic();
    let bucket = this.buckets.get(key);
    if (!bucket) {
      bucket = { tokens: capacity, at: now };
      this.buckets.set(key, bucket);
    }
    bucket.tokens = Math.min(capacity, bucket.tokens + ((now - bucket.at) / WINDOW_MS) * capacity);
    bucket.at = now;
    return bucket;
  }
}

/** Whoever has one IPv6 address has the 2^64 of its network (RFC 6177): they count as one. */
function networkOf(address: string | null): string {
  if (!address?.includes(':') || address.includes('.')) return address?.replace(/^::ffff:/i, '') ?? '';
  const [head, tail] = address.split('::').map((part) => (part === '' ? [] : part.split(':')));
  const zeros = Array(Math.max(0, 8 - head.length - (tail?.length ?? 0))).fill('0');
  return tail ? [...head, ...zeros, ...tail].slice(0, 4).join(':') : head.slice(0, 4).join(':');
}
