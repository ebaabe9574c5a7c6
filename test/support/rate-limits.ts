import { Clock } from '../../src/kernel/clock.js';
import type { Answer, TestService } from './service.js';

const HOUR = 3_600_000;

/** A guarded route that asks no database, and what a token is told there: a request that was admitted, and costs nothing else. */
export const ADMITTED_AT = '/api/v1/sessions';
export const ADMITTED = 403;

/** From now on it is half past by the clock that decides, so that a window of an hour does not end within a test; or so many hours later. */
export function atHalfPast(services: TestService | TestService[], hours = 0): void {
  for (const { app } of [services].flat()) {
    const clock = app.get(Clock);
    const now = Clock.prototype.now.call(clock);
    const ahead = Math.floor(now / HOUR) * HOUR + HOUR / 2 + hours * HOUR - now;
    clock.now = () => Clock.prototype.now.call(clock) + ahead;
  }
}

/** Sends this many, 90 under way at a time, in turn by each sender; how many answers of each status. */
export async function flood(count: number, ...senders: (() => Promise<Answer>)[]): Promise<Record<number, number>> {
  const statuses: Record<number, number> = {};
  let sent = 0;
  const worker = async () => {
    while (sent < count) {
      const { status } = await senders[sent++ % senders.length]();
      statuses[status] = (statuses[status] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: Math.min(count, 90) }, worker));
  return statuses;
}

/** `[limit, remaining]` as the headers say it. */
export const standingOf = ({ headers }: Answer) =>
  ['x-ratelimit-limit', 'x-ratelimit-remaining'].map((name) => headers[name] && Number(headers[name]));

export const HOURLY = (limit: number) => ({ rate_limit: { limit, window_seconds: 3600 } });
