import type { History, Operation } from './history.js';

/** What a checker found: a sentence for each breach, none when the invariant held. */
export type Violations = string[];
export type Query = <T>(sql: string, values?: unknown[]) => Promise<T[]>;

/** The event that an operation which was acknowledged must have left, under its request id. */
const EVENT: Partial<Record<Operation['op'], string>> = {
  token: 'token.issued',
  'company.create': 'company.created',
  'secret.create': 'service_account.secret.created',
  'secret.revoke': 'service_account.secret.revoked',
  'account.disable': 'service_account.disabled',
  'account.enable': 'service_account.enabled',
  'organization.disable': 'organization.disabled',
  'organization.enable': 'organization.enabled',
};

const tell = ({ op, n, id, instance, args }: Operation) =>
  `${op} #${n} on ${instance} (${id}, ${JSON.stringify(args)})`;

async function eventCounts(query: Query): Promise<Map<string, number>> {
  const rows = await query<{ key: string; count: number }>(
    `SELECT request_id || ' ' || action AS key, count(*)::int AS count FROM audit_event WHERE outcome = 'success' GROUP BY 1`,
  );
  return new Map(rows.map(({ key, count }) => [key, count]));
}

/** I1 and I7: every acknowledged change, and every token that a client saw, has exactly one event with its request id. */
export async function recorded(history: History, query: Query): Promise<Violations> {
  const counts = await eventCounts(query);
  return history
    .ok(...(Object.keys(EVENT) as Operation['op'][]))
    .map((operation) => ({ operation, count: counts.get(`${operation.id} ${EVENT[operation.op]}`) ?? 0 }))
    .filter(({ count }) => count !== 1)
    .map(({ operation, count }) => `I1: ${count} events for ${tell(operation)}`);
}

/**
 * I2, as far as answers and tables show it: what was refused left no event of success, and events and rows agree one to one, whatever
 * became of the operations that nobody knows the end of.
 */
export async function nothingInvented(history: History, query: Query): Promise<Violations> {
  const counts = await eventCounts(query);
  const refused = history.operations
    .filter(({ op, id, outcome }) => outcome === 'fail' && EVENT[op] && counts.has(`${id} ${EVENT[op]}`))
    .map((operation) => `I2: an event of success for the refused ${tell(operation)}`);
  const disagreeing = await query<{ what: string; id: string }>(`
    WITH told AS (SELECT action, targets -> (CASE WHEN action ~ '^service_account[.](secret|key)[.]' THEN 1 ELSE 0 END) ->> 'id' AS id
                    FROM audit_event WHERE outcome = 'success'),
         company_told AS (SELECT id, count(*) FROM told WHERE action = 'company.created' GROUP BY id),
         credential_told AS (SELECT id, count(*) FILTER (WHERE action LIKE '%.created') AS made, count(*) FILTER (WHERE action LIKE '%.revoked') AS ended
                           FROM told WHERE action ~ '^service_account[.](secret|key)[.]' GROUP BY id)
    SELECT 'company' AS what, coalesce(c.id::text, t.id) AS id FROM company c FULL JOIN company_told t ON t.id = c.id::text
     WHERE c.id IS NULL OR t.count IS DISTINCT FROM 1
    UNION ALL
    SELECT 'credential', s.id::text FROM credential s JOIN revocable r ON r.id = s.id LEFT JOIN credential_told t ON t.id = s.id::text
     WHERE t.made IS DISTINCT FROM 1 OR (s.revoked_at IS NOT NULL)::int <> t.ended OR r.epoch <> t.ended`);
  return [...refused, ...disagreeing.map(({ what, id }) => `I2: the events of ${what} ${id} and its row disagree`)];
}

const REVOKES = ['secret.revoke', 'account.disable', 'organization.disable'] as const;
const REVIVES: Partial<Record<Operation['op'], Operation['op']>> = {
  'account.disable': 'account.enable',
  'organization.disable': 'organization.enable',
};

/**
 * I3: for a revocation that returned at r, no request invoked after r is accepted on any instance for a covered credential: neither a
 * token that was issued on it before, nor the credential itself until its subject is enabled again.
 */
