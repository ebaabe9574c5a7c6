import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Passwords } from '../../src/organizations/passwords.js';
import { join, PASSWORD, startPatient, tokenOf } from '../support/people.js';
import { ADMIN, type Answer, bearer, type Session, type TestService } from '../support/service.js';

let service: TestService;
let platform: Session;
let organization: { id: string };
let admin: Session & { userId: string };

beforeAll(async () => {
  service = await startPatient();
  platform = await service.signIn();
  organization = await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
});
afterAll(() => service.stop());

const code = ({ status, json }: Answer) => [status, json?.code];
const turned = async (id: string) => {
  const session = await service.signIn();
  await session.patch('/session', { organization_id: id });
  return session;
};
const signInStatus = async (email: string, password: string) =>
  (await service.request('POST', '/api/v1/session', { body: { email, password } })).status;

describe('who may set whose password', () => {
  it('CONTRACT §8: at creation, and by oneself; nobody sets it later for another', async () => {
    const made = await admin.post('/users', {
      email: 'own@acme.example',
      name: 'Own',
      password: PASSWORD,
      role: 'auditor',
    });
    expect(made.json).toEqual({
      id: expect.any(String),
      email: 'own@acme.example',
      name: 'Own',
      role: 'auditor',
      status: 'active',
      created_at: expect.any(String),
    });
    for (const session of [admin, platform]) {
      for (const body of [{ password: 'taken over by another' }, { name: 'Renamed' }, { email: 'other@acme.example' }])
        expect(code(await session.patch(`/users/${made.json.id}`, body))).toEqual([400, 'validation_failed']);
    }
    expect(await signInStatus('own@acme.example', PASSWORD)).toBe(201);

    const own = await service.signIn({ email: 'own@acme.example', password: PASSWORD });
    const other = await service.signIn({ email: 'own@acme.example', password: PASSWORD });
    const changed = await own.patch('/users/me', { password: 'a password of my own' });
    expect(changed.status).toBe(200);
    expect((await own.get('/session')).status).toBe(200);
    expect((await other.get('/session')).status).toBe(401);
    expect(await signInStatus('own@acme.example', PASSWORD)).toBe(401);
    expect(await signInStatus('own@acme.example', 'a password of my own')).toBe(201);
  });

  it('CONTRACT §8: without a password nobody signs in', async () => {
    const made = await admin.post('/users', { email: 'no@acme.example', name: 'No', role: 'auditor' });
    expect(made.status).toBe(201);
    for (const password of ['', 'null', 'undefined', PASSWORD])
      expect(await signInStatus('no@acme.example', password)).toBe(401);
  });

  it('LG-14 a machine has no self, and sets no password of anybody’s', async () => {
    const account = await admin.createAccount('Robot', ['admin:access']);
    const headers = bearer(await tokenOf(service, account.credentials));
    const answer = await service.request('PATCH', '/api/v1/users/me', { body: { password: PASSWORD }, headers });
    expect(code(answer)).toEqual([403, 'session_required']);
  });
});

describe('invitations', () => {
  it('CONTRACT §8: an e-mail that exists is invited: name, password and other memberships untouched', async () => {
    const victim = await join(admin, 'known@acme.example', 'auditor');
    const elsewhere = await turned((await platform.post('/organizations', { name: 'Attacker Inc' })).json.id);
    const attacker = await join(elsewhere, 'attacker@inc.example');
    const body = { email: ' KNOWN@acme.example ', name: 'Owned', password: 'the attackers password', role: 'admin' };
    const invited = await attacker.post('/users', body);
    expect(invited.status).toBe(201);
    expect(invited.json).toMatchObject({ email: 'known@acme.example', name: null, role: 'admin', status: 'invited' });
    expect(await signInStatus('known@acme.example', 'the attackers password')).toBe(401);
    expect((await victim.get('/users/me')).json).toMatchObject({ name: 'known', email: 'known@acme.example' });
    expect((await victim.get('/session')).json).toMatchObject({
      role: 'auditor',
      organization: { id: organization.id },
    });
    expect(code(await attacker.post('/users', body))).toEqual([409, 'already_member']);

    const mine = (await victim.get('/session')).json.organizations;
    expect(mine.map(({ name, status }: { name: string; status: string }) => [name, status])).toEqual([
      ['Acme', 'active'],
      ['Attacker Inc', 'invited'],
    ]);
    // Only the person accepts, by turning to it; from then on the organization knows their name.
    const joined = await victim.patch('/session', { organization_id: mine[1].id });
    expect([joined.status, joined.json.role]).toEqual([200, 'admin']);
    expect((await attacker.get(`/users/${victim.userId}`)).json).toMatchObject({ name: 'known', status: 'active' });
  });

  it('CONTRACT §8: an admin who is invited only does not count as one', async () => {
    const here = await turned((await platform.post('/organizations', { name: 'Lonely' })).json.id);
    const only = await join(here, 'only@lonely.example');
    await only.post('/users', { email: 'known@acme.example', name: 'x', role: 'admin' });
    expect(code(await only.delete(`/users/${only.userId}`))).toEqual([409, 'last_admin']);
  });
});

