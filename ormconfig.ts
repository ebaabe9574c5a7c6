import 'reflect-metadata';
import { DataSource } from 'typeorm';
import { loadConfig } from './src/config/config.js';
import { dataSourceOptions } from './src/database/database.module.js';
import { EmbeddedPostgres } from './src/database/embedded-postgres.js';
import { StartupError } from './src/kernel/startup-error.js';

/**
 * For TypeORM's own command line: `npx typeorm migration:show -d dist/ormconfig.js`, after a build. The service and `npm run migration:*`
 * do not use it: they migrate under an advisory lock and grant rights. Connects as the owner; the embedded server must be running.
 */
const config = loadConfig();
const embedded = config.DATABASE_URL ? undefined : new EmbeddedPostgres({ dataDir: config.dataDir });
if (embedded) {
  await embedded.attach();
  if (!embedded.adopted) {
    await embedded.stop();
    throw new StartupError('The embedded PostgreSQL is not running: start the service first.');
  }
}

export default new DataSource(
  dataSourceOptions(embedded?.owner ?? { connectionString: config.MIGRATION_DATABASE_URL ?? config.DATABASE_URL }),
);
