import { writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

export type Op =
  | 'token'
  | 'guarded'
  | 'company.create'
  | 'secret.create'
  | 'secret.revoke'
  | 'account.disable'
  | 'account.enable'
  | 'organization.disable'
  | 'organization.enable'
  | 'change';

/** What an operation was about. `token` is the number of its issuance in the history: a token's text stands nowhere. */
export interface Args {
  token?: number;
  organizationId?: string;
  accountId?: string;
  secretId?: string;
  /** Which assertion was presented. */
  assertion?: number;
  name?: string;
}

/**
 * One operation as its client saw it, on the monotonic clock that every process of a machine shares. A timeout, a reset after the
 * request left, a 5xx: nobody knows, so `unknown`. `id` is the request id that the answer bore.
 */
export interface Operation {
  op: Op;
  n: number;
  id: string | null;
  args: Args;
  t_invoke: number;
  t_return: number;
  outcome: 'ok' | 'fail' | 'unknown';
  status: number;
  instance: string;
  /** Of a JWT's issuance: the era and the epochs of organization, account and secret that it carries. */
  epochs?: number[];
}

/** A time in which an instance had no news of revocations, as the rig brought it about. */
export interface BlindWindow {
  instance: string;
  from: number;
  to: number;
}

export class History {
  readonly operations: Operation[] = [];
  readonly blind: BlindWindow[] = [];
  private count = 0;

  constructor(readonly seed: number) {}

  /** The number of an operation that begins now. */
  next(): number {
    return this.count++;
  }

  add(operation: Operation): void {
    this.operations.push(operation);
  }

  /** How many have begun and not ended. */
  get pending(): number {
    return this.count - this.operations.length;
  }

  of(...ops: Op[]): Operation[] {
    return this.operations.filter(({ op }) => ops.includes(op));
  }

  ok(...ops: Op[]): Operation[] {
    return this.of(...ops).filter(({ outcome }) => outcome === 'ok');
  }

  /** Writes the operations as JSON lines, for whoever asks why an invariant did not hold. Returns where. */
  save(): string {
    const file = path.join(os.tmpdir(), `gatehouse-faults-${this.seed}.jsonl`);
    const lines = [...this.operations, ...this.blind.map((window) => ({ op: 'blind', ...window }))];
    writeFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(''), { mode: 0o600 });
    return file;
  }
}

/** Chance that can be had again: mulberry32. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
