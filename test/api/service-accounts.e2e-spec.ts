import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { join, startPatient, tokenOf } from '../support/people.js';
import { type Answer, bearer, type Session, type TestService } from '../support/service.js';

let service: TestService;
let platform: Session;
let admin: Session & { userId: string };

beforeAll(async () => {
  service = await startPatient();
  platform = await service.signIn();
  await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
});
afterAll(() => service.stop());

const code = ({ status, json }: Answer) => [status, json?.code];
const names = (answer: Answer) => answer.json.data.map(({ name }: { name: string }) => name);
const use = (token: string) => service.request('GET', '/companies', { headers: bearer(token) });

/** An admin in an organization of their own, so that a list holds what the test made. */
async function fresh(name: string, settings: Record<string, unknown> = {}): Promise<Session> {
  const here = await service.signIn();
  await here.createOrganization(name, settings);
  return join(here, `admin@${name.toLowerCase()}.example`);
}

describe('making and reading', () => {
  it('Y2 a service account has the name that was chosen, and sensible defaults', async () => {
    const made = await admin.post('/service-accounts', {
      name: 'Concierge',
      scopes: ['companies:write', 'companies:read', 'companies:read'],
    });
    expect(made.status).toBe(201);
    expect(made.json).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      client_id: expect.stringMatching(/^sa_[0-9A-Za-z]{22}$/),
      name: 'Concierge',
      description: '',
      scopes: ['companies:read', 'companies:write'],
      token_format: 'opaque',
      token_ttl_seconds: 3600,
      client_auth_methods: null,
      resources: [],
      created_at: expect.stringMatching(/Z$/),
      updated_at: made.json.created_at,
      disabled_at: null,
    });
    const read = await admin.get(`/service-accounts/${made.json.id}`);
    expect([read.status, read.json]).toEqual([200, made.json]);
  });

  it.each([
    ['name', ['', ' ', 'x'.repeat(201), 'two\nlines', 'tab\t', 'nul\u0000', 7, null]],
    ['description', ['x'.repeat(1025), null, 1]],
    ['scopes', ['companies:read', null, [1], ['x'.repeat(129)]]],
    ['token_format', ['saml', 'OPAQUE', '', null]],
    ['token_ttl_seconds', [59, 86_401, 60.5, '3600', null, -1]],
    ['client_auth_methods', [['private_key'], 'client_secret_basic', [1]]],
    ['resources', [['https://api.example.com'], 'https://api.example.com', [1], null]],
  ] as [string, unknown[]][])('CONTRACT §8: %s is judged on POST and on PATCH alike', async (field, values) => {
    const { id } = (await admin.post('/service-accounts', { name: `Judge of ${field}`, scopes: [] })).json;
    for (const value of values) {
      const made = await admin.post('/service-accounts', { name: 'Valid', scopes: [], [field]: value });
      expect([value, made.status]).toEqual([value, 400]);
      const changed = await admin.patch(`/service-accounts/${id}`, { [field]: value });
      expect([value, changed.status]).toEqual([value, 400]);
    }
  });

  it('CONTRACT §8: names are unique among the living, in any case, within the organization', async () => {
    const first = (await admin.post('/service-accounts', { name: 'Payroll', scopes: [] })).json;
    expect(code(await admin.post('/service-accounts', { name: 'pAYROLL', scopes: [] }))).toEqual([409, 'name_taken']);
    const other = (await admin.post('/service-accounts', { name: 'Other', scopes: [] })).json;
    expect(code(await admin.patch(`/service-accounts/${other.id}`, { name: 'PAYROLL' }))).toEqual([409, 'name_taken']);
    expect((await admin.patch(`/service-accounts/${first.id}`, { name: 'PayRoll' })).json.name).toBe('PayRoll');
    const elsewhere = await fresh('Elsewhere');
    expect((await elsewhere.post('/service-accounts', { name: 'Payroll', scopes: [] })).status).toBe(201);
    const both = await Promise.all([1, 2].map(() => admin.post('/service-accounts', { name: 'Race', scopes: [] })));
    expect(both.map(({ status }) => status).sort()).toEqual([201, 409]);
  });

  it('D20 deleting leaves a tombstone: the name is free, the client id is not, the events keep the name', async () => {
    const account = await admin.createAccount('Phoenix');
    const token = await tokenOf(service, account.credentials);
    expect((await use(token)).status).toBe(200);
    expect((await admin.delete(`/service-accounts/${account.id}`)).status).toBe(204);
    expect((await use(token)).status).toBe(401);
    expect((await service.token({ grant_type: 'client_credentials' }, account.credentials)).json.error).toBe(
      'invalid_client',
    );
    for (const [method, path] of [
      ['GET', ''],
      ['PATCH', ''],
      ['DELETE', ''],
      ['POST', '/disable'],
      ['POST', '/enable'],
      ['GET', '/secrets'],
      ['POST', '/secrets'],
      ['POST', `/secrets/${account.secret.id}/revoke`],
    ]) {
      const body = method === 'GET' || method === 'DELETE' ? undefined : {};
      expect(code(await admin.call(method, `/service-accounts/${account.id}${path}`, body))).toEqual([
        404,
        'not_found',
      ]);
    }
    const again = await admin.createAccount('Phoenix');
    expect(again.client_id).not.toBe(account.client_id);
    expect((await service.token({ grant_type: 'client_credentials' }, account.credentials)).status).toBe(401);
    const events = (await admin.get(`/audit-events?actor_id=${account.id}`)).json.data;
    expect(new Set(events.map(({ actor }: { actor: { name: string } }) => actor.name))).toEqual(new Set(['Phoenix']));
  });
});

