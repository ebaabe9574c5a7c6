import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Config } from '../../src/config/config.js';
import { PLATFORM_ORGANIZATION } from '../../src/kernel/actor.js';
import { MAX_ORGANIZATION_DEPTH } from '../../src/kernel/limits.js';
import { eventsOf } from '../support/oauth.js';
import { at, join, MINUTE, PASSWORD, startPatient, tokenOf } from '../support/people.js';
import { visible } from '../support/routes.js';
import { type Answer, bearer, type Session, TestService } from '../support/service.js';

const PARTNER = ['partner:orgs:read', 'partner:orgs:write', 'partner:users:write'];

let service: TestService;
let platform: Session;

beforeAll(async () => {
  service = await startPatient();
  platform = await service.signIn();
});
afterAll(() => service.stop());

const code = ({ status, json }: Answer) => [status, json?.code];

/** Somebody who calls `/api/v1/partner/orgs…`: a service account by its token, or a signed-in person. */
interface Partner {
  id: string;
  name: string;
  account: string;
  admin: Session & { userId: string };
  token: string;
  call(
    method: string,
    path?: string,
    body?: Record<string, unknown>,
    headers?: Record<string, string>,
  ): Promise<Answer>;
}

const asBearer =
  (token: string, of: TestService = service): Partner['call'] =>
  (method, path = '', body, headers = {}) =>
    of.request(method, `/api/v1/partner/orgs${path}`, { body, headers: { ...bearer(token), ...headers } });

/** An organization at the top with an account that holds the partner scopes. */
async function reseller(settings: Record<string, unknown> = {}, scopes = PARTNER): Promise<Partner> {
  const name = `Reseller ${randomUUID()}`;
  const here = await service.signIn();
  const { id } = await here.createOrganization(name, settings);
  const admin = await join(here, `admin@${id}.example`);
  const account = await admin.createAccount(`${name}’s bot`, scopes);
  const token = await tokenOf(service, account.credentials);
  return { id, name, account: account.id, admin, token, call: asBearer(token) };
}

async function child(of: Pick<Partner, 'call'>, settings: Record<string, unknown> = {}): Promise<string> {
  const made = await of.call('POST', '', { name: `Customer ${randomUUID()}`, ...settings });
  expect([made.status, made.text]).toEqual([201, made.text]);
  return made.json.id;
}

/** The first admin of an organization, appointed by its partner and signed in. */
async function appoint(of: Pick<Partner, 'call'>, id: string, role = 'admin'): Promise<Session & { userId: string }> {
  const email = `${randomUUID()}@customer.example`;
  const made = await of.call('POST', `/${id}/users`, { email, name: 'Boss', password: PASSWORD, role });
  expect([made.status, made.text]).toEqual([201, made.text]);
  return Object.assign(await service.signIn({ email, password: PASSWORD }), { userId: made.json.id as string });
}

const scopesOf = async (session: Session) => (await session.get('/session')).json.scopes as string[];
const idsOf = (answer: Answer) => answer.json.data.map(({ id }: { id: string }) => id) as string[];

