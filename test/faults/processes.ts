import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';

/** The direct children of a process. Linux tells in /proc, also where there is no ps. */
export function childrenOf(parent: number): number[] {
  const table = existsSync('/proc/self/stat') ? fromProc() : fromPs();
  return table.filter(([, ppid]) => ppid === parent).map(([pid]) => pid);
}

function fromProc(): [number, number][] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name): [number, number][] => {
      try {
        // pid (command, which may hold anything) state ppid …
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        return [[Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])]];
      } catch {
        return []; // ended meanwhile
      }
    });
}

function fromPs(): [number, number][] {
  const lines = execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' }).trim().split('\n');
  return lines.map((line) => line.trim().split(/\s+/).map(Number) as [number, number]);
}

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Waits for a condition; throws what `otherwise` says when it does not come true. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  otherwise: () => string,
  withinMs = 10_000,
): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(otherwise());
    await sleep(10);
  }
}