describe('the list', () => {
  it.each(['name', '-name', 'created_at', '-created_at'])(
    'IN-02 sort=%s: every account once, in order, whatever the page',
    async (sort) => {
      const owner = await fresh(`List${sort.replace('_', '').replace('-', 'down')}`);
      const made = ['b', 'a', 'd', 'c', 'B2', 'ä', 'Z'];
      // Together: several stand within one millisecond.
      await Promise.all(made.map((name) => owner.post('/service-accounts', { name, scopes: [] })));
      const all = (await owner.get(`/service-accounts?sort=${sort}`)).json.data as {
        name: string;
        created_at: string;
      }[];
      expect(all.map(({ name }) => name).sort()).toEqual([...made].sort());
      if (sort.endsWith('created_at')) {
        const times = all.map(({ created_at }) => created_at);
        const expected = [...times].sort();
        expect(times).toEqual(sort.startsWith('-') ? expected.reverse() : expected);
      }
      for (const limit of [1, 2, 3]) {
        const seen: string[] = [];
        for (let cursor = ''; seen.length <= made.length; ) {
          const answer = await owner.get(`/service-accounts?sort=${sort}&limit=${limit}${cursor}`);
          seen.push(...names(answer));
          if (answer.json.next_cursor === null) break;
          cursor = `&cursor=${answer.json.next_cursor}`;
        }
        expect(seen).toEqual(all.map(({ name }) => name));
      }
    },
  );

  it('CONTRACT §8: -name is name backwards; a cursor is good for its own list alone', async () => {
    const owner = await fresh('Cursors');
    for (const name of ['one', 'two', 'three', 'four']) await owner.post('/service-accounts', { name, scopes: [] });
    const up = names(await owner.get('/service-accounts?sort=name'));
    expect(names(await owner.get('/service-accounts?sort=-name'))).toEqual(up.reverse());
    expect(names(await owner.get('/service-accounts'))).toEqual(up.reverse());
    const { next_cursor } = (await owner.get('/service-accounts?limit=1')).json;
    for (const path of [
      '/service-accounts?sort=-name&cursor=',
      '/service-accounts?search=o&cursor=',
      '/companies?cursor=',
      '/users?cursor=',
    ])
      expect(code(await owner.get(path + next_cursor))).toEqual([400, 'invalid_cursor']);
    expect((await owner.get(`/service-accounts?limit=3&cursor=${next_cursor}`)).status).toBe(200);
    const altered = (next_cursor[0] === 'A' ? 'B' : 'A') + next_cursor.slice(1);
    expect(code(await owner.get(`/service-accounts?cursor=${altered}`))).toEqual([400, 'invalid_cursor']);
  });

  it('CONTRACT §8: search finds within names, in any case; wildcards are characters; the deleted are gone', async () => {
    const owner = await fresh('Search');
    for (const name of ['Procurement Portal', 'portal_2', '100% portal', 'Concierge'])
      await owner.post('/service-accounts', { name, scopes: [] });
    const find = async (text: string) =>
      names(await owner.get(`/service-accounts?search=${encodeURIComponent(text)}`)).sort();
    expect(await find('PORTAL')).toEqual(['100% portal', 'Procurement Portal', 'portal_2']);
    expect(await find('%')).toEqual(['100% portal']);
    expect(await find('_')).toEqual(['portal_2']);
    expect(await find('\\')).toEqual([]);
    const { id } = (await owner.get('/service-accounts?search=cierge')).json.data[0];
    await owner.delete(`/service-accounts/${id}`);
    expect(await find('cierge')).toEqual([]);
  });
});