describe('what stands beneath', () => {
  it('RL-08 a reseller makes so many and no more, also two at once; others go on', async () => {
    const [full, other] = [await reseller(), await reseller()];
    const config = service.app.get(Config);
    const most = config.MAX_ORGANIZATIONS_BENEATH;
    config.MAX_ORGANIZATIONS_BENEATH = 2;
    try {
      const first = await child(full);
      const asked = ['a', 'b', 'c'].map((name) => full.call('POST', '', { name, parent_id: first }));
      const answers = (await Promise.all(asked)).map(({ status, json }) => json.code ?? status);
      expect(answers.sort()).toEqual([201, 'limit_reached', 'limit_reached']);
      await child(other);
    } finally {
      config.MAX_ORGANIZATIONS_BENEATH = most;
    }
  });

  it('E3 made, listed, read, renamed; the parent is the caller’s own organization', async () => {
    const partner = await reseller();
    const made = await partner.call('POST', '', { name: 'Customer', scope_ceiling: ['companies:read'] });
    expect(made.status).toBe(201);
    expect(made.json).toEqual({
      id: expect.any(String),
      name: 'Customer',
      parent_id: partner.id,
      scope_ceiling: ['companies:read'],
      rate_limit: null,
      disabled: false,
      disabled_at: null,
      created_at: expect.any(String),
    });
    expect((await partner.call('GET', `/${made.json.id}`)).json).toEqual(made.json);
    expect((await partner.call('GET')).json).toEqual({ data: [made.json], next_cursor: null });
    const renamed = await partner.call('PATCH', `/${made.json.id}`, { name: 'Renamed' });
    expect([renamed.status, renamed.json]).toEqual([200, { ...made.json, name: 'Renamed' }]);
    expect((await partner.call('PATCH', `/${made.json.id}`, {})).json).toEqual(renamed.json);
    expect((await partner.admin.get('/partner/orgs')).json.data).toEqual([renamed.json]);
  });

  it('E3 the whole subtree and nothing else: own, parent, sibling, another reseller’s and the platform are as a random id is', async () => {
    const top = await reseller();
    const [middle, sibling] = [await child(top), await child(top)];
    const middleAdmin = await appoint(top, middle);
    const account = await middleAdmin.createAccount('Sub-reseller', PARTNER);
    const sub = { call: asBearer(await tokenOf(service, account.credentials)) };
    const low = await child(sub);
    const lowest = await child(sub, { parent_id: low });
    const other = await reseller();
    const theirs = await child(other);

    expect(idsOf(await top.call('GET'))).toEqual([middle, sibling, low, lowest]);
    expect(idsOf(await sub.call('GET'))).toEqual([low, lowest]);
    expect((await top.call('GET', `/${lowest}`)).json.parent_id).toBe(low);
    expect((await top.call('PATCH', `/${lowest}`, { name: 'From the very top' })).status).toBe(200);
    expect((await sub.call('GET', `/${lowest}`)).json.name).toBe('From the very top');

    const calls: [string, (id: string) => string, Record<string, unknown>?][] = [
      ['GET', (id) => `/${id}`],
      ['PATCH', (id) => `/${id}`, { name: 'Taken over' }],
      ['PATCH', (id) => `/${id}`, { disabled: true }],
      ['GET', (id) => `/${id}/users`],
      ['POST', (id) => `/${id}/users`, { email: `${randomUUID()}@x.example`, name: 'x', role: 'admin' }],
      ['GET', (id) => `/${id}/users/${middleAdmin.userId}`],
      ['PATCH', (id) => `/${id}/users/${middleAdmin.userId}`, { disabled: true }],
      ['DELETE', (id) => `/${id}/users/${middleAdmin.userId}`],
    ];
    for (const foreign of [middle, top.id, sibling, other.id, theirs, PLATFORM_ORGANIZATION]) {
      for (const [method, path, body] of calls) {
        const ask = (id: string) => sub.call(method, path(id), body);
        const [answer, random] = [await ask(foreign), await ask(randomUUID())];
        expect([method, path(foreign), ...code(answer)]).toEqual([method, path(foreign), 404, 'not_found']);
        expect(visible(answer)).toEqual(visible(random));
      }
      if (foreign === middle) continue; // one's own is a parent that may be named
      const beneath = (parent_id: string) => sub.call('POST', '', { name: 'Cuckoo', parent_id });
      const answer = await beneath(foreign);
      expect(code(answer)).toEqual([404, 'not_found']);
      expect(visible(answer)).toEqual(visible(await beneath(randomUUID())));
    }
    expect((await sub.call('POST', '', { name: 'Own', parent_id: middle })).json.parent_id).toBe(middle);
    expect(await scopesOf(middleAdmin)).toContain('admin:access');
  });

  it('E3 pages in one order, each once; found by name; no cursor of another partner’s or of another search', async () => {
    const [one, other] = [await reseller(), await reseller()];
    for (const partner of [one, other])
      for (const name of ['Alpha', 'beta 100%', 'Gamma', 'alphabet']) await child(partner, { name });
    const all = idsOf(await one.call('GET'));
    expect(all).toHaveLength(4);
    const seen: string[] = [];
    let cursor = '';
    do {
      const answer = await one.call('GET', `?limit=1${cursor && `&cursor=${cursor}`}`);
      seen.push(...idsOf(answer));
      cursor = answer.json.next_cursor;
    } while (cursor);
    expect(seen).toEqual(all);
    const named = async (search: string) =>
      (await one.call('GET', `?search=${encodeURIComponent(search)}`)).json.data.map(({ name }: Partner) => name);
    expect(await named('ALPHA')).toEqual(['Alpha', 'alphabet']);
    expect(await named('0%')).toEqual(['beta 100%']);
    expect(await named('%')).toEqual(['beta 100%']);
    expect(await named('_')).toEqual([]);
    const { next_cursor } = (await other.call('GET', '?limit=1')).json;
    const { next_cursor: searching } = (await one.call('GET', '?limit=1&search=alpha')).json;
    for (const foreign of [next_cursor, searching])
      expect(code(await one.call('GET', `?limit=1&cursor=${foreign}`))).toEqual([400, 'invalid_cursor']);
    const { next_cursor: people } = await pageOfUsers(one, all[0]);
    expect(code(await one.call('GET', `/${all[1]}/users?limit=1&cursor=${people}`))).toEqual([400, 'invalid_cursor']);
  });

  const pageOfUsers = async (partner: Partner, id: string) => {
    await appoint(partner, id);
    await appoint(partner, id);
    return (await partner.call('GET', `/${id}/users?limit=1`)).json;
  };

  it('TN-07 a name is refused among siblings alone: it tells nothing of another partner’s customers', async () => {
    const [one, other] = [await reseller(), await reseller()];
    const first = await child(one, { name: 'Same' });
    expect(code(await one.call('POST', '', { name: 'Same' }))).toEqual([409, 'name_taken']);
    await child(other, { name: 'Same' });
    await child(one, { name: 'Same', parent_id: first });
    const second = await child(one, { name: 'Different' });
    expect(code(await one.call('PATCH', `/${second}`, { name: 'Same' }))).toEqual([409, 'name_taken']);
    // At the top, where no parent tells them apart, too.
    expect(code(await platform.post('/organizations', { name: one.name }))).toEqual([409, 'name_taken']);
    expect(code(await platform.post('/organizations', { name: one.name, parent_id: PLATFORM_ORGANIZATION }))).toEqual([
      409,
      'name_taken',
    ]);
  });

  it('E3 each route wants its scope; people are shown to those who manage them', async () => {
    const partner = await reseller();
    const id = await child(partner);
    const { userId } = await appoint(partner, id);
    const person = { email: `${randomUUID()}@x.example`, name: 'x', role: 'auditor' };
    const calls: [string, string, string, Record<string, unknown>?][] = [
      ['partner:orgs:read', 'GET', ''],
      ['partner:orgs:read', 'GET', `/${id}`],
      ['partner:orgs:write', 'POST', '', { name: 'Another' }],
      ['partner:orgs:write', 'PATCH', `/${id}`, { name: 'Another name' }],
      ['partner:users:write', 'GET', `/${id}/users`],
      ['partner:users:write', 'POST', `/${id}/users`, person],
      ['partner:users:write', 'GET', `/${id}/users/${userId}`],
      ['partner:users:write', 'PATCH', `/${id}/users/${userId}`, { role: 'admin' }],
      ['partner:users:write', 'DELETE', `/${id}/users/${userId}`],
    ];
    const account = await partner.admin.createAccount('One scope each', [...PARTNER, 'admin:access', 'audit:read']);
    const holding = async (scopes: string[]) => {
      const answer = await service.token(
        { grant_type: 'client_credentials', scope: scopes.join(' ') },
        account.credentials,
      );
      return asBearer(answer.json.access_token);
    };
    for (const [scope, method, path, body] of calls) {
      const without = await holding([...PARTNER, 'admin:access', 'audit:read'].filter((one) => one !== scope));
      const refused = await without(method, path, body);
      expect([method, path, ...code(refused)]).toEqual([method, path, 403, 'insufficient_scope']);
      expect(refused.headers['www-authenticate']).toContain(`scope="${scope}"`);
      const answer = await (await holding([scope]))(method, path, body);
      expect([method, path, answer.status < 300 || answer.json.code]).toEqual([
        method,
        path,
        method === 'DELETE' ? 'last_admin' : true,
      ]);
    }
  });

  it('RL-08 no line is longer than its limit, whoever makes it', async () => {
    const partner = await reseller();
    let parent_id = partner.id;
    for (let height = 1; height < MAX_ORGANIZATION_DEPTH; height++) parent_id = await child(partner, { parent_id });
    for (const answer of [
      await partner.call('POST', '', { name: 'One more', parent_id }),
      await platform.post('/organizations', { name: 'One more', parent_id }),
    ])
      expect(code(answer)).toEqual([422, 'limit_reached']);
    // The one at the very end is bounded by the one at the top.
    const admin = await appoint(partner, parent_id);
    await platform.patch(`/organizations/${partner.id}`, { scope_ceiling: ['companies:read'] });
    expect(await scopesOf(admin)).toEqual(['admin:access', 'audit:read', 'companies:read']);
  });
});