export function revokedMeansRevoked(history: History): Violations {
  const issued = new Map(history.ok('token').map((operation) => [operation.n, operation]));
  const violations: Violations = [];
  for (const revocation of history.ok(...REVOKES)) {
    const covers = coverage(revocation);
    const revived = history
      .of(...[REVIVES[revocation.op] ?? []].flat())
      .filter((operation) => operation.t_invoke > revocation.t_return && covers(operation))
      .reduce((earliest, { t_invoke }) => Math.min(earliest, t_invoke), Number.POSITIVE_INFINITY);
    for (const use of history.ok('token', 'guarded', 'company.create')) {
      if (use.t_invoke <= revocation.t_return) continue;
      const credential = use.op === 'token' ? use : issued.get(use.args.token ?? -1);
      // A token that came after the revival was rightly issued; one from before it never lives again.
      if (!credential || !covers(credential) || credential.t_return > revived) continue;
      violations.push(`I3: ${tell(use)} was accepted ${late(use, revocation)} ms after ${tell(revocation)} returned`);
    }
  }
  return violations;
}

const late = (use: Operation, revocation: Operation) => Math.round(use.t_invoke - revocation.t_return);

function coverage({ op, args }: Operation): (other: Operation) => boolean {
  if (op === 'secret.revoke') return (other) => other.args.secretId === args.secretId;
  if (op === 'account.disable') return (other) => other.args.accountId === args.accountId;
  return (other) => other.args.organizationId === args.organizationId;
}

/** I5: of those who present the same assertion, whenever and wherever, one at most is given a token. */
export function usedOnce(history: History): Violations {
  const first = new Map<number, Operation>();
  return history.ok('token').flatMap((operation) => {
    const { assertion } = operation.args;
    if (assertion === undefined) return [];
    const earlier = first.get(assertion);
    if (earlier) return [`I5: ${tell(operation)} was accepted, and so was ${tell(earlier)}`];
    first.set(assertion, operation);
    return [];
  });
}

/** How long after its last possible poll an instance may still accept, past the bound. */
const MARGIN_MS = 50;

/** I4: an instance whose view is older than the bound accepts nothing. */
export function closedWhenBlind(history: History, boundMs: number): Violations {
  return history.blind.flatMap(({ instance, from, to }) =>
    history
      .ok('token', 'guarded', 'company.create')
      .filter((use) => use.instance === instance && use.t_invoke > from + boundMs + MARGIN_MS && use.t_return < to)
      .map((use) => `I4: ${tell(use)} was accepted ${Math.round(use.t_invoke - from)} ms after the last news`),
  );
}

/** How many requests came to blind instances later than the bound: a run without any has shown nothing of I4. */
export const asksOfTheBlind = (history: History, boundMs: number): Operation[] =>
  history.blind.flatMap(({ instance, from, to }) =>
    history.operations.filter(
      (use) => use.instance === instance && use.t_invoke > from + boundMs + MARGIN_MS && use.t_return < to,
    ),
  );

export type Epochs = Map<string, number>;

export async function epochs(query: Query): Promise<Epochs> {
  const rows = await query<{ id: string; epoch: number }>(
    `SELECT id::text, epoch FROM revocable WHERE kind <> 'session' UNION ALL SELECT 'era', era FROM era`,
  );
  return new Map(rows.map(({ id, epoch }) => [id, epoch]));
}

/**
 * I13: epochs never fall. In the database: between two readings. In a view: a token that was asked for after another was received
 * from the same instance carries epochs no lower.
 */
export function epochsOnlyRise(history: History, before: Epochs, after: Epochs): Violations {
  const violations = [...before]
    .filter(([id, epoch]) => (after.get(id) ?? -1) < epoch)
    .map(([id, epoch]) => `I13: the epoch of ${id} fell from ${epoch} to ${after.get(id)}`);
  const tokens = history.ok('token').filter((operation) => operation.epochs);
  const edges = tokens
    .flatMap((operation) => [
      { operation, at: operation.t_invoke, ends: false },
      { operation, at: operation.t_return, ends: true },
    ])
    .sort((a, b) => a.at - b.at);
  const floors = new Map<string, number>();
  const floorAtInvoke = new Map<Operation, number[]>();
  for (const { operation, ends } of edges) {
    const { instance, args } = operation;
    const keys = ['era', args.organizationId, args.accountId, args.secretId].map((id) => `${instance} ${id}`);
    if (!ends) {
      floorAtInvoke.set(
        operation,
        keys.map((key) => floors.get(key) ?? 0),
      );
      continue;
    }
    operation.epochs!.forEach((epoch, i) => {
      if (epoch < floorAtInvoke.get(operation)![i]) violations.push(`I13: ${tell(operation)} carries an older epoch`);
      floors.set(keys[i], Math.max(floors.get(keys[i]) ?? 0, epoch));
    });
  }
  return violations;
}
