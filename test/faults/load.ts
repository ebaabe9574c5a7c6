import { type Credential, createCompany, issue, type Token, use } from './admin.js';
import { random } from './history.js';
import { sleep } from './processes.js';
import { type Rig, unique } from './rig.js';

/**
 * A mix of what integrations and admins do, against every instance, until it is told to stop: issuance on opaque and JWT accounts,
 * guarded calls with tokens old and new, changes made with a token, secrets made and revoked. After a failure a worker pauses, as a
 * client would.
 */
export class Load {
  private running = true;
  private readonly workers: Promise<void>[];
  private readonly chance: () => number;
  private readonly tokens: Token[] = [];

  /** `accounts`: the credentials to use; those that the load adds it revokes by and by, these never. */
  constructor(
    private readonly rig: Rig,
    private readonly accounts: readonly Credential[],
    concurrency = 8,
    private readonly instances = rig.instances,
  ) {
    this.chance = random(rig.history.seed);
    this.workers = Array.from({ length: concurrency }, () => this.work());
  }

  async stop(): Promise<void> {
    this.running = false;
    await Promise.all(this.workers);
  }

  private async work(): Promise<void> {
    let temporary: Credential | undefined;
    while (this.running) {
      const instance = this.pick(this.instances);
      const account = this.pick(this.accounts);
      const dice = this.chance();
      const token = this.tokens.length > 0 ? this.pick(this.tokens) : undefined;
      let fine: boolean;
      if (dice < 0.6 || !token) {
        const { token: issued } = await issue(this.rig.history, instance, temporary ?? account);
        if (issued) this.keep(issued);
        fine = issued !== undefined;
      } else if (dice < 0.85) {
        const answer = await use(this.rig.history, instance, token);
        fine = answer !== undefined && answer.status < 500;
      } else if (dice < 0.95) {
        const answer = await createCompany(this.rig.history, instance, token, unique('Company'));
        fine = answer !== undefined && answer.status < 500;
      } else if (temporary) {
        fine = (await this.rig.admin.tryRevoke(temporary, instance)).operation.outcome === 'ok';
        temporary = undefined;
      } else {
        temporary = await this.rig.admin.tryCreateSecret(account, instance);
        fine = temporary !== undefined;
      }
      if (!fine) await sleep(20);
    }
    // What nobody revoked counts against the account's limit.
    if (temporary) await this.rig.admin.tryRevoke(temporary);
  }

  /** Old tokens stay among the new, so that revoked ones are tried again. */
  private keep(token: Token): void {
    if (this.tokens.length < 500) this.tokens.push(token);
    else this.tokens[Math.floor(this.chance() * this.tokens.length)] = token;
  }

  private pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.chance() * from.length)];
  }
}

/** `count` tokens on a credential, asked for by `concurrency` at a time of all instances in turn. Retries what an instance sheds. */
export async function obtain(rig: Rig, credential: Credential, count: number, concurrency = 32): Promise<Token[]> {
  const tokens: Token[] = [];
  let asked = 0;
  const worker = async () => {
    while (asked < count) {
      const instance = rig.instances[asked++ % rig.instances.length];
      const { token, answer } = await issue(rig.history, instance, credential);
      if (token) tokens.push(token);
      else if (answer?.status === 503) asked--;
      else throw new Error(`token on ${instance.name}: ${answer?.status} ${JSON.stringify(answer?.json)}`);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  return tokens;
}

/** What each token is answered on each instance: how many answers of each status. A 503 is asked again: it decides nothing. */
export async function tryAll(rig: Rig, tokens: readonly Token[], concurrency = 32): Promise<Record<number, number>> {
  const statuses: Record<number, number> = {};
  const questions = tokens.flatMap((token) => rig.instances.map((instance) => ({ token, instance })));
  const worker = async () => {
    for (let question = questions.pop(); question; question = questions.pop()) {
      const status = (await use(rig.history, question.instance, question.token))?.status ?? 0;
      if (status === 503) questions.unshift(question);
      else statuses[status] = (statuses[status] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  return statuses;
}