describe('ceilings', () => {
  it('E3 a child’s lies within its parent’s: asking beyond is refused, for the platform’s admins too', async () => {
    const partner = await reseller({ scope_ceiling: [...PARTNER, 'companies:read'] });
    const beyond = async (answer: Answer) => expect(code(answer)).toEqual([422, 'scope_beyond_ceiling']);
    const id = await child(partner, { scope_ceiling: ['companies:read', 'partner:orgs:read'] });
    for (const scope_ceiling of [['companies:write'], ['companies:read', 'audit:read'], ['admin:access']]) {
      await beyond(await partner.call('POST', '', { name: 'x', scope_ceiling }));
      await beyond(await partner.call('PATCH', `/${id}`, { scope_ceiling }));
      await beyond(await platform.post('/organizations', { name: 'x', parent_id: partner.id, scope_ceiling }));
      await beyond(await platform.patch(`/organizations/${id}`, { scope_ceiling }));
    }
    // Beneath the child it is the child's that counts.
    await beyond(await partner.call('POST', '', { name: 'x', parent_id: id, scope_ceiling: ['partner:orgs:write'] }));
    const unbounded = await child(partner);
    await beyond(
      await partner.call('POST', '', { name: 'x', parent_id: unbounded, scope_ceiling: ['companies:write'] }),
    );
    for (const scope_ceiling of [['platform:admin'], ['companies:read', 'platform:anything']]) {
      await beyond(await partner.call('POST', '', { name: 'x', scope_ceiling }));
      await beyond(await partner.call('PATCH', `/${id}`, { scope_ceiling }));
    }
    expect(code(await partner.call('POST', '', { name: 'x', scope_ceiling: ['no:such'] }))).toEqual([
      422,
      'scope_unknown',
    ]);
    expect((await partner.call('GET', `/${id}`)).json.scope_ceiling).toEqual(['companies:read', 'partner:orgs:read']);
    const none = await partner.call('PATCH', `/${id}`, { scope_ceiling: [] });
    expect([none.status, none.json.scope_ceiling]).toEqual([200, []]);
  });

  it('E3 a child without a ceiling of its own has what its parent may have, and no more', async () => {
    const partner = await reseller({ scope_ceiling: [...PARTNER, 'companies:read'] });
    const id = await child(partner, { scope_ceiling: null });
    const admin = await appoint(partner, id);
    const bounded = ['admin:access', 'audit:read', 'companies:read', ...PARTNER];
    expect(await scopesOf(admin)).toEqual(bounded);
    expect(code(await admin.post('/service-accounts', { name: 'Beyond', scopes: ['companies:write'] }))).toEqual([
      422,
      'scope_beyond_ceiling',
    ]);
    // Whoever administers there holds all that the role stands for there, and so may appoint another.
    const second = { email: `${randomUUID()}@x.example`, name: 'Second', role: 'admin' };
    expect((await admin.post('/users', second)).status).toBe(201);
    // Nor does taking the child's own away, from either side, give it more.
    await partner.call('PATCH', `/${id}`, { scope_ceiling: ['companies:read'] });
    await partner.call('PATCH', `/${id}`, { scope_ceiling: null });
    await platform.patch(`/organizations/${id}`, { scope_ceiling: null });
    expect(await scopesOf(admin)).toEqual(bounded);
  });

  it('D8 narrowing a parent later bounds all beneath at once, on every instance; widening gives back what was theirs, no more', async () => {
    const twin = await TestService.start({ REVOCATION_BOUND_MS: '10000' }, service.database);
    try {
      const partner = await reseller();
      const middle = await child(partner);
      const id = await child(partner, { parent_id: middle, scope_ceiling: ['companies:read', 'companies:write'] });
      const admin = await appoint(partner, id);
      const account = await admin.createAccount('Worker', ['companies:read', 'companies:write']);
      const token = await tokenOf(service, account.credentials);
      const reads = () =>
        Promise.all(
          [service, twin].map(
            async (instance) => (await instance.request('GET', '/companies', { headers: bearer(token) })).status,
          ),
        );
      const granted = async (instance: TestService) =>
        (await instance.token({ grant_type: 'client_credentials' }, account.credentials)).json.scope;
      expect(await reads()).toEqual([200, 200]); // both have it in memory now

      await platform.patch(`/organizations/${partner.id}`, { scope_ceiling: [...PARTNER, 'companies:write'] });
      expect(await reads()).toEqual([403, 403]);
      expect([await granted(twin), await granted(service)]).toEqual(['companies:write', 'companies:write']);
      expect(await scopesOf(admin)).toEqual(['admin:access', 'audit:read', 'companies:write']);
      expect((await partner.call('GET', `/${id}`)).json.scope_ceiling).toEqual(['companies:read', 'companies:write']);

      // In the middle of the line as well, by the partner itself.
      await platform.patch(`/organizations/${partner.id}`, { scope_ceiling: null });
      expect(await reads()).toEqual([200, 200]);
      expect((await partner.call('PATCH', `/${middle}`, { scope_ceiling: [] })).status).toBe(200);
      expect(await reads()).toEqual([403, 403]);
      expect(await scopesOf(admin)).toEqual(['admin:access', 'audit:read']);
      await partner.call('PATCH', `/${middle}`, { scope_ceiling: null });
      expect(await reads()).toEqual([200, 200]);
      expect(await scopesOf(admin)).toEqual(['admin:access', 'audit:read', 'companies:read', 'companies:write']);
    } finally {
      await twin.stop();
    }
  });

  it('D8 a partner whose own organization is narrowed loses the Partner API, and so do those beneath', async () => {
    const partner = await reseller();
    const middle = await child(partner);
    const boss = await appoint(partner, middle);
    const account = await boss.createAccount('Sub-reseller', PARTNER);
    const sub = { call: asBearer(await tokenOf(service, account.credentials)) };
    const low = await child(sub);
    await platform.patch(`/organizations/${partner.id}`, { scope_ceiling: ['partner:orgs:read'] });
    for (const { call } of [partner, sub]) {
      expect((await call('GET', `/${low}`)).status).toBe(200);
      expect(code(await call('PATCH', `/${low}`, { name: 'x' }))).toEqual([403, 'insufficient_scope']);
      expect(code(await call('GET', `/${low}/users`))).toEqual([403, 'insufficient_scope']);
    }
    expect(code(await boss.post('/partner/orgs', { name: 'x' }))).toEqual([403, 'insufficient_scope']);
  });
});

