import type { RateLimit } from '../kernel/rate-limit.js';

/** Where an organization stands in its present window, a request after it was charged. */
export interface Standing {
  /** Whether the request may be served. */
  admitted: boolean;
  limit: number;
  /** Requests that are left in this window. */
  remaining: number;
  /** Whole seconds until the window ends and a new one begins. */
  reset: number;
}

/** Whom a request is charged to. `rateLimit` null: the default, `RATE_LIMIT`. */
export interface Charged {
  id: string;
  rateLimit: RateLimit | null;
}

/**
 * One bucket an organization (E9), shared by its accounts, its people and every instance. Windows are fixed and begin at multiples
 * of their length on the database's clock, so every instance means the same one. The key is the organization and nothing that a
 * caller can choose; and it must have authenticated, so there are never more buckets than organizations at work.
 */
export abstract class RateLimits {
  /** Charges one request. Throws Unavailable when it cannot be counted: an organization is never without a limit. */
  abstract charge(organization: Charged): Standing | Promise<Standing>;

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
