import { createHash, randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type Demands, Recorder } from '../../src/changes/recorder.js';
import type { Held } from '../../src/kernel/actor.js';
import { RevocationView } from '../../src/revocation/revocation-view.js';
import { SYSTEM } from '../../src/tokens/keys.service.js';
import { type Session, TestService } from '../support/service.js';

let service: TestService;
let admin: Session;
let recorder: Recorder;
let era: number;
/** What an issuance hangs on: of a living account, and of one that was ended. */
let living: Held[];
let ended: Held[];
/** The ended one's, as they are since. */
let present: Held[];
let accountId: string;

beforeAll(async () => {
  service = await TestService.start();
  admin = await service.signIn();
  recorder = service.app.get(Recorder);
  era = service.app.get(RevocationView).era;
  const [alive, dead] = [await admin.createAccount('Alive'), await admin.createAccount('Dead')];
  accountId = alive.id;
  living = [await epochOf(alive.id), await epochOf(alive.secret.id)];
  ended = [living[0], await epochOf(dead.id)];
  await admin.post(`/service-accounts/${dead.id}/disable`);
  present = [living[0], await epochOf(dead.id)];
  expect(present[1].epoch).toBe(ended[1].epoch + 1);
});
afterAll(() => service?.stop());

const epochOf = async (id: string): Promise<Held> =>
  (await service.database.query('SELECT id, epoch FROM revocable WHERE id = $1', [id]))[0] as never;

/** All at once, so in one batch: what came of each, and what is in the log. */
async function record(events: readonly Demands[]): Promise<{ outcomes: unknown[]; logged: number[] }> {
  const request = { id: randomUUID(), address: null, userAgent: null };
  const outcomes = await Promise.all(
    events.map((demands, number) =>
      recorder
        .record({ ...SYSTEM, action: 'token.issued', request, changes: { number: { to: number } } }, demands)
        .catch((error: Error) => error.name),
    ),
  );
  const rows = await service.database.query<{ number: number }>(
    "SELECT (changes #>> '{number,to}')::int AS number FROM audit_event WHERE request_id = $1 ORDER BY 1",
    [request.id],
  );
  return { outcomes, logged: rows.map(({ number }) => number) };
}

const unchanged = (holds: readonly Held[], of = era) => ({
  unchanged: { era: of, holds: Object.fromEntries(holds.map((held) => [held.id, held])) },
});
const once = (text: string) => ({
  once: {
    serviceAccountId: accountId,
    hash: createHash('sha256').update(text).digest(),
    expiresAt: Date.now() + 60_000,
  },
});

describe('events with demands, many in one statement', () => {
  /** Each set of demands beside the others, before and after, so that none is judged by another's. */
  const MIXED = (): [Demands, boolean][] => [
    [unchanged(living), true],
    [unchanged(ended), false],
    [{}, true],
    [unchanged(living), true],
    [unchanged([]), true],
    [unchanged([], era - 1), false],
    [unchanged(present), true],
    [unchanged(living, era + 1), false],
    [unchanged([...living, { id: randomUUID(), epoch: 0 }]), false],
    [unchanged(ended), false],
    [unchanged([...living].reverse()), true],
  ];

  it('I1 whoever relied on something that changed, or is not there, is refused, and no one else', async () => {
    const { outcomes, logged } = await record(MIXED().map(([demands]) => demands));
    const expected = MIXED().map(([, recorded]) => recorded);
    expect(outcomes).toEqual(expected);
    expect(logged).toEqual(expected.flatMap((recorded, number) => (recorded ? [number] : [])));
  });

  it('PJ-19 the same beside an event that uses something up; what is refused uses up nothing', async () => {
    const jti = randomUUID();
    const plain = MIXED().map(([demands]) => demands);
    const first = await record([...plain, { ...unchanged(ended), ...once(jti) }]);
    expect(first.outcomes).toEqual([...MIXED().map(([, recorded]) => recorded), false]);
    const second = await record([
      ...plain,
      { ...unchanged(living), ...once(jti) },
      { ...unchanged(living), ...once(jti) },
    ]);
    expect(second.outcomes).toEqual([...MIXED().map(([, recorded]) => recorded), true, 'UsedBefore']);
    expect(second.logged).toHaveLength(MIXED().filter(([, recorded]) => recorded).length + 1);
  });
});