describe('people', () => {
  it('E3 added, listed, read, changed, removed; in that organization alone', async () => {
    const partner = await reseller();
    const id = await child(partner);
    const body = { email: 'Clerk@Customer.example', name: 'Clerk', password: PASSWORD, role: 'auditor' };
    const made = await partner.call('POST', `/${id}/users`, body);
    expect([made.status, made.json]).toEqual([
      201,
      {
        id: expect.any(String),
        email: 'clerk@customer.example',
        name: 'Clerk',
        role: 'auditor',
        status: 'active',
        created_at: expect.any(String),
      },
    ]);
    const path = `/${id}/users/${made.json.id}`;
    expect((await partner.call('GET', path)).json).toEqual(made.json);
    expect((await partner.call('GET', `/${id}/users`)).json).toEqual({ data: [made.json], next_cursor: null });
    expect(code(await partner.call('POST', `/${id}/users`, body))).toEqual([409, 'already_member']);
    const session = await service.signIn({ email: 'clerk@customer.example', password: PASSWORD });
    expect((await session.get('/session')).json.organization.id).toBe(id);
    expect((await partner.call('PATCH', path, { role: 'admin' })).json).toMatchObject({ role: 'admin' });
    expect((await session.get('/users')).json.data).toHaveLength(1);
    expect((await partner.admin.get('/users')).text).not.toContain(made.json.id);

    await appoint(partner, id); // so that an admin is left
    expect((await partner.call('PATCH', path, { disabled: true })).json.status).toBe('disabled');
    expect((await session.get('/session')).status).toBe(401);
    expect((await partner.call('PATCH', path, { disabled: false })).json.status).toBe('active');
    const again = await service.signIn({ email: 'clerk@customer.example', password: PASSWORD });
    expect((await partner.call('DELETE', path)).status).toBe(204);
    expect((await again.get('/session')).status).toBe(401);
    for (const method of ['GET', 'DELETE']) expect(code(await partner.call(method, path))).toEqual([404, 'not_found']);
  });

  it('E3 an e-mail that exists is invited, not overwritten; nobody’s password is set but at creation', async () => {
    const [partner, other] = [await reseller(), await reseller()];
    const [id, theirs] = [await child(partner), await child(other)];
    const victim = await appoint(other, theirs);
    const { email } = (await victim.get('/users/me')).json;
    const invited = await partner.call('POST', `/${id}/users`, {
      email,
      name: 'Owned',
      password: 'the attackers password',
      role: 'admin',
    });
    expect([invited.status, invited.json]).toEqual([
      201,
      expect.objectContaining({ name: null, status: 'invited', role: 'admin' }),
    ]);
    expect((await victim.get('/users/me')).json.name).toBe('Boss');
    const wrong = { body: { email, password: 'the attackers password' } };
    expect((await service.request('POST', '/api/v1/session', wrong)).status).toBe(401);
    for (const body of [{ password: 'taken over by another' }, { name: 'Renamed' }, { email: 'other@x.example' }])
      expect(code(await partner.call('PATCH', `/${id}/users/${invited.json.id}`, body))).toEqual([
        400,
        'validation_failed',
      ]);
    // Ending the invitation does not touch what they are elsewhere.
    expect((await partner.call('DELETE', `/${id}/users/${invited.json.id}`)).status).toBe(204);
    expect((await victim.get('/session')).json).toMatchObject({ role: 'admin', organization: { id: theirs } });
  });

  it('E3 admin and auditor only: platform_admin is never granted this way, whoever asks', async () => {
    const partner = await reseller();
    const id = await child(partner);
    const { userId } = await appoint(partner, id);
    const root = await service.signIn();
    const operator = await root.createAccount(`Operator ${randomUUID()}`, [...PARTNER, 'platform:admin']);
    const strong = asBearer(await tokenOf(service, operator.credentials));
    for (const call of [partner.call, strong]) {
      for (const role of ['platform_admin', 'owner', null]) {
        const person = { email: `${randomUUID()}@x.example`, name: 'Up', role };
        expect(code(await call('POST', `/${id}/users`, person))).toEqual([400, 'validation_failed']);
        expect(code(await call('PATCH', `/${id}/users/${userId}`, { role }))).toEqual([400, 'validation_failed']);
      }
      // Not even where the role stands.
      const person = { email: `${randomUUID()}@x.example`, name: 'Up', role: 'admin' };
      expect(code(await call('POST', `/${PLATFORM_ORGANIZATION}/users`, person))).toEqual([404, 'not_found']);
    }
    const [{ count }] = await service.database.query<{ count: string }>(
      `SELECT count(*) FROM membership WHERE role = 'platform_admin'`,
    );
    expect(Number(count)).toBe(1);
  });

  it('E3 the last admin stays; an organization without one gets its first', async () => {
    const partner = await reseller();
    const id = await child(partner);
    const auditor = await appoint(partner, id, 'auditor');
    const only = await appoint(partner, id);
    const path = `/${id}/users/${only.userId}`;
    for (const [method, body] of [['DELETE'], ['PATCH', { role: 'auditor' }], ['PATCH', { disabled: true }]] as const)
      expect(code(await partner.call(method, path, body))).toEqual([409, 'last_admin']);
    expect((await partner.call('PATCH', `/${id}/users/${auditor.userId}`, { role: 'admin' })).status).toBe(200);
    expect((await partner.call('DELETE', path)).status).toBe(204);
  });

  it('E3 the right reaches beneath, not into the caller’s own organization', async () => {
    // It holds no admin:access: in its own organization this would make somebody who holds more than it does.
    const partner = await reseller();
    const person = { email: `${randomUUID()}@x.example`, name: 'x', password: PASSWORD, role: 'admin' };
    expect(code(await partner.call('POST', `/${partner.id}/users`, person))).toEqual([404, 'not_found']);
    expect(code(await partner.call('GET', `/${partner.id}/users`))).toEqual([404, 'not_found']);
    const own = await service.request('POST', '/api/v1/users', { body: person, headers: bearer(partner.token) });
    expect(code(own)).toEqual([403, 'insufficient_scope']);
  });

  it('E3 LG-13 a person of the reseller’s does it by session, and proves anew who they are for what touches people', async () => {
    const { admin } = await reseller();
    const id = await child({ call: (method, path = '', body) => admin.call(method, `/partner/orgs${path}`, body) });
    const person = { email: `${randomUUID()}@x.example`, name: 'x', role: 'admin' };
    await at(service, 11 * MINUTE, async () => {
      expect(code(await admin.post(`/partner/orgs/${id}/users`, person))).toEqual([403, 'reauthentication_required']);
      expect((await admin.get(`/partner/orgs/${id}/users`)).status).toBe(200);
    });
    expect((await admin.post(`/partner/orgs/${id}/users`, person)).status).toBe(201);
    const auditor = await join(admin, `${randomUUID()}@x.example`, 'auditor');
    expect(code(await auditor.get('/partner/orgs'))).toEqual([403, 'insufficient_scope']);
  });
});

