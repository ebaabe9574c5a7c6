import { Config } from '../config/config.js';
import type { Database } from '../database/database.module.js';
import { Clock } from '../kernel/clock.js';
import { RevocationFeed } from './revocation-feed.js';
import { RevocationView } from './revocation-view.js';

/** A clock whose hands are the test's. */
class HeldClock extends Clock {
  at = 0;
  override monotonic = () => this.at;
  override wall = () => 1_000_000 + this.at;
}

const SUBJECT = '018f0000-0000-7000-8000-000000000001';
const held = { era: 1, holds: { account: { id: SUBJECT, epoch: 0 } } };

function viewAt(clock: Clock) {
  const view = new RevocationView(clock, new Config());
  const poll = (matters_until: number, entries = 1) =>
    view.apply({
      era: 1,
      system: '1',
      head: 1,
      entries: [
        { id: 1, kind: 'secret', subject_id: SUBJECT, organization_id: SUBJECT, epoch: 1, matters_until },
      ].slice(0, entries),
    });
  return { view, poll };
}

describe('the view of revocations', () => {
  it('RV-05 an entry goes only when no token from before can live, by the time of the database', () => {
    const clock = new HeldClock();
    const { view, poll } = viewAt(clock);
    clock.synchronize(50_000_000, 0, 0); // the wall clock here is an age behind
    poll(50_000_000 + 300);
    view.stamp(1, 0);
    clock.at = 300;
    view.expire();
    expect(view.size).toBe(1);
    expect(view.alive(held)).toBe(false);
    clock.at = 301;
    view.expire();
    expect(view.size).toBe(0);
  });

  it('RV-05 a second entry of a subject keeps it for as long as the later of both matters', () => {
    const clock = new HeldClock();
    const { view, poll } = viewAt(clock);
    clock.synchronize(0, 0, 0);
    poll(400);
    poll(100);
    view.stamp(1, 0);
    clock.at = 200;
    view.expire();
    expect(view.alive(held)).toBe(false);
  });

  it('I4 knowledge is as old as the moment at which its poll was sent, however late the answer', () => {
    const clock = new HeldClock();
    const { view, poll } = viewAt(clock);
    expect(() => view.alive(held)).toThrow('no news');
    clock.at = 400;
    poll(1, 0);
    view.stamp(1, 0);
    clock.at = 500;
    expect(view.alive(held)).toBe(true);
    clock.at = 501;
    expect(() => view.alive(held)).toThrow('no news');
  });

  it('I13 an entry that comes twice, or late, lowers no epoch', () => {
    const clock = new HeldClock();
    const { view, poll } = viewAt(clock);
    const entry = { id: 2, kind: 'secret', subject_id: SUBJECT, organization_id: SUBJECT, matters_until: 1000 };
    view.apply({ era: 1, system: '1', head: 2, entries: [{ ...entry, epoch: 3 }] });
    poll(1000);
    view.stamp(2, 0);
    expect(view.alive({ era: 1, holds: { account: { id: SUBJECT, epoch: 2 } } })).toBe(false);
    expect(view.alive({ era: 1, holds: { account: { id: SUBJECT, epoch: 3 } } })).toBe(true);
  });
});

describe('the feed', () => {
  it('RV-04 a feed longer than one poll is read to its end before anything is accepted', async () => {
    const clock = new HeldClock();
    const config = Object.assign(new Config(), { DATA_DIR: '/nonexistent', masterKeys: { registered: [] } });
    const view = new RevocationView(clock, config);
    const head = 20_001;
    const id = (n: number) => `018f0000-0000-7000-8000-${String(n).padStart(12, '0')}`;
    const fresh: boolean[] = [];
    const client = {
      on: () => undefined,
      connect: async () => undefined,
      end: async () => undefined,
      query: async ({ name, values }: { name?: string; values?: [number] }) => {
        const position = name === 'poll' ? values![0] : head;
        if (name === 'poll') fresh.push(view.staleness() === undefined);
        const entries = Array.from({ length: Math.min(10_000, head - position) }, (_, i) => ({
          ...{ id: position + i + 1, kind: 'token', subject_id: id(position + i + 1), organization_id: SUBJECT },
          ...{ epoch: 1, matters_until: 1000 },
        }));
        const row = { era: 1, system: '1', head, now: 0, standby: false, largest_bound: 500, seen: true, entries };
        return { rows: [row], rowCount: 1 };
      },
    };
    const feed = new RevocationFeed({ client: () => client } as unknown as Database, view, clock, config);
    Object.assign(feed, {
      floor: { read: async () => undefined, check: () => undefined, raise: async () => undefined },
    });
    try {
      await feed.start();
      expect([view.size, view.position, fresh.slice(0, 3)]).toEqual([head, head, [false, false, false]]);
      for (const n of [1, 10_000, 10_001, 20_001]) expect(view.alive({ id: id(n), era: 1, holds: {} })).toBe(false);
      expect(view.alive({ id: id(head + 1), era: 1, holds: {} })).toBe(true);
    } finally {
      await feed.onApplicationShutdown();
    }
  });

  it.each([true, false])('RV-10 news from a standby counts for nothing: standby %s', async (standby) => {
    const row = { era: 1, system: '1', head: 1, now: 0, standby, largest_bound: 500, seen: true, entries: [] };
    const client = {
      on: () => undefined,
      connect: async () => undefined,
      end: async () => undefined,
      query: async () => ({ rows: [row], rowCount: 1 }),
    };
    const clock = new HeldClock();
    const config = Object.assign(new Config(), { DATA_DIR: '/nonexistent', masterKeys: { registered: [] } });
    const view = new RevocationView(clock, config);
    const feed = new RevocationFeed({ client: () => client } as unknown as Database, view, clock, config);
    // Nothing is written: the folder of the floor does not exist for this test.
    Object.assign(feed, {
      floor: { read: async () => undefined, check: () => undefined, raise: async () => undefined },
    });
    if (standby) {
      await expect(feed.start()).rejects.toThrow('standby');
      expect(() => view.alive(held)).toThrow('no news');
    } else {
      await feed.start();
      expect(view.alive(held)).toBe(true);
      await feed.onApplicationShutdown();
    }
  });
});
