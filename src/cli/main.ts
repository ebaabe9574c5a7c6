import type { INestApplicationContext } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { AppModule } from '../app.module.js';
import { AuditLog } from '../audit/audit-log.js';
import { Changes } from '../changes/changes.js';
import { type Config, loadConfig } from '../config/config.js';
import { MIGRATIONS, type PostgresConnection } from '../database/database.module.js';
import { EmbeddedPostgres } from '../database/embedded-postgres.js';
import { connect, migrate, revertLast } from '../database/migrate.js';
import { PLATFORM_ORGANIZATION } from '../kernel/actor.js';
import { StartupError } from '../kernel/startup-error.js';
import { readMasterKey } from '../keyring/master-key.js';
import { Sessions } from '../organizations/sessions.service.js';
import { FloorFile } from '../revocation/floor.js';
import { Keys, SYSTEM } from '../tokens/keys.service.js';

interface Context {
  config: Config;
  application: PostgresConnection;
  owner: PostgresConnection;
}

/** Every command of the operator: its words, what it does. They run beside the service or without it. */
const COMMANDS: Record<string, { summary: string; run(context: Context): Promise<string> }> = {
  'migration run': { summary: 'Bring the schema to this version', run: migrationRun },
  'migration revert': { summary: 'Take back the newest migration (development only)', run: migrationRevert },
  'migration show': { summary: 'Which migrations have run', run: migrationShow },
  'keys rotate signing': {
    summary: 'Publish the next signing key; it signs once verifiers have had time to see it',
    run: (context) => rotate(context, 'token-sign'),
  },
  'keys rotate sealing': {
    summary: 'Change the key that seals opaque tokens (it changes daily by itself)',
    run: (context) => rotate(context, 'token-seal'),
  },
  'era raise': { summary: 'End every token issued so far; the step after a restored backup', run: eraRaise },
};

const words = process.argv.slice(2).join(' ');
const command = Object.hasOwn(COMMANDS, words) ? COMMANDS[words] : undefined;
if (!command) {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length));
  console.error(
    [
      'Usage: npm run gatehouse -- <command>',
      '',
      ...Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`),
    ].join('\n'),
  );
  process.exit(words === '' ? 0 : 64);
}
try {
  console.log(await withDatabase(command.run));
  process.exit(0);
} catch (error) {
  if (!(error instanceof StartupError)) throw error;
  console.error(error.message);
  process.exit(error.exitCode);
}

async function withDatabase(run: (context: Context) => Promise<string>): Promise<string> {
  const config = loadConfig();
  const embedded = config.DATABASE_URL ? undefined : new EmbeddedPostgres({ dataDir: config.dataDir });
  await embedded?.attach();
  try {
    const application: PostgresConnection = embedded?.application ?? { connectionString: config.DATABASE_URL };
    const owner: PostgresConnection = embedded?.owner ?? {
      connectionString: config.MIGRATION_DATABASE_URL ?? config.DATABASE_URL,
    };
    config.masterKey = await readMasterKey(config, application);
    return await run({ config, application, owner });
  } finally {
    await embedded?.stop();
  }
}

async function migrationRun({ owner, application }: Context): Promise<string> {
  const { ran } = await migrate(owner, application);
  return ran.length > 0 ? `Ran ${ran.join(', ')}.` : 'The schema is up to date.';
}

async function migrationRevert({ owner }: Context): Promise<string> {
  await revertLast(owner);
  return 'Took back the newest migration.';
}

async function migrationShow({ owner }: Context): Promise<string> {
  const client = await connect(owner);
  try {
    const { rows } = await client
      .query<{ name: string }>('SELECT name FROM schema_migration')
      .catch(() => ({ rows: [] as { name: string }[] }));
    const landed = new Set(rows.map(({ name }) => name));
    return MIGRATIONS.map(({ name }) => `${landed.has(name) ? '[x]' : '[ ]'} ${name}`).join('\n');
  } finally {
    await client.end();
  }
}

/** The modules of the service without its port, its feed and its timers. */
async function withModules(
  { config, application }: Context,
  work: (app: INestApplicationContext) => Promise<string>,
): Promise<string> {
  const app = await NestFactory.createApplicationContext(AppModule.forRoot(config, application), {
    logger: ['error', 'warn'],
  });
  return work(app).finally(() => app.close());
}

function rotate(context: Context, purpose: 'token-sign' | 'token-seal'): Promise<string> {
  return withModules(context, async (app) => {
    const keys = app.get(Keys);
    await keys.open();
    const activatesAt = await keys.rotate(purpose);
    return activatesAt.getTime() > Date.now()
      ? `The next signing key is published, and signs from ${activatesAt.toISOString()} on. The service takes that step by itself.`
      : 'The next key is in use.';
  });
}

/** Above both what the database says and what this DATA_DIR has seen, so that it is news to every instance. */
function eraRaise(context: Context): Promise<string> {
  return withModules(context, async (app) => {
    const floor = await FloorFile.in(context.config.dataDir).read();
    await app.get(AuditLog).makePartitions(); // a backup has none for a month that came after it
    const { result } = await app.get(Changes).run(SYSTEM, async (change) => {
      const [before] = await change.tx.query('SELECT era FROM era FOR UPDATE');
      const era = Math.max(before.era, floor?.era ?? 0) + 1;
      await change.tx.query('UPDATE era SET era = $1, raised_at = clock_timestamp()', [era]);
      const target = { type: 'era', id: PLATFORM_ORGANIZATION, name: String(era) };
      change.record({ action: 'era.raised', targets: [target], changes: { era: { from: before.era, to: era } } });
      // A restored backup has sessions that were ended since.
      await app.get(Sessions).endAll(change);
      change.forget('era', target, PLATFORM_ORGANIZATION);
      return { era };
    });
    return `The era is ${result.era}: every token issued before is dead, and everybody is signed out. After a restored backup, revoke again what was revoked since it was made: those secrets are alive again.`;
  });
}
