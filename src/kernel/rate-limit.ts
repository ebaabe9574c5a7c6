/** How many requests an organization may make in a window of so many seconds. */
export interface RateLimit {
  limit: number;
  windowSeconds: number;
}

export const MAX_RATE_LIMIT = 1_000_000;
export const MAX_RATE_WINDOW_SECONDS = 3600;

/** `6000/60`, requests and seconds, as the setting has it; undefined when it is not that, or beyond the bounds. */
export function parseRateLimit(text: unknown): RateLimit | undefined {
  const [, limit, seconds] = (typeof text === 'string' && /^(\d{1,7})\/(\d{1,4})$/.exec(text)) || [];
  const rate = { limit: Number(limit), windowSeconds: Number(seconds) };
  const within = (value: number, most: number) => value >= 1 && value <= most;
  return within(rate.limit, MAX_RATE_LIMIT) && within(rate.windowSeconds, MAX_RATE_WINDOW_SECONDS) ? rate : undefined;
}
