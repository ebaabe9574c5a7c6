import QuickLRU from 'quick-lru';

/**
 * Records by id, in memory, forgotten when the feed says so. A load from the database enters only if the feed has not moved for
 * its id meanwhile: what was read before a change must not outlive the news of it. One load an id is under way at a time.
 */
export class Directory<Entry> {
  private readonly entries: QuickLRU<string, Entry>;
  /** Ids that were asked for and are nobody's: bounded apart, so that guesses push no real entry out. */
  private readonly unknown: QuickLRU<string, true>;
  private readonly loads = new Map<string, { promise: Promise<Entry | undefined>; outdated: boolean }>();

  constructor(
    private readonly load: (id: string) => Promise<Entry | undefined>,
    size: number,
  ) {
    this.entries = new QuickLRU({ maxSize: size });
    this.unknown = new QuickLRU({ maxSize: 10_000 });
  }

  /** In memory only; no I/O. */
  peek(id: string): Entry | undefined {
    return this.entries.get(id);
  }

  /** From memory, else from the database. Undefined when there is no such id. */
  get(id: string): Entry | undefined | Promise<Entry | undefined> {
    const entry = this.entries.get(id);
    if (entry !== undefined) return entry;
    if (this.unknown.has(id)) return undefined;
    return this.loads.get(id)?.promise ?? this.begin(id);
  }

  /** Drops an id; a load of it that is under way is read again. */
  forget(id: string): void {
    this.entries.delete(id);
    this.unknown.delete(id);
    const load = this.loads.get(id);
    if (load) load.outdated = true;
  }

  /** Drops what `matches`; loads under way are read again, since nobody can tell yet what they hold. */
  forgetWhere(matches: (entry: Entry) => boolean): void {
    for (const [id, entry] of this.entries) if (matches(entry)) this.entries.delete(id);
    for (const load of this.loads.values()) load.outdated = true;
  }

  /** Drops everything: nobody knows what has changed meanwhile. */
  clear(): void {
    this.entries.clear();
    this.unknown.clear();
    for (const load of this.loads.values()) load.outdated = true;
  }

  private begin(id: string): Promise<Entry | undefined> {
    const state = { outdated: false } as { promise: Promise<Entry | undefined>; outdated: boolean };
    state.promise = this.read(id, state).finally(() => this.loads.delete(id));
    this.loads.set(id, state);
    return state.promise;
  }

  private async read(id: string, state: { outdated: boolean }): Promise<Entry | undefined> {
    for (;;) {
      state.outdated = false;
      const entry = await this.load(id);
      if (state.outdated) continue;
      if (entry === undefined) this.unknown.set(id, true);
      else this.entries.set(id, entry);
      return entry;
    }
  }
}
