import QuickLRU from 'quick-lru';

/**
 * Token buckets by key, in bounded memory: the least recently used is forgotten first, so a hot offender stays. It refills evenly.
 */
export class Attempts {
  private readonly buckets: QuickLRU<string, { left: number; at: number }>;

  constructor(
    private readonly limit: number,
    private readonly windowMs: number,
    maxKeys: number,
    private readonly monotonic: () => number = () => performance.now(),
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
    if (bucket.left < 1) return Math.max(1, Math.ceil(((1 - bucket.left) * this.windowMs) / this.limit / 1000));
    bucket.left--;
    return 0;
  }
}
