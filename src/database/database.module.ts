import { type DynamicModule, Global, Injectable, Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import pg from 'pg';
import type { DataSourceOptions } from 'typeorm';
import { Config } from '../config/config.js';
import { Clock } from '../kernel/clock.js';
import { Initial1763712000000 } from './migrations/1763712000000-initial.js';
import { Credentials1763800000000 } from './migrations/1763800000000-credentials.js';
import { PublicKeys1763800001000 } from './migrations/1763800001000-public-keys.js';
import { PersonalAccessTokens1763800002000 } from './migrations/1763800002000-personal-access-tokens.js';
import { TokenRevocations1763800003000 } from './migrations/1763800003000-token-revocations.js';
import { RateLimits1763800004000 } from './migrations/1763800004000-rate-limits.js';
import { Partners1763800005000 } from './migrations/1763800005000-partners.js';
import { Companies1763800006000 } from './migrations/1763800006000-companies.js';
import { Keys1763800007000 } from './migrations/1763800007000-keys.js';
import { RateLimitsOfPeople1763800008000 } from './migrations/1763800008000-rate-limits-of-people.js';

/** Where a PostgreSQL is and who we are there. */
export type PostgresConnection = Pick<
  pg.ClientConfig,
  'connectionString' | 'host' | 'port' | 'user' | 'password' | 'database'
>;

export const MIGRATIONS = [
  Initial1763712000000,
  Credentials1763800000000,
  PublicKeys1763800001000,
  PersonalAccessTokens1763800002000,
  TokenRevocations1763800003000,
  RateLimits1763800004000,
  Partners1763800005000,
  Companies1763800006000,
  Keys1763800007000,
  RateLimitsOfPeople1763800008000,
];

/**
 * A query without an answer in time may still run, and pg would drop the ROLLBACK that waits behind it: the pool would hand on a
 * connection in the middle of a transaction that was reported as failed, to be committed with the next one. So it is cut.
 */
class Client extends pg.Client {
  // biome-ignore lint/suspicious/noExplicitAny: pg's overloads
  override query(...parameters: any[]): any {
    const answer = (super.query as (...all: unknown[]) => unknown).apply(this, parameters);
    if (answer instanceof Promise) {
      answer.catch((error: Error) => {
        if (error.message !== 'Query read timeout') return;
        (this as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
      });
    }
    return answer;
  }
}

/**
 * What every connection of ours has. `query_timeout` is the client's own: a frozen server ignores `statement_timeout`. An instance that
 * is cut off or frozen within a transaction loses it after a second: whoever waits for its locks, the feed's among them, gets them
 * well within their query timeout. No transaction of ours waits for anything but the database.
 */
function connectionSettings(connection: PostgresConnection, durable: boolean): pg.ClientConfig {
  return {
    ...connection,
    application_name: 'gatehouse',
    options: `-c synchronous_commit=${durable ? 'on' : 'off'} -c TimeZone=UTC -c bytea_output=hex -c idle_in_transaction_session_timeout=1000`,
    connectionTimeoutMillis: 1000,
    query_timeout: 5000,
    keepAlive: true,
  };
}

/** TypeORM's options. `entities` is empty for the service: each module adds its own. */
export function dataSourceOptions(connection: PostgresConnection, durable = true): DataSourceOptions {
  const { connectionString, user, host, port, password, database, ...extra } = connectionSettings(connection, durable);
  return {
    type: 'postgres',
    ...(connectionString
      ? { url: connectionString }
      : { host, port, username: user, password: password as string, database }),
    migrations: MIGRATIONS,
    migrationsTableName: 'schema_migration',
    migrationsTransactionMode: 'each',
    synchronize: false,
    installExtensions: false,
    poolErrorHandler: () => undefined, // a restart of the database breaks idle connections; the pool replaces them
    extra: { ...extra, max: 10, Client },
  } as DataSourceOptions;
}

/** Hands out connections beside TypeORM's pool: the feed's, the listener's and the group commit's are their own. */
@Injectable()
export class Database {
  constructor(
    private readonly connection: PostgresConnection,
    private readonly config: Config,
  ) {}

  private get settings() {
    return connectionSettings(this.connection, !this.config.sabotaged('synchronous_commit_off'));
  }

  /** A connection of one's own, not yet open. */
  client(settings: pg.ClientConfig = {}): pg.Client {
    const client = new pg.Client({ ...this.settings, ...settings });
    client.on('error', () => undefined); // whoever uses it sees the query fail
    return client;
  }

  /** `parameters`: further run-time parameters of PostgreSQL for these connections. */
  pool(settings: pg.PoolConfig, parameters: Readonly<Record<string, string>> = {}): pg.Pool {
    const all = [this.settings.options, ...Object.entries(parameters).map(([name, value]) => `-c ${name}=${value}`)];
    const pool = new pg.Pool({ ...this.settings, ...settings, options: all.join(' '), Client });
    pool.on('error', () => undefined);
    return pool;
  }
}

/** Owns the connections and the schema. Refuses to know what is stored. */
@Global()
@Module({})
export class DatabaseModule {
  static forRoot(connection: PostgresConnection, config: Config): DynamicModule {
    return {
      module: DatabaseModule,
      imports: [
        TypeOrmModule.forRoot({
          ...dataSourceOptions(connection, !config.sabotaged('synchronous_commit_off')),
          autoLoadEntities: true,
          retryAttempts: 1,
        }),
      ],
      providers: [
        Clock,
        { provide: Config, useValue: config },
        { provide: Database, useValue: new Database(connection, config) },
      ],
      exports: [Clock, Config, Database],
    };
  }
}
