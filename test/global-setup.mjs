// Plain ESM on purpose: Jest loads globalSetup outside its module registry, so it uses the compiled output; "pretest" builds it.
import { randomBytes } from 'node:crypto';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { EmbeddedPostgres } from '../dist/src/database/embedded-postgres.js';
import { migrate } from '../dist/src/database/migrate.js';

/** A killed Jest cannot run globalTeardown: stop the servers of runs whose process is gone. */
async function sweep() {
  for (const name of await fs.readdir(os.tmpdir())) {
    if (!name.startsWith('gatehouse-test-')) continue;
    const dir = path.join(os.tmpdir(), name);
    const owner = Number(await fs.readFile(path.join(dir, 'owner.pid'), 'utf8').catch(() => ''));
    try {
      if (!owner) continue;
      process.kill(owner, 0);
    } catch (error) {
      if (error.code !== 'ESRCH') continue;
      const pg = new EmbeddedPostgres({ dataDir: path.join(dir, 'data'), fast: true });
      await pg.start().then(
        () => pg.stop('immediate'),
        () => undefined,
      );
      await fs.rm(dir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
    }
  }
}

/** One server for the tests that do not prove durability, with a migrated database that each test file copies. */
export default async function () {
  await sweep();
  const base = await fs.mkdtemp(path.join(os.tmpdir(), 'gatehouse-test-'));
  await fs.chmod(base, 0o755);
  await fs.writeFile(path.join(base, 'owner.pid'), String(process.pid));
  const pg = new EmbeddedPostgres({ dataDir: path.join(base, 'data'), fast: true, maxConnections: 300 });
  await pg.start();
  await migrate(pg.owner, pg.application);
  process.env.GATEHOUSE_TEST = JSON.stringify({
    base,
    superuser: pg.superuser,
    owner: pg.owner,
    application: pg.application,
    masterKey: randomBytes(32).toString('base64'),
  });
  globalThis.__gatehouse = { pg, base };
}
