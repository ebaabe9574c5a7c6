import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  type KeyObject,
  randomBytes,
} from 'node:crypto';
import { chmod, link, mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { randomOctets } from '../kernel/ids.js';
import { StartupError } from '../kernel/startup-error.js';

/** Names a master key without telling of it. */
const masterKeyId = (key: KeyObject) =>
  createHmac('sha256', key).update('gatehouse master key id').digest('hex').slice(0, 16);

const WRONG_MASTER_KEY =
  'MASTER_KEY is not the one that this database was set up with: start with the right one. Nothing was changed.';

/**
 * The master keys at hand, of which there are two while one takes over from the other: MASTER_KEY and MASTER_KEY_PREVIOUS, or for the
 * embedded database `master.key` and `master.key.new` in its folder, which a running service reads anew when it meets a key that is
 * wrapped by one it does not know. Owns wrapping; refuses to know what is wrapped, or where it is kept.
 */
export class MasterKeys {
  private readonly keys = new Map<string, KeyObject>();
  /** The id of the one that everything is to be wrapped with in the end. */
  private current = '';

  private constructor(private readonly folder?: string) {}

  /** Of settings: 32 bytes each, in base64. */
  static given(current: string, previous?: string): MasterKeys {
    const keys = new MasterKeys();
    if (previous) keys.add(previous);
    keys.current = keys.add(current);
    return keys;
  }

  /** Of a folder. `fresh`: nothing was wrapped yet, so that a key that is missing is made. Throws a StartupError (78). */
  static async in(folder: string, fresh: boolean): Promise<MasterKeys> {
    const keys = new MasterKeys(folder);
    if (!(await keys.read())) {
      if (!fresh) {
        throw new StartupError(
          `MASTER_KEY is missing: ${keys.file} is gone, and without it the keys in the database cannot be opened. Restore the file, or set MASTER_KEY. Nothing was changed.`,
          78,
        );
      }
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await make(keys.file);
      await keys.read();
    }
    return keys;
  }

  get currentId(): string {
    return this.current;
  }

  /** What an instance says that it has: ids, or null when it reads them from the folder. */
  get registered(): string[] | null {
    return this.folder === undefined ? [...this.keys.keys()] : null;
  }

  /** Makes sure that all of these ids are at hand. Throws a StartupError (78) that says which one is missing. */
  async know(ids: readonly string[]): Promise<void> {
    const isMissing = (id: string) => !this.keys.has(id);
    if (this.folder !== undefined && ids.some(isMissing)) await this.read();
    const missing = ids.filter(isMissing);
    if (missing.length === 0) return;
    if (missing.length === ids.length) throw new StartupError(WRONG_MASTER_KEY, 78);
    const remedy =
      this.folder === undefined
        ? 'set MASTER_KEY_PREVIOUS to it until "npm run gatehouse -- master-key rotate" says that every key is wrapped by MASTER_KEY'
        : `restore ${this.file} and ${this.nextFile}`;
    throw new StartupError(
      `Some keys in the database are wrapped by the master key with the id ${missing.join(', ')}, which is missing: ${remedy}. Nothing was changed.`,
      78,
    );
  }

  /**
   * The id of the one to wrap a new key with, by the ids in use: the current one once anything is wrapped by it, which is when every
   * instance has it, and until then the one before.
   */
  toWrapWith(inUse: readonly string[]): string {
    return inUse.length === 0 || inUse.includes(this.current) ? this.current : inUse[0];
  }

  /** nonce | ciphertext | tag, by AES-256-GCM. `label` must be the same to open it: in another row it does not open. */
  wrap(plain: Buffer, label: string, id: string): Buffer {
    const nonce = randomOctets(12);
    const cipher = createCipheriv('aes-256-gcm', this.keys.get(id)!, nonce).setAAD(Buffer.from(label));
    return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  }

  /** Throws when it was altered. */
  open(wrapped: Buffer, label: string, id: string): Buffer {
    const decipher = createDecipheriv('aes-256-gcm', this.keys.get(id)!, wrapped.subarray(0, 12));
    decipher.setAAD(Buffer.from(label)).setAuthTag(wrapped.subarray(-16));
    return Buffer.concat([decipher.update(wrapped.subarray(12, -16)), decipher.final()]);
  }

  /** The first step of a rotation: in a folder the next key is made, unless one from a rotation that was cut short is there. */
  async begin(): Promise<void> {
    if (this.folder === undefined) return;
    await make(this.nextFile);
    await this.read();
  }

  /**
   * The last step, once everything is wrapped by the current one: in a folder it takes the place of the one before, which is kept
   * under another name, since backups of the database cannot be opened without it. Resolves with that name.
   */
  async finish(): Promise<string | undefined> {
    if (this.folder === undefined) return undefined;
    const kept = `${this.file}.until-${new Date().toISOString().replaceAll(':', '')}`;
    await link(this.file, kept);
    await chmod(kept, 0o600);
    await syncFolder(this.folder);
    await rename(this.nextFile, this.file);
    await syncFolder(this.folder);
    return kept;
  }

  /** Where the key is kept that everything is wrapped with, in a folder. */
  get file(): string {
    return path.join(this.folder!, 'master.key');
  }

  private get nextFile(): string {
    return `${this.file}.new`;
  }

  /** False when there is no key in the folder. */
  private async read(): Promise<boolean> {
    const texts = await Promise.all([this.file, this.nextFile].map(readKey));
    for (const text of texts) if (text !== undefined) this.current = this.add(text);
    return texts[0] !== undefined;
  }

  private add(text: string): string {
    const key = createSecretKey(text, 'base64');
    const id = masterKeyId(key);
    this.keys.set(id, key);
    return id;
  }
}

async function readKey(file: string): Promise<string | undefined> {
  const text = await readFile(file, 'utf8').catch((error) => (error.code === 'ENOENT' ? '' : Promise.reject(error)));
  if (!text) return undefined;
  if (Buffer.from(text.trim(), 'base64').length !== 32)
    throw new StartupError(`${file} does not hold 32 bytes in base64: restore it. Nothing was changed.`, 78);
  return text.trim();
}

/** A new key under this name, unless there is one: whole and on disk before anything can be wrapped with it. */
async function make(file: string): Promise<void> {
  const draft = `${file}.${process.pid}`;
  await rm(draft, { force: true });
  const handle = await open(draft, 'wx', 0o600);
  await handle.writeFile(`${randomBytes(32).toString('base64')}\n`);
  await handle.sync();
  await handle.close();
  // Unlike a rename, a link never replaces one that another process made meanwhile.
  await link(draft, file).catch((error) => (error.code === 'EEXIST' ? undefined : Promise.reject(error)));
  await rm(draft);
  await syncFolder(path.dirname(file));
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  await handle.sync();
  await handle.close();
}
