import { Unavailable } from '../kernel/problem.js';

interface Waiting<Item, Result> {
  item: Item;
  since: number;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
}

export interface GroupCommitOptions {
  /** Flushes that may be under way at once. */
  inFlight: number;
  /** Items in one flush at most. */
  batch: number;
  /** Items that may wait; past it, `add` refuses. */
  queue: number;
  /** Milliseconds that an item may wait for its flush. */
  age: number;
}

/**
 * Many callers, one commit: whatever waits when a flush slot is free goes together, without a timer. Alone, an item goes at once;
 * under load the batches grow by themselves. Each caller's promise settles with its own item's result after the commit.
 */
export class GroupCommit<Item, Result> {
  private waiting: Waiting<Item, Result>[] = [];
  private flights = 0;
  private aboard = 0;
  private scheduled = false;
  /** Items that were ever added. */
  private added = 0;
  /** Those of them that were there in the last turn. */
  private seen = 0;

  constructor(
    private readonly flush: (items: Item[]) => Promise<Result[]>,
    private readonly options: GroupCommitOptions,
  ) {}

  /** Rejects with Unavailable when the queue is full or the item waited too long. */
  add(item: Item): Promise<Result> {
    if (this.waiting.length >= this.options.queue) return Promise.reject(new Unavailable('the audit queue is full'));
    return new Promise((resolve, reject) => {
      this.waiting.push({ item, since: performance.now(), resolve, reject });
      this.added++;
      if (!this.scheduled) this.schedule();
    });
  }

  /** Looks at the queue once in each turn of the event loop. After a whole turn in which nothing came, nobody is worth waiting for. */
  private schedule(): void {
    if (this.flights >= this.options.inFlight || this.waiting.length === 0) return;
    this.scheduled = true;
    setImmediate(() => {
      this.scheduled = false;
      const quiet = this.added === this.seen;
      this.seen = this.added;
      this.depart(quiet);
      this.schedule();
    });
  }

  private depart(quiet = false): void {
    // While more keep coming, a further flight waits until it is as full as those under way: two half-empty ones cost twice what a full
    // one does.
    while (
      this.flights < this.options.inFlight &&
      this.waiting.length > 0 &&
      (quiet || this.waiting.length >= this.aboard)
    ) {
      const oldest = performance.now() - this.options.age;
      const batch = this.waiting.splice(0, this.options.batch).filter((entry) => {
        if (entry.since >= oldest) return true;
        entry.reject(new Unavailable('the audit log is too slow'));
        return false;
      });
      if (batch.length === 0) continue;
      this.flights++;
      this.aboard += batch.length;
      this.flush(batch.map(({ item }) => item))
        .then(
          (results) => {
            for (const [i, entry] of batch.entries()) entry.resolve(results[i]);
          },
          (error) => {
            for (const entry of batch) entry.reject(error);
          },
        )
        .finally(() => {
          this.flights--;
          this.aboard -= batch.length;
          this.depart();
          if (!this.scheduled) this.schedule();
        });
    }
  }
}
