import { Logger, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import { createClient, defineScript } from '@redis/client';
import type { Clock } from '../kernel/clock.js';
import { Unavailable } from '../kernel/problem.js';
import type { RateLimit } from '../kernel/rate-limit.js';
import { type Charged, RateLimits, type Standing, standing } from './rate-limits.js';

/** A server that owes an answer for this long is given up, connection and all: on a silent network it would hang for minutes. */
const SILENCE_MS = 1000;
const WATCH_EVERY_MS = 100;
const RECONNECT_MS = 200;
/** Requests that may wait for their answers; past it the next is refused. */
const MAX_WAITING = 20_000;

/** One command, so a count never stays behind without an end. A refused request counts as well, which changes nothing. */
const COUNT = defineScript({
  SCRIPT: `local used = redis.call('INCR', KEYS[1]) if used == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end return used`,
  NUMBER_OF_KEYS: 1,
  FIRST_KEY_INDEX: 0,
  IS_READ_ONLY: false,
  parseCommand(parser, key: string, expireMs: number) {
    parser.pushKey(key);
    parser.push(String(expireMs));
  },
  transformReply: (used: number) => used,
});

const connect = (url: string) =>
  createClient({
    url,
    scripts: { count: COUNT },
    disableOfflineQueue: true, // what cannot be counted now is refused now
    commandsQueueMaxLength: MAX_WAITING,
    pingInterval: SILENCE_MS,
    socket: { connectTimeout: SILENCE_MS, reconnectStrategy: RECONNECT_MS },
  });

/** Exact counts in Redis or Valkey (`REDIS_URL`): one command, one round trip a request. Without the server: 503, and not ready. */
export class RedisRateLimits extends RateLimits implements OnModuleInit, OnApplicationShutdown {
  private readonly log = new Logger('RateLimits');
  private client: ReturnType<typeof connect>;
  private waiting = 0;
  /** Since when the server owes an answer, monotonic. */
  private owedSince = 0;
  private failing = false;
  private watch: NodeJS.Timeout | undefined;

  constructor(
    private readonly url: string,
    private readonly clock: Clock,
    private readonly byDefault: RateLimit,
  ) {
    super();
    this.client = this.open();
  }

  onModuleInit(): void {
    this.watch = setInterval(() => this.replaceIfSilent(), WATCH_EVERY_MS).unref();
  }

  async charge({ id, rateLimit }: Charged): Promise<Standing> {
    const { limit, windowSeconds } = rateLimit ?? this.byDefault;
    const length = windowSeconds * 1000;
    const now = this.clock.now();
    const start = Math.floor(now / length) * length;
    const used = await this.count(`gatehouse:requests:${id}:${windowSeconds}:${start / 1000}`, 2 * length);
    return standing(used <= limit, limit, used, start + length - now);
  }

  fault(): string | undefined {
    return this.client.isReady ? undefined : 'no connection to Redis';
  }

  /** Keys expire by themselves. */
  async prune(): Promise<void> {}

  async onApplicationShutdown(): Promise<void> {
    clearInterval(this.watch);
    this.client.destroy();
  }

  private async count(key: string, expireMs: number): Promise<number> {
    if (this.waiting++ === 0) this.owedSince = this.clock.monotonic();
    try {
      return await this.client.count(key, expireMs);
    } catch (error) {
      throw new Unavailable('requests cannot be counted', 1, error);
    } finally {
      this.waiting--;
      this.owedSince = this.clock.monotonic(); // answers come in order: this one was the oldest
    }
  }

  private open(): ReturnType<typeof connect> {
    const client = connect(this.url);
    // Without a listener an error would end the process. The client goes on trying by itself.
    client.on('error', (error: Error) => {
      if (!this.failing) this.log.warn(`Redis is away: ${error.message || error.name}`);
      this.failing = true;
    });
    client.on('ready', () => {
      this.failing = false;
    });
    client.connect().catch(() => undefined); // told above, unless it was destroyed
    return client;
  }

  private replaceIfSilent(): void {
    if (this.waiting === 0 || this.clock.monotonic() - this.owedSince < SILENCE_MS) return;
    this.client.destroy();
    this.client = this.open();
  }
}
