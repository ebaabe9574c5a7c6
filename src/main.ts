import cluster from 'node:cluster';
import { pino } from 'pino';
import { type Config, loadConfig } from './config/config.js';
import { StartupError } from './kernel/startup-error.js';
import { type FirstStart, startService } from './service.js';
import { refuse, startWorker, startWorkers } from './workers.js';

/** What a person reads goes to stderr; stdout has nothing but log lines. */
const say = (text: string) => process.stderr.write(`${text}\n`);

try {
  const config = loadConfig();
  const base = config.WORKERS > 1 ? { pid: process.pid } : undefined;
  const log = pino({ level: config.LOG_LEVEL, base, timestamp: pino.stdTimeFunctions.isoTime });
  const start = cluster.isWorker ? startWorker : config.WORKERS > 1 ? startWorkers : startService;
  const service = await start(config, log, (text) => say(`  ✓ ${text}`));
  if (cluster.isPrimary) say(welcome(config, service.firstStart));
  let stopping = false;
  const stop = (signal: string) => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, 'draining');
    service.stop().then(
      () => process.exit(0),
      (error) => {
        log.error({ message: error.message }, 'did not stop cleanly');
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  // Without the primary Node would end a worker at once; it drains first, and the port is free for the next start.
  cluster.worker?.on('disconnect', () => stop('disconnect'));
  if (cluster.worker) cluster.worker.exitedAfterDisconnect = true;
} catch (error) {
  if (!(error instanceof StartupError)) throw error;
  await (cluster.isWorker ? refuse(error) : say(error.message));
  process.exit(error.exitCode);
}

/** The last thing that a start prints: what a newcomer needs, the secrets in it this once. */
function welcome(config: Config, first: FirstStart | undefined): string {
  const url = config.ISSUER_URL;
  const lines = ['', `Gatehouse is ready at ${url}`, `Documentation: ${url}/docs`];
  if (first) {
    lines.push('', `Admin: ${first.email}`);
    if (first.password)
      lines.push(`Password: ${first.password}   (shown once; sign in and choose your own first: README, "Accounts")`);
  }
  if (first?.client) {
    const { id, secret } = first.client;
    lines.push(
      '',
      "For the README's examples, copy these lines into your shell:",
      '',
      `  ADMIN_EMAIL='${first.email.replaceAll("'", "'\\''")}'`,
      ...(first.password ? [`  ADMIN_PASSWORD=${first.password}`] : []),
      `  CLIENT_ID=${id}`,
      `  CLIENT_SECRET=${secret}`,
      '',
      'A token for the service account Concierge (its secret is shown once):',
      '',
      `  TOKEN=$(curl -s -u '${id}:${secret}' -d grant_type=client_credentials ${url}/oauth/token | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')`,
      '',
      'And its use:',
      '',
      `  curl -s -H "Authorization: Bearer $TOKEN" ${url}/companies`,
    );
  }
  return [...lines, ''].join('\n');
}
