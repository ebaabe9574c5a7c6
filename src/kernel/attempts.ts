import QuickLRU from 'quick-lru';

interface Bucket {
  left: number;
  at: number;
}

/** Token buckets by key, in bounded memory: the least recently used is forgotten first, so a hot offender stays. They refill evenly. */
export class Attempts {
  private readonly buckets: QuickLRU<string, Bucket>;

  /** `limit` attempts in `windowMs`, for each of up to `maxKeys` keys. `monotonic`: milliseconds. */
  constructor(
    private readonly limit: number,
    private readonly windowMs: number,
    maxKeys: number,
    private readonly monotonic: () => number,
  ) {
    this.buckets = new QuickLRU({ maxSize: maxKeys });
  }

  /** Takes one; 0 if there was one to take, else the whole seconds until there is. */
  take(key: string): number {
    const now = this.monotonic();
    const bucket = this.buckets.get(key) ?? { left: this.limit, at: now };
    bucket.left = Math.min(this.limit, bucket.left + ((now - bucket.at) * this.limit) / this.windowMs);
    bucket.at = now;
    this.buckets.set(key, bucket);
    if (bucket.left < 1) return Math.ceil(((1 - bucket.left) * this.windowMs) / this.limit / 1000);
    bucket.left--;
    return 0;
  }

  giveBack(key: string): void {
    const bucket = this.buckets.get(key);
    if (bucket) bucket.left++;
  }
}

/** One process's part of a limit: connections are spread over all of them, and each counts for itself. Together they may round up. */
export const shareOf = (limit: number, processes: number) => Math.ceil(limit / processes);

/** Whoever has one IPv6 address has the 2^64 of its network (RFC 6177): they count as one. IPv4 in IPv6 counts as IPv4. */
export function networkOf(address: string | null): string {
  if (!address?.includes(':') || address.includes('.')) return address?.replace(/^::ffff:/i, '') ?? '';
  const [head, tail] = address.split('::').map((part) => (part === '' ? [] : part.split(':')));
  const zeros = Array(Math.max(0, 8 - head.length - (tail?.length ?? 0))).fill('0');
  return (tail ? [...head, ...zeros, ...tail] : head).slice(0, 4).join(':');
}
