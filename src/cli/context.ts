import type { INestApplicationContext } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { AppModule } from '../app.module.js';
import { type Config, loadConfig } from '../config/config.js';
import type { PostgresConnection } from '../database/database.module.js';
import { EmbeddedPostgres } from '../database/embedded-postgres.js';
import { assertSchema } from '../database/migrate.js';
import { readMasterKeys } from '../keyring/master-key.js';

/** What every command is given: the settings, and how to reach the database in either role. */
export interface Context {
  config: Config;
  application: PostgresConnection;
  owner: PostgresConnection;
}

/** The operands of a command by name, and its options. */
export type Input = Record<string, string | boolean | undefined>;

/** Beside the service or without it: the embedded database is started when nobody runs it. */
export async function withDatabase(run: (context: Context) => Promise<string>): Promise<string> {
  const config = loadConfig();
  const embedded = config.DATABASE_URL ? undefined : new EmbeddedPostgres({ dataDir: config.dataDir });
  await embedded?.attach();
  try {
    const application: PostgresConnection = embedded?.application ?? { connectionString: config.DATABASE_URL };
    const owner: PostgresConnection = embedded?.owner ?? {
      connectionString: config.MIGRATION_DATABASE_URL ?? config.DATABASE_URL,
    };
    config.masterKeys = await readMasterKeys(config, application);
    return await run({ config, application, owner });
  } finally {
    await embedded?.stop();
  }
}

/** The modules of the service without its port, its feed and its timers. */
export async function withModules(
  { config, application }: Context,
  work: (app: INestApplicationContext) => Promise<string>,
): Promise<string> {
  await assertSchema(application);
  const app = await NestFactory.createApplicationContext(AppModule.forRoot(config, application), {
    logger: ['error', 'warn'],
  });
  return work(app).finally(() => app.close());
}