describe('who may grant what', () => {
  it('CONTRACT §8: platform_admin stands in the platform’s own organization alone', async () => {
    for (const session of [admin, await turned(organization.id)]) {
      const made = await session.post('/users', { email: 'up@acme.example', name: 'Up', role: 'platform_admin' });
      expect(code(made)).toEqual([400, 'validation_failed']);
    }
    expect(code(await admin.patch(`/users/${admin.userId}`, { role: 'platform_admin' }))).toEqual([
      400,
      'validation_failed',
    ]);
    const root = await service.signIn();
    const made = await root.post('/users', {
      email: 'root2@example.com',
      name: 'Root',
      password: PASSWORD,
      role: 'platform_admin',
    });
    expect(made.status).toBe(201);
    const second = await service.signIn({ email: 'root2@example.com', password: PASSWORD });
    expect((await second.get('/organizations')).status).toBe(200);
  });

  it('CONTRACT §8: an auditor reads the log and nothing else', async () => {
    const auditor = await join(admin, 'auditor@acme.example', 'auditor');
    expect((await auditor.get('/session')).json.scopes).toEqual(['audit:read']);
    expect((await auditor.get('/audit-events')).status).toBe(200);
    for (const [method, path] of [
      ['GET', '/users'],
      ['POST', '/users'],
      ['PATCH', `/users/${auditor.userId}`],
      ['GET', '/service-accounts'],
      ['POST', '/service-accounts'],
      ['GET', '/companies'],
      ['GET', '/organizations'],
    ])
      expect(`${method} ${path} ${code(await auditor.call(method, path, method === 'GET' ? undefined : {}))}`).toBe(
        `${method} ${path} 403,insufficient_scope`,
      );
  });

  it('BR-14 a token with admin:access makes nobody an admin who would hold more than it does', async () => {
    const account = await admin.createAccount('Provisioner', ['admin:access', 'audit:read']);
    const headers = bearer(await tokenOf(service, account.credentials));
    const call = (method: string, path: string, body: Record<string, unknown>) =>
      service.request(method, `/api/v1${path}`, { body, headers });
    const auditor = await call('POST', '/users', { email: 'made@acme.example', name: 'Made', role: 'auditor' });
    expect(auditor.status).toBe(201);
    const boss = { email: 'boss@acme.example', name: 'Boss', password: PASSWORD, role: 'admin' };
    const passwords = service.app.get(Passwords);
    const before = passwords.computations;
    expect(code(await call('POST', '/users', boss))).toEqual([403, 'scope_not_held']);
    expect(passwords.computations).toBe(before); // who may not make anybody keeps nobody from signing in
    expect(code(await call('PATCH', `/users/${auditor.json.id}`, { role: 'admin' }))).toEqual([403, 'scope_not_held']);
    expect(code(await call('PATCH', `/users/${admin.userId}`, { disabled: true }))).toEqual([403, 'scope_not_held']);
    expect(code(await call('DELETE', `/users/${admin.userId}`, {}))).toEqual([403, 'scope_not_held']);
    expect(await signInStatus('boss@acme.example', PASSWORD)).toBe(401);
  });
});

