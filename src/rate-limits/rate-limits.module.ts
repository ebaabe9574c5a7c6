import { Module } from '@nestjs/common';
import { Config } from '../config/config.js';
import { Database } from '../database/database.module.js';
import { Clock } from '../kernel/clock.js';
import { RevocationModule } from '../revocation/revocation.module.js';
import { RevocationFeed } from '../revocation/revocation-feed.js';
import { PostgresRateLimits } from './postgres-rate-limits.js';
import { RateLimits } from './rate-limits.js';
import { RedisRateLimits } from './redis-rate-limits.js';

/** Owns how many requests each organization, and each person at a session, has made. Refuses to know what was asked for. */
@Module({
  imports: [RevocationModule],
  providers: [
    {
      provide: RateLimits,
      useFactory: (config: Config, clock: Clock, database: Database, feed: RevocationFeed) =>
        config.REDIS_URL
          ? new RedisRateLimits(config.REDIS_URL, clock, config.rateLimit)
          : new PostgresRateLimits(database, feed, clock, config.rateLimit, config.REVOCATION_BOUND_MS),
      inject: [Config, Clock, Database, RevocationFeed],
    },
  ],
  exports: [RateLimits],
})
export class RateLimitsModule {}
