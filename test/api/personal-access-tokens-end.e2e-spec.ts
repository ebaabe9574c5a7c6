import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { Members } from '../../src/organizations/members.js';
import { RevocationView } from '../../src/revocation/revocation-view.js';
import { until } from '../faults/processes.js';
import { at, join, MINUTE, PASSWORD, startPatient } from '../support/people.js';
import { call, type Made, makeFor, makeOwn } from '../support/personal-access-tokens.js';
import { queriesDuring } from '../support/queries.js';
import { type Answer, type Session, TestService } from '../support/service.js';

/** Two instances on one database: what one is told, the other must have heard when the first answers. */
let service: TestService;
let other: TestService;
let platform: Session;
let admin: Session & { userId: string };

beforeAll(async () => {
  service = await startPatient();
  other = await TestService.start({ REVOCATION_BOUND_MS: '10000' }, service.database);
  platform = await service.signIn();
  await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
});
afterAll(async () => {
  await other?.stop();
  await service?.stop();
});
afterEach(() => {
  jest.restoreAllMocks();
});

const code = ({ status, json }: Answer) => [status, json?.code];
let count = 0;
const somebody = (role: 'admin' | 'auditor' = 'admin') => join(admin, `somebody${count++}@acme.example`, role);
const principal = (scopes?: string[]) => admin.createAccount(`Principal ${count++}`, scopes);
/** What both instances say of a token, which both have in memory from then on. */
const everywhere = async (token: Made, path?: string) =>
  (await Promise.all([service, other].map((instance) => call(instance, token, path)))).map(({ status }) => status);
const GOOD = [200, 200];
const DEAD = [401, 401];
const statuses = async (session: Session, path = '/personal-access-tokens') =>
  (await session.get(path)).json.data.map(({ status }: { status: string }) => status);