describe('the end of a membership', () => {
  it('TN-11 a role that is reduced holds from the next call on', async () => {
    const person = await join(admin, 'demoted@acme.example', 'admin');
    expect((await person.get('/service-accounts')).status).toBe(200);
    expect((await admin.patch(`/users/${person.userId}`, { role: 'auditor' })).json.role).toBe('auditor');
    expect(code(await person.get('/service-accounts'))).toEqual([403, 'insufficient_scope']);
    expect((await person.get('/session')).json.scopes).toEqual(['audit:read']);
  });

  it('TN-11 disabled: out at once, and enabling brings no session back', async () => {
    const person = await join(admin, 'off@acme.example', 'admin');
    expect((await admin.patch(`/users/${person.userId}`, { disabled: true })).json.status).toBe('disabled');
    expect((await person.get('/session')).status).toBe(401);
    expect(await signInStatus('off@acme.example', PASSWORD)).toBe(401);
    expect((await admin.patch(`/users/${person.userId}`, { disabled: false })).json.status).toBe('active');
    expect((await person.get('/session')).status).toBe(401);
    expect(await signInStatus('off@acme.example', PASSWORD)).toBe(201);
  });

  it('CONTRACT §8: DELETE ends the membership; the person, their other memberships and their events stay', async () => {
    const person = await join(admin, 'leaver@acme.example', 'admin');
    await person.post('/companies', { name: 'Made by a leaver' });
    const other = await turned((await platform.post('/organizations', { name: 'Haven' })).json.id);
    await other.post('/users', { email: 'leaver@acme.example', name: 'x', role: 'auditor' });
    const away = await service.signIn({ email: 'leaver@acme.example', password: PASSWORD });
    await away.patch('/session', { organization_id: (await other.get('/session')).json.organization.id });

    expect((await admin.delete(`/users/${person.userId}`)).status).toBe(204);
    expect((await person.get('/session')).status).toBe(401);
    expect((await away.get('/session')).json).toMatchObject({ role: 'auditor', organization: { name: 'Haven' } });
    expect(code(await admin.get(`/users/${person.userId}`))).toEqual([404, 'not_found']);
    expect(code(await admin.delete(`/users/${person.userId}`))).toEqual([404, 'not_found']);
    expect(code(await away.patch('/session', { organization_id: organization.id }))).toEqual([404, 'not_found']);
    const events = (await admin.get('/audit-events?actor_name=leaver&action=company.created')).json.data;
    expect(events[0].actor).toMatchObject({ id: person.userId, name: 'leaver' });
    const back = await admin.post('/users', { email: 'leaver@acme.example', name: 'y', role: 'auditor' });
    expect(back.json).toMatchObject({ id: person.userId, status: 'invited', role: 'auditor' });
  });

  it('CONTRACT §8: the last admin stays, also against two at once who end one another', async () => {
    const here = await turned((await platform.post('/organizations', { name: 'Duel' })).json.id);
    const one = await join(here, 'one@duel.example');
    for (const change of [{ role: 'auditor' }, { disabled: true }])
      expect(code(await one.patch(`/users/${one.userId}`, change))).toEqual([409, 'last_admin']);
    expect(code(await one.delete(`/users/${one.userId}`))).toEqual([409, 'last_admin']);
    const two = await join(here, 'two@duel.example');
    const statuses = await Promise.all([one.delete(`/users/${two.userId}`), two.delete(`/users/${one.userId}`)]);
    expect(statuses.filter(({ status }) => status === 204)).toHaveLength(1);
    const left = (await here.get('/users')).json.data;
    expect(left).toHaveLength(1);
    expect(left[0]).toMatchObject({ role: 'admin', status: 'active' });
  });

  it('LG-10 the platform admin’s own last membership cannot be ended either', async () => {
    const root = await service.signIn();
    const { user } = (await root.get('/session')).json;
    await service.database.query(
      `UPDATE membership SET disabled_at = now() WHERE role = 'platform_admin' AND user_id <> $1`,
      [user.id],
    );
    expect(code(await root.delete(`/users/${user.id}`))).toEqual([409, 'last_admin']);
    expect(await signInStatus(ADMIN.email, ADMIN.password)).toBe(201);
  });

  it('CONTRACT §8: members are paged in one order, each once', async () => {
    const all = (await admin.get('/users?limit=200')).json.data.map(({ id }: { id: string }) => id);
    expect(all.length).toBeGreaterThan(4);
    const seen: string[] = [];
    for (let cursor = ''; ; ) {
      const answer = await admin.get(`/users?limit=2${cursor}`);
      seen.push(...answer.json.data.map(({ id }: { id: string }) => id));
      if (answer.json.next_cursor === null) break;
      cursor = `&cursor=${answer.json.next_cursor}`;
    }
    expect(seen).toEqual(all);
    for (const limit of ['0', '201', '-1', '1.5', 'x', ''])
      expect(code(await admin.get(`/users?limit=${limit}`))).toEqual([400, 'validation_failed']);
    expect(code(await admin.get(`/users/${randomUUID()}`))).toEqual([404, 'not_found']);
  });
});
