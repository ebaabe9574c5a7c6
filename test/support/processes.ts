import { once } from 'node:events';
import fs from 'node:fs/promises';
import path from 'node:path';
import { ROOT, ServiceProcess } from './service.js';

export const CLI = path.join(ROOT, 'dist/src/cli/main.js');

/** Runs the service, or a command of the operator, to its end. */
export async function runToEnd(environment: Record<string, string>, ...command: string[]) {
  const ran = command.length > 0 ? ServiceProcess.spawn(environment, CLI, command) : ServiceProcess.spawn(environment);
  const [code] = await once(ran.child, 'close'); // its last words included
  return { code, stdout: ran.stdout, stderr: ran.stderr };
}

/** The processes that work inside a data folder: the postmaster and its children. */
export async function processesIn(folder: string): Promise<number[]> {
  const pids = (await fs.readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const cwd = (pid: string) => fs.readlink(`/proc/${pid}/cwd`).catch(() => '');
  const found = await Promise.all(pids.map(async (pid) => ((await cwd(pid)).startsWith(folder) ? [pid] : [])));
  return found.flat().map(Number);
}