describe('changing', () => {
  it('D2 D4 Y2 name, scopes, format and lifetime hold from the next token on; the log tells both names', async () => {
    const account = await admin.createAccount('Before');
    await tokenOf(service, account.credentials);
    const changed = await admin.patch(`/service-accounts/${account.id}`, {
      name: 'After',
      description: 'moved',
      scopes: ['companies:read'],
      token_format: 'jwt',
      token_ttl_seconds: 60,
    });
    expect(changed.json).toMatchObject({
      name: 'After',
      description: 'moved',
      scopes: ['companies:read'],
      token_ttl_seconds: 60,
    });
    const answer = await service.token({ grant_type: 'client_credentials' }, account.credentials);
    expect(answer.json).toMatchObject({ expires_in: 60, scope: 'companies:read', token_type: 'Bearer' });
    expect(answer.json.access_token).toMatch(/^eyJ/);
    const issued = (await admin.get(`/audit-events?actor_id=${account.id}&action=token.issued`)).json.data;
    expect(issued.map(({ actor }: { actor: { name: string } }) => actor.name)).toEqual(['After', 'Before']);
    const [update] = (await admin.get('/audit-events?action=service_account.updated&limit=1')).json.data;
    expect(update.targets).toEqual([{ type: 'service_account', id: account.id, name: 'Before' }]);
    expect(update.changes).toMatchObject({
      name: { from: 'Before', to: 'After' },
      token_ttl_seconds: { from: 3600, to: 60 },
    });
  });

  it('CONTRACT §8: a PATCH that changes nothing is no event', async () => {
    const account = await admin.createAccount('Still');
    const count = async () => (await admin.get(`/audit-events?target_id=${account.id}&limit=200`)).json.data.length;
    const before = await count();
    for (const body of [{}, { name: 'Still' }, { scopes: ['employees:write', 'companies:write', 'companies:read'] }])
      expect((await admin.patch(`/service-accounts/${account.id}`, body)).status).toBe(200);
    expect((await admin.post(`/service-accounts/${account.id}/enable`)).status).toBe(200);
    expect(await count()).toBe(before);
  });

  it('Y3 disabled: its tokens are dead and none is issued; enabling revives none', async () => {
    const account = await admin.createAccount('Paused');
    const token = await tokenOf(service, account.credentials);
    const disabled = await admin.post(`/service-accounts/${account.id}/disable`, { reason: 'audit finding 7' });
    expect([disabled.status, typeof disabled.json.disabled_at]).toEqual([200, 'string']);
    expect((await use(token)).headers['www-authenticate']).toContain('The access token was revoked');
    const refused = await service.token({ grant_type: 'client_credentials' }, account.credentials);
    expect([refused.status, refused.json.error]).toEqual([401, 'invalid_client']);
    const [event] = (await admin.get('/audit-events?action=service_account.disabled&limit=1')).json.data;
    expect(event).toMatchObject({ reason: 'audit finding 7', outcome: 'success', targets: [{ id: account.id }] });
    const [revocation] = (await admin.get('/revocations?limit=1')).json.data;
    expect(revocation).toMatchObject({ subject_id: account.id, reason: 'audit finding 7', subject_name: 'Paused' });
    const again = await admin.post(`/service-accounts/${account.id}/disable`);
    expect(again.json.disabled_at).toBe(disabled.json.disabled_at);

    expect((await admin.post(`/service-accounts/${account.id}/enable`)).json.disabled_at).toBeNull();
    expect((await use(token)).status).toBe(401);
    expect((await use(await tokenOf(service, account.credentials))).status).toBe(200);
  });
});