describe('disabling', () => {
  const worker = async (admin: Session) => {
    const account = await admin.createAccount('Worker', ['companies:read']);
    const token = await tokenOf(service, account.credentials);
    return async () => (await service.request('GET', '/companies', { headers: bearer(token) })).status;
  };

  it('D19 a child’s tokens and sessions end before the call returns, not those beneath it', async () => {
    const twin = await TestService.start({ REVOCATION_BOUND_MS: '10000' }, service.database);
    try {
      const partner = await reseller();
      const id = await child(partner);
      const low = await child(partner, { parent_id: id });
      const [boss, lower] = [await appoint(partner, id), await appoint(partner, low)];
      const account = await boss.createAccount('Worker', ['companies:read']);
      const token = await tokenOf(service, account.credentials);
      const status = async (instance: TestService) =>
        (await instance.request('GET', '/companies', { headers: bearer(token) })).status;
      const lowWorks = await worker(lower);
      expect([await status(service), await status(twin), await lowWorks()]).toEqual([200, 200, 200]);
      const disabled = await partner.call('PATCH', `/${id}`, { disabled: true });
      expect([disabled.status, disabled.json.disabled]).toEqual([200, true]);
      expect([await status(twin), await status(service), await lowWorks()]).toEqual([401, 401, 200]);
      expect([(await boss.get('/session')).status, (await lower.get('/session')).status]).toEqual([401, 200]);
      // It goes on being managed.
      expect((await partner.call('GET', `/${id}/users`)).json.data).toHaveLength(1);
      expect((await partner.call('PATCH', `/${id}`, { disabled: false })).json.disabled).toBe(false);
      expect(await status(service)).toBe(401);
    } finally {
      await twin.stop();
    }
  });

  it('D19 disabling the reseller disables none of its customers, and its account manages nothing', async () => {
    const partner = await reseller();
    const id = await child(partner);
    const boss = await appoint(partner, id);
    const works = await worker(boss);
    await platform.patch(`/organizations/${partner.id}`, { disabled: true });
    expect(code(await partner.call('GET'))).toEqual([401, 'invalid_token']);
    expect(code(await partner.call('PATCH', `/${id}`, { disabled: true }))).toEqual([401, 'invalid_token']);
    expect((await partner.admin.get('/partner/orgs')).status).toBe(401);
    expect([await works(), (await boss.get('/session')).status]).toEqual([200, 200]);
  });

  it('E3 what somebody further up disabled is enabled from there', async () => {
    const partner = await reseller();
    const middle = await child(partner);
    const account = await (await appoint(partner, middle)).createAccount('Sub-reseller', PARTNER);
    const sub = { call: asBearer(await tokenOf(service, account.credentials)) };
    const id = await child(sub);
    const set = async (by: 'platform' | Partner['call'], disabled: boolean) => {
      const answer =
        by === 'platform'
          ? await platform.patch(`/organizations/${id}`, { disabled })
          : await by('PATCH', `/${id}`, { disabled });
      return answer.status === 200 ? answer.json.disabled : code(answer);
    };
    const refused = [409, 'disabled_from_above'];
    expect(await set('platform', true)).toBe(true);
    expect(await set(partner.call, false)).toEqual(refused);
    expect(await set(sub.call, true)).toBe(true); // as it is already: this takes nothing over
    expect(await set(sub.call, false)).toEqual(refused);
    expect(await set('platform', false)).toBe(false);

    expect(await set(sub.call, true)).toBe(true);
    expect(await set(partner.call, true)).toBe(true); // now it is the partner's doing
    expect(await set(sub.call, false)).toEqual(refused);
    expect(await set(partner.call, false)).toBe(false);

    expect(await set(sub.call, true)).toBe(true);
    expect(await set(partner.call, false)).toBe(false);
    expect(await set(sub.call, true)).toBe(true);
    expect(await set(sub.call, false)).toBe(false);
    // Its name and people are the partner's business all the while.
    await set('platform', true);
    expect((await sub.call('PATCH', `/${id}`, { name: 'Renamed while disabled' })).json.disabled).toBe(true);
  });
});

