import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from '@jest/globals';
import { environment } from './support/database.js';
import { ROOT } from './support/service.js';

const run = promisify(execFile);
const cruise = (cwd: string) =>
  run('npx', ['depcruise', '--config', '.dependency-cruiser.cjs', 'src', 'ormconfig.ts'], { cwd });

const sources = (folder: string): string[] =>
  readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? sources(path.join(folder, entry.name)) : [path.join(folder, entry.name)],
  );

describe('the levels', () => {
  it('hold: each imports only what stands below it, and there is no circle', async () => {
    const { stdout } = await cruise(ROOT);
    expect(stdout).toContain('no dependency violations found');
  });

  it('are noticed when they are broken (control)', async () => {
    const folder = mkdtempSync(path.join(environment().base, 'arch-'));
    for (const name of ['src', 'package.json', 'tsconfig.json', 'ormconfig.ts', '.dependency-cruiser.cjs']) {
      cpSync(path.join(ROOT, name), path.join(folder, name), { recursive: true });
    }
    symlinkSync(path.join(ROOT, 'node_modules'), path.join(folder, 'node_modules'));
    mkdirSync(path.join(folder, 'src/kernel'), { recursive: true });
    const break_ = (file: string, text: string) => writeFileSync(path.join(folder, file), text);
    break_(
      'src/kernel/upward.ts',
      `import type { Tokens } from '../tokens/tokens.service.js';\nexport type Upward = Tokens;\n`,
    );
    break_(
      'src/api/sideways.ts',
      `import { TOKEN_PATHS } from '../oauth/paths.js';\nexport const sideways = TOKEN_PATHS;\n`,
    );
    break_(
      'src/audit/knows.ts',
      `import { RevocationView } from '../revocation/revocation-view.js';\nexport const knows = RevocationView;\n`,
    );
    const { stdout } = await cruise(folder).catch((error) => error as { stdout: string });
    expect(stdout).toMatch(/kernel-imports-only-downward/);
    expect(stdout).toMatch(/api-imports-no-other-face/);
    expect(stdout).toMatch(/revocation-and-audit-know-nobody/);
    rmSync(folder, { recursive: true, force: true });
  });
});

describe('files', () => {
  const files = sources(path.join(ROOT, 'src'));

  it('are at most 350 lines', () => {
    expect(files.filter((file) => readFileSync(file, 'utf8').split('\n').length > 351)).toEqual([]);
  });

  it('read the environment in one place', () => {
    const readers = files
      .filter((file) => /process\.env\b/.test(readFileSync(file, 'utf8')))
      .map((file) => path.relative(ROOT, file));
    expect(readers).toEqual(['src/config/config.ts']);
  });
});
