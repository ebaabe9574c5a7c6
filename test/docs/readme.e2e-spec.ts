import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { temporaryFolder } from '../support/database.js';
import { freePort, ROOT, ServiceProcess } from '../support/service.js';

const run = promisify(execFile);
const README = readFileSync(path.join(ROOT, 'README.md'), 'utf8');

/** Fenced blocks of a language, each with the last line of text above it. */
function blocks(text: string, language: string): { above: string; code: string }[] {
  return [...text.matchAll(/([^\n]*)\n+```(\w+)\n([\s\S]*?)```/g)]
    .filter((m) => m[2] === language)
    .map((m) => ({ above: m[1], code: m[3] }));
}

/** The project as a reader has it after following "Protect your own API" to the letter, built in a folder of its own. */
async function followed(): Promise<string> {
  const folder = temporaryFolder('readme-');
  for (const name of [
    'src',
    'package.json',
    'tsconfig.json',
    'tsconfig.build.json',
    'nest-cli.json',
    'ormconfig.ts',
    'biome.json',
  ]) {
    cpSync(path.join(ROOT, name), path.join(folder, name), { recursive: true });
  }
  symlinkSync(path.join(ROOT, 'node_modules'), path.join(folder, 'node_modules'));
  for (const { above, code } of blocks(README, 'ts')) {
    const [, file] = /^`(src\/[\w/.-]+\.ts)`:/.exec(above) ?? [];
    if (file) {
      mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
      writeFileSync(path.join(folder, file), code);
      continue;
    }
    const [, name] = /below (?:the import of )?`(\w+)`:$/.exec(above)!;
    const line = new RegExp(above.includes('import of') ? `^import .*\\b${name}\\b.*\n` : `^ *${name},.*\n`, 'm');
    const module = path.join(folder, 'src/app.module.ts');
    writeFileSync(module, readFileSync(module, 'utf8').replace(line, `$&${code}`));
  }
  await run('npx', ['biome', 'check', 'src/app.module.ts', 'src/pockets'], { cwd: folder });
  await run('npx', ['nest', 'build'], { cwd: folder });
  return folder;
}

describe('README', () => {
  let folder: string;
  let service: ServiceProcess;
  let output: string;

  beforeAll(async () => {
    folder = await followed();
    const port = await freePort();
    service = ServiceProcess.spawn(
      { PORT: port, DATA_DIR: path.join(folder, 'data') },
      path.join(folder, 'dist/src/main.js'),
      [],
      folder,
    );
    await service.ready();
    const copied = service.stderr.match(/^ {2}(ADMIN_EMAIL|ADMIN_PASSWORD|CLIENT_ID|CLIENT_SECRET)=.*$/gm)!;
    expect(copied).toHaveLength(4);
    // The first block holds the two commands that build and test the project: whoever reads this is running them.
    const script = blocks(README, 'sh')
      .slice(1)
      .map(({ code }) => code)
      .join('\n')
      .replaceAll('localhost:3000', `localhost:${port}`);
    // `sh`, as the blocks say, not bash; `-u`, since a reader has no variable that nothing assigns.
    const { stdout } = await run('sh', ['-euc', `${copied.join('\n')}\n${script}`], { cwd: folder });
    output = stdout;
  }, 120_000);

  afterAll(async () => {
    await service?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  it('every command works as it stands', () => {
    expect(output).not.toMatch(/"code":|"error":/);
    expect(output).toMatch(
      /"access_token":"client_oa2_live_[\w-]+","token_type":"Bearer","expires_in":3600,"scope":"companies:read companies:write employees:write"/,
    );
    expect(output).toMatch(/"revocation_id":"\d+".*"instances":\{"live":1,"confirmed":1\}/);
    expect(output).toContain('"action":"service_account.secret.revoked"');
    expect(output).toMatch(/^sa_\w+:client_sec_live_\w+$/m);
    expect(output).toMatch(/"email":"ann@globex.example"/);
    expect(output).toMatch(/"name":"nightly export"/);
    expect(output).not.toContain('undefined');
  });

  it('"Protect your own API" followed to the letter: /api/v2/pockets asks for pockets.read', async () => {
    expect(JSON.parse(output.trim().split('\n').at(-1)!)).toEqual({
      data: [],
      organization_id: expect.any(String),
      read_by: 'Procurement Portal',
    });
    const without = await fetch(`${service.url}/api/v2/pockets`);
    expect([without.status, without.headers.get('www-authenticate')]).toEqual([401, 'Bearer realm="gatehouse"']);
  });
});

describe('CONTRIBUTING', () => {
  const text = readFileSync(path.join(ROOT, 'CONTRIBUTING.md'), 'utf8');
  const scripts = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')).scripts as Record<string, string>;

  it('names scripts that exist', () => {
    const named = [...text.matchAll(/npm (?:run )?(test\b|(?<=run )[a-z]+(?::[a-z]+)?)/g)].map(([, name]) => name);
    expect(named.length).toBeGreaterThan(6);
    expect(named.filter((name) => !(name in scripts))).toEqual([]);
  });

  it('shows the levels that exist', () => {
    const drawn = [
      ...text.slice(text.indexOf('## Levels'), text.indexOf('A request walks')).matchAll(/([a-z-]+)\/(?=\s)/g),
    ].map(([, folder]) => folder);
    const there = readdirSync(path.join(ROOT, 'src'), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name);
    expect(drawn.sort()).toEqual(there.sort());
  });
});
