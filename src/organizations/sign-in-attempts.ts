import { Injectable } from '@nestjs/common';
import { Config } from '../config/config.js';
import { Attempts, networkOf, shareOf } from '../kernel/attempts.js';
import { Clock } from '../kernel/clock.js';
import { problem } from '../kernel/problem.js';

const WINDOW_MS = 15 * 60_000;
/** Per window and network: for one person, and for everybody. A victim at another address is never locked out (LG-04). */
const PER_PERSON = 10;
const PER_NETWORK = 100;
const MAX_KEYS = 50_000;

/** Attempts at passwords, counted before they are checked, so that no number of parallel ones gets past the count. */
@Injectable()
export class SignInAttempts {
  private readonly byPerson: Attempts;
  private readonly byNetwork: Attempts;

  constructor(clock: Clock, config: Config) {
    const buckets = (limit: number) =>
      new Attempts(shareOf(limit, config.WORKERS), WINDOW_MS, MAX_KEYS, () => clock.monotonic());
    this.byPerson = buckets(PER_PERSON);
    this.byNetwork = buckets(PER_NETWORK);
  }

  /** Throws too_many_attempts. Otherwise counts one, and returns what takes it back when the password was right. */
  take(address: string | null, email: string): () => void {
    const network = networkOf(address);
    const person = JSON.stringify([network, email]);
    const giveBack = () => {
      this.byPerson.giveBack(person);
      this.byNetwork.giveBack(network);
    };
    const waitPerson = this.byPerson.take(person);
    const waitNetwork = waitPerson > 0 ? 0 : this.byNetwork.take(network);
    if (waitNetwork > 0) this.byPerson.giveBack(person);
    const wait = waitPerson || waitNetwork;
    if (wait > 0) throw problem('too_many_attempts', { headers: { 'Retry-After': String(wait) } });
    return giveBack;
  }
}
