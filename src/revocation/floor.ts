import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { StartupError } from '../kernel/startup-error.js';

/** The newest state of the database that this DATA_DIR has seen. A database behind it is a restored backup. */
export interface Floor {
  system: string;
  era: number;
  head: number;
}

/**
 * Keeps the floor in `DATA_DIR/keys/floor*.json`, synced to disk before the instance confirms what it stands for. Several processes
 * write there: a file is named after its floor and never written over with another, and the highest counts, so that a slower
 * process cannot lower what a faster one has seen.
 */
export class FloorFile {
  private floor: Floor | undefined;
  /** Files whose floors are lower than the next one that is written here. */
  private passed: string[] = [];

  constructor(private readonly folder: string) {}

  static in(dataDir: string): FloorFile {
    return new FloorFile(path.join(dataDir, 'keys'));
  }

  async read(): Promise<Floor | undefined> {
    const names = await readdir(this.folder).catch((error) => orAbsent(error, []));
    this.passed = names.filter((name) => /^floor.*\.json$/.test(name));
    const files = this.passed.map((name) => readFile(path.join(this.folder, name), 'utf8'));
    const texts = await Promise.all(files).catch((error) => orAbsent(error, undefined));
    if (!texts) return this.read(); // one of them was passed meanwhile, and the higher one may be new
    const floors = texts.map((text) => JSON.parse(text) as Floor);
    this.floor = floors.sort((a, b) => a.era - b.era || a.head - b.head).at(-1);
    return this.floor;
  }

  /** Throws when the database is not the one last seen here, or is older than it was. */
  check(seen: Floor): void {
    const reason = this.floor && regression(this.floor, seen);
    if (reason) {
      throw new StartupError(
        `${reason}: revocations may be missing, so nothing was started. If you restored a backup, run "npm run gatehouse -- era raise", which ends every token issued before, personal access tokens too, and start again.`,
      );
    }
  }

  async raise(seen: Floor): Promise<void> {
    if (this.floor && this.floor.head === seen.head && this.floor.era === seen.era && this.floor.system === seen.system)
      return;
    await mkdir(this.folder, { recursive: true, mode: 0o700 });
    const name = `floor-${seen.era}-${seen.head}.json`;
    const file = path.join(this.folder, name);
    const draft = `${file}.${process.pid}`;
    const handle = await open(draft, 'w', 0o600);
    await handle.writeFile(JSON.stringify(seen));
    await handle.sync();
    await handle.close();
    await rename(draft, file);
    // The name is on disk before those that it replaces are gone.
    const folder = await open(this.folder);
    await folder.sync();
    await folder.close();
    for (const lower of this.passed) if (lower !== name) await rm(path.join(this.folder, lower), { force: true });
    this.passed = [name];
    this.floor = seen;
  }
}

const orAbsent = <T>(error: NodeJS.ErrnoException, otherwise: T): T => {
  if (error.code === 'ENOENT') return otherwise;
  throw error;
};

/** Why `seen` cannot be a later state of the database that was at `floor`; undefined when it can. */
export function regression(floor: Floor, seen: Floor): string | undefined {
  if (seen.era > floor.era) return undefined; // raised by hand: every token from before is dead already
  if (seen.system !== floor.system) return 'The database is not the one that was last used here';
  if (seen.era < floor.era || seen.head < floor.head) return 'The database is older than when it was last used here';
  return undefined;
}