describe('for the platform', () => {
  it('E5 its own organization’s accounts reach every organization but the platform’s own', async () => {
    const root = await service.signIn();
    const account = await root.createAccount(`Cross ${randomUUID()}`, PARTNER);
    const call = asBearer(await tokenOf(service, account.credentials));
    const partner = await reseller();
    const id = await child(partner);
    const all = idsOf(await call('GET', '?limit=200'));
    expect(all).toEqual(expect.arrayContaining([partner.id, id]));
    expect(all).not.toContain(PLATFORM_ORGANIZATION);
    for (const [method, body] of [['GET'], ['PATCH', { name: 'Renamed' }]] as const)
      expect(code(await call(method, `/${PLATFORM_ORGANIZATION}`, body))).toEqual([404, 'not_found']);
    const made = await call('POST', '', { name: `At the top ${randomUUID()}` });
    expect([made.status, made.json.parent_id]).toEqual([201, null]);
    expect(await child({ call }, { parent_id: id })).toEqual(expect.any(String));
    expect((await call('PATCH', `/${partner.id}`, { scope_ceiling: PARTNER })).status).toBe(200);
    expect((await call('PATCH', `/${partner.id}`, { disabled: true })).status).toBe(200);
    expect(code(await partner.call('GET'))).toEqual([401, 'invalid_token']);
    expect(code(await partner.call('GET', `/${made.json.id}`))).toEqual([401, 'invalid_token']);
  });

  it('CONTRACT §8 X-Organization-Id: the organization named counts as the caller’s own', async () => {
    const root = await service.signIn();
    const operator = await root.createAccount(`Operator ${randomUUID()}`, [...PARTNER, 'platform:admin']);
    const call = asBearer(await tokenOf(service, operator.credentials));
    const [partner, other] = [await reseller(), await reseller()];
    const theirs = await child(other);
    const named = { 'x-organization-id': partner.id };
    const made = await call('POST', '', { name: 'On behalf' }, named);
    expect([made.status, made.json.parent_id]).toEqual([201, partner.id]);
    expect(idsOf(await call('GET', '', undefined, named))).toEqual([made.json.id]);
    expect(code(await call('GET', `/${theirs}`, undefined, named))).toEqual([404, 'not_found']);
    expect((await call('GET', `/${theirs}`)).status).toBe(200);
    expect(code(await other.call('GET', '', undefined, named))).toEqual([403, 'insufficient_scope']);
  });
});