describe('who grants what', () => {
  it('CONTRACT §8: no scope that does not exist, none beyond the ceiling, none of the platform’s', async () => {
    const bounded = await fresh('Bounded', { scope_ceiling: ['companies:read'] });
    const make = (session: Session, scopes: string[]) => session.post('/service-accounts', { name: 'x', scopes });
    expect(code(await make(admin, ['no:such']))).toEqual([422, 'scope_unknown']);
    expect(code(await make(admin, ['platform:admin']))).toEqual([422, 'scope_beyond_ceiling']);
    expect(code(await make(platform, ['platform:admin']))).toEqual([422, 'scope_beyond_ceiling']);
    expect(code(await make(bounded, ['companies:write']))).toEqual([422, 'scope_beyond_ceiling']);
    expect((await make(bounded, ['companies:read'])).status).toBe(201);
  });

  it('BR-14 a token with admin:access does not grant itself or another what it does not hold', async () => {
    const weak = await admin.createAccount('Weak', ['admin:access', 'companies:read']);
    const strong = await admin.createAccount('Strong', ['admin:access', 'companies:read', 'companies:write']);
    const headers = bearer(await tokenOf(service, weak.credentials));
    const call = (method: string, path: string, body?: Record<string, unknown>) =>
      service.request(method, `/api/v1/service-accounts${path}`, { body, headers });

    for (const id of [weak.id, strong.id])
      expect(code(await call('PATCH', `/${id}`, { scopes: ['admin:access', 'audit:read'] }))).toEqual([
        403,
        'scope_not_held',
      ]);
    expect(code(await call('POST', '', { name: 'Child', scopes: ['companies:write'] }))).toEqual([
      403,
      'scope_not_held',
    ]);
    // A secret of a stronger account would be its scopes.
    expect(code(await call('POST', `/${strong.id}/secrets`, {}))).toEqual([403, 'scope_not_held']);
    expect(code(await call('POST', `/${strong.id}/secrets/${strong.secret.id}/rotate`, {}))).toEqual([
      403,
      'scope_not_held',
    ]);
    const listed = (await admin.get(`/service-accounts/${strong.id}/secrets`)).json.data;
    expect(listed).toHaveLength(1);

    const child = await call('POST', '', { name: 'Child', scopes: ['companies:read'] });
    expect(child.status).toBe(201);
    expect((await call('POST', `/${child.json.id}/secrets`, {})).status).toBe(201);
    // Taking away is no grant.
    expect((await call('PATCH', `/${strong.id}`, { scopes: ['companies:write'] })).json.scopes).toEqual([
      'companies:write',
    ]);
  });

  it('BR-14 a narrowed token grants no more than it carries, though its account could', async () => {
    const account = await admin.createAccount('Narrow', ['admin:access', 'companies:read']);
    const narrow = await service.token(
      { grant_type: 'client_credentials', scope: 'admin:access' },
      account.credentials,
    );
    const made = await service.request('POST', '/api/v1/service-accounts', {
      body: { name: 'Wide', scopes: ['companies:read'] },
      headers: bearer(narrow.json.access_token),
    });
    expect(code(made)).toEqual([403, 'scope_not_held']);
    const secret = await service.request('POST', `/api/v1/service-accounts/${account.id}/secrets`, {
      body: {},
      headers: bearer(narrow.json.access_token),
    });
    expect(code(secret)).toEqual([403, 'scope_not_held']);
  });
});
