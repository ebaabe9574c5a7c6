import type { RateLimit } from '../kernel/rate-limit.js';

/** Where who is charged stands in the present window, a request after it was charged. */
export interface Standing {
  /** Whether the request may be served. */
  admitted: boolean;
  limit: number;
  /** Requests that are left in this window. */
  remaining: number;
  /** Whole seconds until the window ends and a new one begins. */
  reset: number;
}

/** Whom a request is charged to: an organization, or a person at a session. `rateLimit` null: the default, `RATE_LIMIT`. */
export interface Charged {
  id: string;
  rateLimit: RateLimit | null;
}

/**
 * One bucket an organization (E9), shared by its accounts and every instance, and one a person. Windows are fixed and begin at
 * multiples of their length on the database's clock, so every instance means the same one. The key is nothing that a caller can
 * choose; and who is charged has authenticated, so there are never more buckets than organizations and people at work.
 */
export abstract class RateLimits {
  /** Charges one request. Throws Unavailable when it cannot be counted: nobody is ever without a limit. */
  abstract charge(subject: Charged): Standing | Promise<Standing>;

  /** Why requests cannot be counted now; undefined when they can. */
  abstract fault(): string | undefined;

  /** Drops what is left of windows long over. */
  abstract prune(): Promise<void>;
}

export const standing = (admitted: boolean, limit: number, used: number, msLeft: number): Standing => ({
  admitted,
  limit,
  remaining: Math.max(0, limit - used),
  reset: Math.max(1, Math.ceil(msLeft / 1000)),
});
