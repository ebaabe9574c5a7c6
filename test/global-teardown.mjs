import fs from 'node:fs/promises';

export default async function () {
  const { pg, base } = globalThis.__gatehouse;
  await pg.stop('immediate');
  await fs.rm(base, { recursive: true, force: true });
}
