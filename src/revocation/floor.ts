import { mkdir, open, readFile, rename } from 'node:fs/promises';
import path from 'node:path';
import { StartupError } from '../kernel/startup-error.js';

/** The newest state of the database that this DATA_DIR has seen. A database behind it is a restored backup. */
export interface Floor {
  system: string;
  era: number;
  head: number;
}

/** Keeps the floor in `DATA_DIR/keys/floor.json`, synced to disk before the instance confirms what it stands for. */
export class FloorFile {
  private floor: Floor | undefined;

  constructor(private readonly file: string) {}

  static in(dataDir: string): FloorFile {
    return new FloorFile(path.join(dataDir, 'keys', 'floor.json'));
  }

  async read(): Promise<Floor | undefined> {
    const text = await readFile(this.file, 'utf8').catch((error) =>
      error.code === 'ENOENT' ? undefined : Promise.reject(error),
    );
    this.floor = text === undefined ? undefined : (JSON.parse(text) as Floor);
    return this.floor;
  }

  /** Throws when the database is not the one last seen here, or is older than it was. */
  check(seen: Floor): void {
    const reason = this.floor && regression(this.floor, seen);
    if (reason) {
      throw new StartupError(
        `${reason}: revocations may be missing, so nothing was started. If you restored a backup, run "npm run gatehouse -- era raise", which ends every token issued before, and start again.`,
      );
    }
  }

  async raise(seen: Floor): Promise<void> {
    if (this.floor && this.floor.head === seen.head && this.floor.era === seen.era && this.floor.system === seen.system)
      return;
    await mkdir(path.dirname(this.file), { recursive: true, mode: 0o700 });
    const draft = `${this.file}.${process.pid}`;
    const handle = await open(draft, 'w', 0o600);
    await handle.writeFile(JSON.stringify(seen));
    await handle.sync();
    await handle.close();
    await rename(draft, this.file);
    this.floor = seen;
  }
}

/** Why `seen` cannot be a later state of the database that was at `floor`; undefined when it can. */
export function regression(floor: Floor, seen: Floor): string | undefined {
  if (seen.era > floor.era) return undefined; // raised by hand: every token from before is dead already
  if (seen.system !== floor.system) return 'The database is not the one that was last used here';
  if (seen.era < floor.era || seen.head < floor.head) return 'The database is older than when it was last used here';
  return undefined;
}
