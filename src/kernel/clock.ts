/**
 * The two times that decide. `monotonic` orders what happens in this process and never jumps. `now` is the database's time plus
 * the monotonic time since it was last read, so an instance whose wall clock is wrong neither revives nor prolongs a token.
 */
export class Clock {
  private offset: number | undefined;

  /** Milliseconds, monotonic, of this process. */
  monotonic(): number {
    return performance.now();
  }

  /** Milliseconds of this machine's wall clock. It decides nothing; its drift against `monotonic` betrays a suspended machine. */
  wall(): number {
    return Date.now();
  }

  /** Milliseconds since the Unix epoch by the database's clock; by the wall clock until the database was first asked. */
  now(): number {
    return this.offset === undefined ? this.wall() : this.monotonic() + this.offset;
  }

  /** Seconds since the Unix epoch, as JWT NumericDates have them. */
  seconds(): number {
    return Math.floor(this.now() / 1000);
  }

  /** `database`: its clock in ms, read by a query that was sent and answered at these monotonic times. */
  synchronize(database: number, sentAt: number, receivedAt: number): void {
    this.offset = database - (sentAt + receivedAt) / 2;
  }
}