describe('revoking', () => {
  it('SC-08 P1 a person’s: dead on every instance when it is answered, its siblings alive; revoking again gives the first’s receipt', async () => {
    const ann = await somebody();
    const [doomed, sibling] = [await makeOwn(ann, ['companies:read']), await makeOwn(ann, ['companies:read'])];
    expect([await everywhere(doomed), await everywhere(sibling)]).toEqual([GOOD, GOOD]);
    const path = `/personal-access-tokens/${doomed.id}/revoke`;
    const answers = await Promise.all(Array.from({ length: 8 }, () => ann.post(path, { reason: 'leaked' })));
    expect([await everywhere(doomed), await everywhere(sibling)]).toEqual([DEAD, GOOD]);
    expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(200));
    expect(new Set(answers.map(({ json }) => json.revocation_id)).size).toBe(1);
    expect(answers[0].json).toEqual({
      revocation_id: expect.stringMatching(/^\d+$/),
      revoked_at: expect.any(String),
      credential_id: doomed.id,
      tokens_expire_by: expect.any(String),
      instances: { live: 2, confirmed: 2 },
      waited_ms: expect.any(Number),
      bound_ms: 10_000,
    });
    const [published] = (await ann.get('/revocations?limit=1')).json.data;
    expect(published).toMatchObject({
      id: answers[0].json.revocation_id,
      kind: 'personal_access_token',
      subject_id: doomed.id,
      reason: 'leaked',
      revoked_by: { type: 'user', id: ann.userId },
    });
    const events = (await ann.get(`/audit-events?action=personal_access_token.revoked&target_id=${doomed.id}`)).json;
    expect(events.data).toHaveLength(1);
    expect(events.data[0]).toMatchObject({ reason: 'leaked', targets: [{ id: ann.userId }, { id: doomed.id }] });
    expect(await statuses(ann)).toEqual(['revoked', 'active']);
    const dead = await call(other, doomed);
    expect(dead.headers['www-authenticate']).toContain('error_description="The access token was revoked"');
  });

  it('E8 P1 a principal’s: dead on every instance, its siblings and the account’s secrets alive', async () => {
    const account = await principal();
    const [doomed, sibling] = [
      await makeFor(admin, account.id, ['companies:read']),
      await makeFor(admin, account.id, ['companies:read'], 'prod-key-2'),
    ];
    expect([await everywhere(doomed), await everywhere(sibling)]).toEqual([GOOD, GOOD]);
    const tokens = `/developer/service-principals/${account.id}/tokens`;
    const receipt = await admin.post(`${tokens}/${doomed.id}/revoke`);
    expect([receipt.status, receipt.json.credential_id]).toEqual([200, doomed.id]);
    expect([await everywhere(doomed), await everywhere(sibling)]).toEqual([DEAD, GOOD]);
    expect(await statuses(admin, tokens)).toEqual(['revoked', 'active']);
    expect((await service.token({ grant_type: 'client_credentials' }, account.credentials)).status).toBe(200);
  });

  it('P1 long after the feed has forgotten: the rows still say what was revoked, disabled, ended', async () => {
    const [ann, bob, eve] = [await somebody(), await somebody(), await somebody()];
    const [own, paused] = [await principal(), await principal()];
    const dead = {
      'a person’s, revoked': await makeOwn(ann, ['companies:read']),
      'a principal’s, revoked': await makeFor(admin, own.id, ['companies:read']),
      'of an account that was disabled': await makeFor(admin, paused.id, ['companies:read']),
      'of a person who was disabled': await makeOwn(bob, ['companies:read']),
      'of a member who left': await makeOwn(eve, ['companies:read']),
    };
    const alive = await makeOwn(ann, ['companies:read']);
    // Twice: the second time it is in memory, and must not be remembered as good.
    for (const token of [...Object.values(dead), ...Object.values(dead)]) expect(await everywhere(token)).toEqual(GOOD);
    const [one, two] = Object.values(dead);
    await ann.post(`/personal-access-tokens/${one.id}/revoke`);
    await admin.post(`/developer/service-principals/${own.id}/tokens/${two.id}/revoke`);
    for (const verb of ['disable', 'enable']) await admin.post(`/service-accounts/${paused.id}/${verb}`);
    for (const disabled of [true, false]) await admin.patch(`/users/${bob.userId}`, { disabled });
    await admin.delete(`/users/${eve.userId}`);
    const view = service.app.get(RevocationView);
    await at(service, 2 * 24 * 60 * MINUTE, async () => {
      view.expire();
      expect(view.size).toBe(0);
      for (const [what, token] of Object.entries(dead))
        expect([what, (await call(service, token)).status]).toEqual([what, 401]);
      expect((await call(service, alive)).status).toBe(200);
    });
  });
});