describe('what is recorded', () => {
  it('E3 Y2 one event each, by the account’s name: organizations in the reseller’s log, people in the child’s', async () => {
    const partner = await reseller();
    const id = await child(partner, { name: 'Recorded' });
    const boss = await appoint(partner, id);
    const target = { type: 'organization', id, name: 'Recorded' };
    const actor = { type: 'service_account', id: partner.account, name: `${partner.name}’s bot` };
    await partner.call('PATCH', `/${id}`, { scope_ceiling: [] });
    await partner.call('PATCH', `/${id}`, { disabled: true });
    await partner.call('PATCH', `/${id}`, { disabled: false });
    const log = (await partner.admin.get(`/audit-events?target_id=${id}`)).json.data;
    expect(log.map(({ action }: { action: string }) => action)).toEqual([
      'organization.enabled',
      'organization.disabled',
      'organization.updated',
      'organization.created',
    ]);
    for (const event of log) expect(event).toMatchObject({ actor, targets: [target], token_id: expect.any(String) });
    expect(log[2].changes).toEqual({ scope_ceiling: { from: null, to: [] } });
    expect(log[3].changes).toEqual({
      scope_ceiling: { to: null },
      parent_id: { to: partner.id },
      rate_limit: { to: null },
    });

    const back = await service.signIn({ email: (await emailOf(boss.userId)) as string, password: PASSWORD });
    const [appointed] = (await back.get('/audit-events?action=user.created')).json.data;
    expect(appointed).toMatchObject({ actor, targets: [{ type: 'user', id: boss.userId, name: 'Boss' }] });
    expect((await partner.admin.get(`/audit-events?target_id=${boss.userId}`)).json.data).toEqual([]);
    const [stored] = await eventsOf(service, 'user.created');
    expect(stored.organization_id).toBe(id);
  });

  const emailOf = async (id: string) =>
    (await service.database.query<{ email: string }>('SELECT email FROM "user" WHERE id = $1', [id]))[0].email;

  it('SC-02 a POST that is repeated under its Idempotency-Key makes nothing again', async () => {
    const partner = await reseller();
    const key = { 'idempotency-key': randomUUID() };
    const first = await partner.call('POST', '', { name: 'Once' }, key);
    const again = await partner.call('POST', '', { name: 'Once' }, key);
    expect([again.status, again.headers['idempotent-replayed'], again.json]).toEqual([201, 'true', first.json]);
    const person = { email: `${randomUUID()}@x.example`, name: 'x', role: 'admin' };
    const users = `/${first.json.id}/users`;
    const made = await partner.call('POST', users, person, key);
    const repeated = await partner.call('POST', users, person, key);
    expect([repeated.status, repeated.headers['idempotent-replayed'], repeated.json]).toEqual([201, 'true', made.json]);
    expect((await partner.call('GET')).json.data).toHaveLength(1);
    expect((await partner.call('GET', users)).json.data).toHaveLength(1);
  });
});
