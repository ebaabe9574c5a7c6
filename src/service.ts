import { createServer } from 'node:net';
import path from 'node:path';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import type { Logger } from 'pino';
import { AuditLog } from './audit/audit-log.js';
import { Changes } from './changes/changes.js';
import { SingleUses } from './changes/single-use.js';
import type { Config } from './config/config.js';
import { makeDataFolder } from './config/data-dir.js';
import type { PostgresConnection } from './database/database.module.js';
import { EmbeddedPostgres } from './database/embedded-postgres.js';
import { migrate } from './database/migrate.js';
import { createApp, drain } from './http.js';
import { StartupError } from './kernel/startup-error.js';
import { readMasterKeys } from './keyring/master-key.js';
import { Bootstrap } from './organizations/bootstrap.js';
import { Sessions } from './organizations/sessions.service.js';
import { RateLimits } from './rate-limits/rate-limits.js';
import { RevocationFeed } from './revocation/revocation-feed.js';
import { Revocations } from './revocation/revocations.js';
import { Credentials } from './service-accounts/credentials/credentials.service.js';
import { SecretKind } from './service-accounts/credentials/secret.js';
import { ServiceAccounts } from './service-accounts/service-accounts.service.js';
import { Keys, SYSTEM } from './tokens/keys.service.js';

/** What a newcomer is shown, once. */
export interface FirstStart {
  email: string;
  /** Only when it was random: then it must be changed at the first sign-in. */
  password?: string;
  client?: { id: string; secret: string };
}

export interface Running {
  firstStart: FirstStart | undefined;
  stop(): Promise<void>;
}

export interface RunningService extends Running {
  app: NestFastifyApplication;
}

const HOUSEKEEPING_EVERY_MS = 6 * 3_600_000;
/** Assertions live five minutes, and each leaves a row. */
const SWEEPING_EVERY_MS = 60_000;
/** Of the embedded database; a process takes up to 15 of them. */
const MIN_CONNECTIONS = 100;
const CONNECTIONS_EACH = 20;

/** Hears of each step of a start as it passes. */
type Step = (text: string) => void;

/**
 * The whole service in this process. Throws a StartupError, having stopped what it started, when a person has to do something first.
 */
export async function startService(config: Config, log: Logger, step: Step): Promise<RunningService> {
  const { connection, release } = await prepare(config, log, step);
  try {
    const { app, firstStart } = await serve(config, connection, log, step);
    const stop = async () => {
      await drain(app);
      await release();
    };
    return { app, firstStart, stop };
  } catch (error) {
    await release().catch(() => undefined);
    throw error;
  }
}

/** What happens once, however many processes serve: port, database, master key, schema. `release` stops the database if it is ours. */
export async function prepare(
  config: Config,
  log: Logger,
  step: Step,
): Promise<{ connection: PostgresConnection; release(): Promise<void> }> {
  await assertPortFree(config);
  if (config.DATABASE_URL) await makeDataFolder(path.join(config.dataDir, 'keys'));
  const embedded = config.DATABASE_URL
    ? undefined
    : new EmbeddedPostgres({
        dataDir: config.dataDir,
        maxConnections: Math.max(MIN_CONNECTIONS, CONNECTIONS_EACH * (config.WORKERS + 1)),
        step,
        log: (text) => log.debug(text),
      });
  const release = async () => embedded?.stop();
  try {
    await embedded?.start();
    const application: PostgresConnection = embedded?.application ?? { connectionString: config.DATABASE_URL };
    const owner: PostgresConnection = embedded?.owner ?? {
      connectionString: config.MIGRATION_DATABASE_URL ?? config.DATABASE_URL,
    };
    config.masterKeys = await readMasterKeys(config, application);
    const { version, ran, warnings } = await migrate(owner, application);
    for (const warning of warnings) log.warn(warning);
    step(
      `PostgreSQL ${version}: ${ran.length > 0 ? `schema made (${ran.length} migration${ran.length > 1 ? 's' : ''})` : 'schema is up to date'}`,
    );
    return { connection: application, release };
  } catch (error) {
    await release().catch(() => undefined);
    throw error;
  }
}