describe('with the owner', () => {
  it('TN-11 SC-07 a role that is reduced reduces it at the next call everywhere, and the role’s return widens it again', async () => {
    const ann = await somebody();
    const token = await makeOwn(ann, ['companies:read', 'audit:read']);
    expect([await everywhere(token), await everywhere(token, '/audit-events')]).toEqual([GOOD, GOOD]);
    await admin.patch(`/users/${ann.userId}`, { role: 'auditor' });
    expect([await everywhere(token), await everywhere(token, '/audit-events')]).toEqual([[403, 403], GOOD]);
    await admin.patch(`/users/${ann.userId}`, { role: 'admin' });
    expect([await everywhere(token), await everywhere(token, '/audit-events')]).toEqual([GOOD, GOOD]);
    expect(await statuses(ann)).toEqual(['active']);
    // And it works for changes too, which re-check what it hangs on.
    const writing = await makeOwn(ann, ['companies:write']);
    for (const role of ['auditor', 'admin']) await admin.patch(`/users/${ann.userId}`, { role });
    expect((await call(service, writing, '/companies', 'POST', { name: 'After both' })).status).toBe(201);
  });

  it('TN-11 a change that was judged by the role of before commits nothing', async () => {
    const ann = await somebody();
    const token = await makeOwn(ann, ['companies:write']);
    const members = service.app.get(Members);
    const [{ membership_id }] = await service.database.query<{ membership_id: string }>(
      'SELECT membership_id FROM credential WHERE id = $1',
      [token.id],
    );
    const before = await members.byId(membership_id);
    await admin.patch(`/users/${ann.userId}`, { role: 'auditor' });
    jest.spyOn(members, 'byId').mockReturnValue(before);
    const late = await call(service, token, '/companies', 'POST', { name: 'Too late' });
    expect(code(late)).toEqual([401, 'unauthenticated']);
  });

  it('TN-11 a member who is removed: dead everywhere, and not revived by coming back', async () => {
    const ann = await somebody();
    const token = await makeOwn(ann, ['companies:read']);
    expect(await everywhere(token)).toEqual(GOOD);
    expect((await admin.delete(`/users/${ann.userId}`)).status).toBe(204);
    expect(await everywhere(token)).toEqual(DEAD);
    const [{ email }] = await service.database.query<{ email: string }>('SELECT email FROM "user" WHERE id = $1', [
      ann.userId,
    ]);
    await admin.post('/users', { email, name: 'Back', role: 'admin' });
    const back = await service.signIn({ email, password: PASSWORD });
    expect(await everywhere(token)).toEqual(DEAD);
    expect((await call(service, token)).headers['www-authenticate']).toContain('The access token was revoked');
    expect((await back.get('/personal-access-tokens')).json.data).toEqual([]);
    expect(code(await back.post(`/personal-access-tokens/${token.id}/revoke`))).toEqual([404, 'not_found']);
    expect(await everywhere(await makeOwn(back, ['companies:read']))).toEqual(GOOD);
  });

  it('TN-11 a person who is disabled: dead everywhere, and not revived by enabling; a new one works', async () => {
    const ann = await somebody();
    const token = await makeOwn(ann, ['companies:read']);
    expect(await everywhere(token)).toEqual(GOOD);
    await admin.patch(`/users/${ann.userId}`, { disabled: true });
    expect(await everywhere(token)).toEqual(DEAD);
    await admin.patch(`/users/${ann.userId}`, { disabled: false });
    expect(await everywhere(token)).toEqual(DEAD);
    const [{ email }] = await service.database.query<{ email: string }>('SELECT email FROM "user" WHERE id = $1', [
      ann.userId,
    ]);
    const back = await service.signIn({ email, password: PASSWORD });
    expect(await everywhere(await makeOwn(back, ['companies:read']))).toEqual(GOOD);
    expect(await statuses(back)).toEqual(['revoked', 'active']);
  });

  it('E7 P1 an account that is disabled, enabled, deleted', async () => {
    const account = await principal();
    const token = await makeFor(admin, account.id, ['companies:read']);
    expect(await everywhere(token)).toEqual(GOOD);
    await admin.post(`/service-accounts/${account.id}/disable`);
    const next = await makeFor(admin, account.id, ['companies:read']);
    expect([await everywhere(token), await everywhere(next)]).toEqual([DEAD, DEAD]);
    await admin.post(`/service-accounts/${account.id}/enable`);
    expect([await everywhere(token), await everywhere(next)]).toEqual([DEAD, GOOD]);
    expect(await statuses(admin, `/developer/service-principals/${account.id}/tokens`)).toEqual(['revoked', 'active']);
    await admin.delete(`/service-accounts/${account.id}`);
    expect(await everywhere(next)).toEqual(DEAD);
    const gone = await admin.get(`/developer/service-principals/${account.id}/tokens`);
    expect(code(gone)).toEqual([404, 'not_found']);
  });

  it('SC-07 what the account or the organization’s ceiling loses, it loses', async () => {
    const root = await service.signIn();
    const bounded = await root.createOrganization('Bounded');
    const owner = await join(root, 'owner@bounded.example');
    const account = await owner.createAccount('Narrowing', ['companies:read', 'companies:write']);
    const theirs = await makeFor(owner, account.id, ['companies:read', 'companies:write']);
    const own = await makeOwn(owner, ['companies:read', 'audit:read']);
    const create = async (name: string) => (await call(other, theirs, '/companies', 'POST', { name })).status;
    expect([await everywhere(theirs), await create('One')]).toEqual([GOOD, 201]);
    await owner.patch(`/service-accounts/${account.id}`, { scopes: ['companies:read'] });
    expect([await everywhere(theirs), await create('Two')]).toEqual([GOOD, 403]);
    await root.patch(`/organizations/${bounded.id}`, { scope_ceiling: ['companies:write'] });
    expect([await everywhere(theirs), await everywhere(own)]).toEqual([
      [403, 403],
      [403, 403],
    ]);
    expect(await everywhere(own, '/audit-events')).toEqual(GOOD);
  });

  it('D19 an organization that is disabled, and enabled: its own are dead, those beneath it live', async () => {
    const root = await service.signIn();
    const parent = await root.createOrganization('Parent');
    const owner = await join(root, 'owner@parent.example');
    const doomed = [
      await makeOwn(owner, ['companies:read']),
      await makeFor(owner, (await owner.createAccount('Principal')).id, ['companies:read']),
    ];
    await root.createOrganization('Child', { parent_id: parent.id });
    const below = await makeOwn(await join(root, 'owner@child.example'), ['companies:read']);
    for (const token of [...doomed, below]) expect(await everywhere(token)).toEqual(GOOD);
    for (const disabled of [true, false]) {
      await root.patch(`/organizations/${parent.id}`, { disabled });
      for (const token of doomed) expect(await everywhere(token)).toEqual(DEAD);
      expect(await everywhere(below)).toEqual(GOOD);
    }
  });

  it('Y2 its calls stand under the present name, on every instance', async () => {
    const ann = await somebody();
    const token = await makeOwn(ann, ['companies:write']);
    const nameAt = async (instance: TestService) => {
      const { json } = await call(instance, token, '/companies', 'POST', { name: 'Named' });
      return (await admin.get(`/audit-events?target_id=${json.id}`)).json.data[0].actor.name;
    };
    expect(await nameAt(other)).toMatch(/^somebody/);
    expect((await ann.patch('/users/me', { name: 'Ann the Second' })).status).toBe(200);
    expect([await nameAt(service), await nameAt(other)]).toEqual(['Ann the Second', 'Ann the Second']);
  });

  it('E7 a new password ends the person’s other sessions, not their tokens', async () => {
    const ann = await somebody();
    const token = await makeOwn(ann, ['companies:read']);
    expect((await ann.patch('/users/me', { password: 'another long password' })).status).toBe(200);
    expect(await everywhere(token)).toEqual(GOOD);
  });
});

describe('by itself', () => {
  it('SC-10 Y9 at its end, which the holder is told', async () => {
    const ann = await somebody();
    const token = await makeOwn(ann, ['companies:read']);
    const END = 30 * 24 * 60 * MINUTE;
    await at(service, END - MINUTE, async () => expect((await call(service, token)).status).toBe(200));
    await at(service, END + MINUTE, async () => {
      const late = await call(service, token);
      expect([late.status, late.headers['www-authenticate']]).toEqual([401, expect.stringContaining('expired')]);
    });
    expect(await statuses(ann)).toEqual(['active']);
  });

  it('P5 an instance that is blind says 503 at once, and asks the database for nothing', async () => {
    const token = await makeOwn(await somebody(), ['companies:read']);
    expect((await call(service, token)).status).toBe(200);
    for (const instance of [service, other]) {
      const view = instance.app.get(RevocationView);
      jest.spyOn(view, 'staleness').mockReturnValue('no news of revocations');
      const asked = await queriesDuring(async () => {
        expect(code(await call(instance, token))).toEqual([503, 'temporarily_unavailable']);
      });
      expect(asked).toEqual([]);
      jest.restoreAllMocks();
      expect((await call(instance, token)).status).toBe(200);
    }
  });

  it('P1 with the era', async () => {
    const ann = await somebody();
    const token = await makeOwn(ann, ['companies:read']);
    expect(await everywhere(token)).toEqual(GOOD);
    await service.database.query('UPDATE era SET era = era + 1');
    await until(
      async () => (await everywhere(token)).every((status) => status === 401),
      () => 'it outlived its era',
    );
    expect(await everywhere(await makeOwn(ann, ['companies:read']))).toEqual(GOOD);
    expect(await statuses(ann)).toEqual(['revoked', 'active']);
  });
});