/** What each process does that serves: keys, revocations, first organization, port. It is a whole instance. */
export async function serve(
  config: Config,
  connection: PostgresConnection,
  log: Logger,
  step: Step,
): Promise<{ app: NestFastifyApplication; firstStart: FirstStart | undefined }> {
  // Of several processes each reads it where the first one did: it is never handed on.
  config.masterKeys ??= await readMasterKeys(config, connection);
  const app = await createApp(config, connection, log);
  try {
    await app.init();
    await app.get(AuditLog).makePartitions();
    await app.get(Keys).start();
    await app.get(RevocationFeed).start();
    step('Keys opened and revocations loaded');
    const firstStart = await firstOrganization(app, config.DATABASE_URL === undefined);
    keepHouse(app, log);
    await app.listen({ port: config.PORT, host: config.HOST });
    step(`Listening on port ${config.PORT} of ${config.HOST}`);
    return { app, firstStart };
  } catch (error) {
    await drain(app).catch(() => undefined);
    if ((error as { code?: string }).code === 'EADDRINUSE') throw portInUse(config);
    throw error;
  }
}

/** Before anything is changed: a second service must not begin to migrate. */
async function assertPortFree({ PORT, HOST }: Config): Promise<void> {
  if (PORT === 0) return;
  await new Promise<void>((resolve, reject) => {
    const probe = createServer();
    probe.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? portInUse({ PORT, HOST })
          : new StartupError(
              `Cannot listen on ${HOST}:${PORT} (${error.code}): set HOST and PORT to an address of this machine.`,
            ),
      ),
    );
    probe.listen(PORT, HOST, () => probe.close(() => resolve()));
  });
}

const portInUse = ({ PORT, HOST }: Pick<Config, 'PORT' | 'HOST'>) =>
  new StartupError(
    `Port ${PORT} on ${HOST} is in use: stop what listens there, or set PORT to another. Nothing was changed.`,
  );

/** The first platform admin, and on the embedded database an organization to try things with. */
async function firstOrganization(app: NestFastifyApplication, sample: boolean): Promise<FirstStart | undefined> {
  const made = await app.get(Bootstrap).run({ sample });
  if (!made) return undefined;
  if (!made.organizationId) return { email: made.email, password: made.password };
  const accounts = app.get(ServiceAccounts);
  const credentials = app.get(Credentials);
  const { result } = await app.get(Changes).run({ ...SYSTEM, organizationId: made.organizationId }, async (change) => {
    const account = await accounts.addTo(change, made.organizationId!, {
      name: 'Concierge',
      description: 'A first service account, to try things with',
      scopes: ['companies:read', 'companies:write', 'employees:write'],
    });
    const label = 'first secret';
    const { secret } = await credentials.addTo(change, app.get(SecretKind), account, SYSTEM.actor, { label });
    return { id: account.clientId, secret: secret! };
  });
  return { email: made.email, password: made.password, client: result };
}

/** Partitions ahead, and rows that have served their time. */
function keepHouse(app: NestFastifyApplication, log: Logger): void {
  const failed = (error: Error) => log.warn(`housekeeping failed: ${error.message}`);
  const tidy = () =>
    Promise.all([
      app.get(AuditLog).makePartitions(),
      app.get(Revocations).prune(),
      app.get(Changes).prune(),
      app.get(Sessions).prune(),
      app.get(RateLimits).prune(),
    ]).catch(failed);
  const sweep = () => app.get(SingleUses).prune().catch(failed);
  const timers = [setInterval(tidy, HOUSEKEEPING_EVERY_MS), setInterval(sweep, SWEEPING_EVERY_MS)];
  for (const timer of timers) timer.unref();
  app.getHttpServer().once('close', () => timers.forEach(clearInterval));
}
