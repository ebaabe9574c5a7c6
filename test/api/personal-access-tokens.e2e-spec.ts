import { crc32 } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { DIGITS } from '../../src/kernel/ids.js';
import { expectInvalidToken, expectRefused } from '../support/oauth.js';
import { at, join, MINUTE, startPatient } from '../support/people.js';
import { call, inDays, makeFor, makeOwn } from '../support/personal-access-tokens.js';
import { queriesDuring } from '../support/queries.js';
import { ADMIN, type Answer, bearer, type Session, type TestAccount, type TestService } from '../support/service.js';

let service: TestService;
let platform: Session;
let organization: { id: string };
let admin: Session & { userId: string };
let account: TestAccount;

beforeAll(async () => {
  service = await startPatient({ MAX_PERSONAL_ACCESS_TOKENS: '3', MAX_PAT_LIFETIME_DAYS: '365' });
  platform = await service.signIn();
  organization = await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
  account = await admin.createAccount('Concierge');
});
afterAll(() => service.stop());

const code = ({ status, json }: Answer) => [status, json?.code];
const post = (session: Session, body: Record<string, unknown> = {}, headers?: Record<string, string>) =>
  session.post(
    '/personal-access-tokens',
    { label: 'mine', scopes: ['companies:read'], expires_at: inDays(30), ...body },
    headers,
  );
let people = 0;
const somebody = (role: 'admin' | 'auditor' = 'admin') => join(admin, `somebody${people++}@acme.example`, role);
const flip = (text: string, i: number) => text.slice(0, i) + (text[i] === 'A' ? 'B' : 'A') + text.slice(i + 1);

/** A text with the checksum that it should have. */
function withChecksum(body: string): string {
  let text = '';
  for (let digit = 0, value = crc32(body); digit < 6; digit++, value = Math.floor(value / 62))
    text = DIGITS[value % 62] + text;
  return body + text;
}

describe('making', () => {
  it('SC-01 E7 the token is in one answer, and works as a bearer token under its owner’s name', async () => {
    const ann = await somebody();
    const expires_at = inDays(30);
    const made = await post(ann, { label: 'laptop', scopes: ['companies:write', 'companies:read'], expires_at });
    expect(made.status).toBe(201);
    expect(made.headers).toMatchObject({ 'cache-control': 'no-store', pragma: 'no-cache' });
    const { token, ...rest } = made.json;
    expect(token).toMatch(/^client_pat_live_[0-9A-Za-z]{71}$/);
    const creator = { type: 'user', id: ann.userId, name: expect.stringMatching(/^somebody/) };
    expect(rest).toEqual({
      id: expect.any(String),
      label: 'laptop',
      hint: token.slice(-4),
      scopes: ['companies:read', 'companies:write'],
      created_by: creator,
      created_at: expect.any(String),
      expires_at,
      revoked_at: null,
    });
    expect((await ann.get('/personal-access-tokens')).json).toEqual({
      data: [{ ...rest, status: 'active' }],
      next_cursor: null,
    });

    const company = await call(service, { token }, '/companies', 'POST', { name: 'By laptop' });
    expect(company.status).toBe(201);
    const event = (await ann.get(`/audit-events?target_id=${company.json.id}`)).json.data[0];
    expect(event).toMatchObject({ actor: creator, credential_id: rest.id, token_id: null });
    const [creation] = (await ann.get(`/audit-events?target_id=${rest.id}`)).json.data;
    expect(creation).toMatchObject({
      action: 'personal_access_token.created',
      actor: creator,
      targets: [creator, { type: 'personal_access_token', id: rest.id, name: `laptop (…${rest.hint})` }],
      changes: { scopes: { to: rest.scopes }, expires_at: { to: expires_at } },
    });
    for (const path of ['/personal-access-tokens', '/audit-events', '/revocations', '/users'])
      expect((await ann.get(path)).text).not.toContain(token.slice(38, -6));
    expect(service.logs.join('')).not.toContain(token.slice(38, -6));
  });

  it('SC-02 a repeat under the same Idempotency-Key makes none, and shows none again', async () => {
    const ann = await somebody();
    const body = { expires_at: inDays(3) };
    const first = await post(ann, body, { 'idempotency-key': 'one' });
    const { token, ...rest } = first.json;
    const again = await post(ann, body, { 'idempotency-key': 'one' });
    expect([again.status, again.headers['idempotent-replayed'], again.json]).toEqual([201, 'true', rest]);
    const principal = `/developer/service-principals/${account.id}/tokens`;
    const sample = { name: 'prod-key-1', scopes: ['companies:read'] };
    const made = await admin.post(principal, sample, { 'idempotency-key': 'two' });
    const repeated = await admin.post(principal, sample, { 'idempotency-key': 'two' });
    const { token: shown, ...shared } = made.json;
    expect([repeated.status, repeated.json]).toEqual([201, shared]);
    expect([token, shown]).toEqual([expect.any(String), expect.any(String)]);
    expect((await ann.get('/personal-access-tokens')).json.data).toHaveLength(1);
    expect((await admin.get(principal)).json.data).toHaveLength(1);
  });

  it('SC-07 for nothing that its owner does not hold, and for no scope that there is not', async () => {
    const auditor = await somebody('auditor');
    const refusals: [Session, string, [number, string]][] = [
      [auditor, 'companies:read', [403, 'scope_not_held']],
      [auditor, 'admin:access', [403, 'scope_not_held']],
      [auditor, 'no:such', [422, 'scope_unknown']],
      [admin, 'platform:admin', [403, 'scope_not_held']],
    ];
    for (const [who, scope, expected] of refusals)
      expect([scope, ...code(await post(who, { scopes: [scope] }))]).toEqual([scope, ...expected]);
    expect((await post(auditor, { scopes: ['audit:read'] })).status).toBe(201);
    const principal = `/developer/service-principals/${account.id}/tokens`;
    const asked = (scope: string) => admin.post(principal, { name: 'x', scopes: [scope] });
    expect(code(await asked('audit:read'))).toEqual([403, 'scope_not_held']);
    expect(code(await asked('no:such'))).toEqual([422, 'scope_unknown']);
  });

  it('SC-10 an end is demanded, within the longest lifetime; a principal’s has one by default', async () => {
    const ann = await somebody();
    for (const expires_at of [undefined, null, '', inDays(-1), inDays(366), 'tomorrow', '2031-01-01'])
      expect([expires_at, ...code(await post(ann, { expires_at }))]).toEqual([expires_at, 400, 'validation_failed']);
    expect((await post(ann, { expires_at: inDays(364.9) })).status).toBe(201);
    const spare = await admin.createAccount('Ending');
    const path = `/developer/service-principals/${spare.id}/tokens`;
    const { json } = await admin.post(path, { name: 'x', scopes: ['companies:read'] });
    const lifetime = Date.parse(json.expires_at) - Date.parse(json.created_at);
    expect(Math.abs(lifetime - 90 * 86_400_000)).toBeLessThan(1000);
    for (const expires_at of [inDays(-1), inDays(366), null])
      expect(code(await admin.post(path, { name: 'x', scopes: ['companies:read'], expires_at }))).toEqual([
        400,
        'validation_failed',
      ]);
  });

  it('SC-10 so many an owner, however many ask at once; one that was revoked or has expired makes room', async () => {
    const ann = await somebody();
    const answers = await Promise.all([1, 2, 3, 4, 5, 6].map(() => post(ann)));
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 201, 201, 422, 422, 422]);
    const [{ id }] = (await ann.get('/personal-access-tokens')).json.data;
    await ann.post(`/personal-access-tokens/${id}/revoke`);
    expect((await post(ann, { expires_at: new Date(Date.now() + 5 * MINUTE).toISOString() })).status).toBe(201);
    expect(code(await post(ann))).toEqual([422, 'limit_reached']);
    await at(service, 6 * MINUTE, async () => expect((await post(ann)).status).toBe(201));
    const full = await admin.createAccount('Full');
    for (let i = 0; i < 3; i++) await makeFor(admin, full.id, ['companies:read']);
    const fourth = { name: 'x', scopes: ['companies:read'] };
    expect(code(await admin.post(`/developer/service-principals/${full.id}/tokens`, fourth))).toEqual([
      422,
      'limit_reached',
    ]);
    // They are not among what a client authenticates with, and take no room there.
    expect((await admin.createSecret(full.id)).secret).toMatch(/^client_sec_/);
  });

  it('IN-04 fields', async () => {
    const fields = [
      { label: undefined },
      { label: '' },
      { label: 'x'.repeat(129) },
      { scopes: undefined },
      { scopes: [] },
      { scopes: 'companies:read' },
      { scopes: [1] },
      { token: 'mine' },
      { user_id: admin.userId },
      { era: 9 },
    ];
    for (const body of fields) expect([body, (await post(admin, body)).status]).toEqual([body, 400]);
  });

  it('LG-13 by a person who proved of late who they are', async () => {
    const ann = await somebody();
    await at(service, 11 * MINUTE, async () => {
      expect(code(await post(ann))).toEqual([403, 'reauthentication_required']);
      const body = { name: 'x', scopes: ['companies:read'] };
      const late = await ann.post(`/developer/service-principals/${account.id}/tokens`, body);
      expect(code(late)).toEqual([403, 'reauthentication_required']);
    });
  });
});

describe('what one may do', () => {
  it('SC-07 it makes none of its owner’s own, and grants nobody what it does not hold', async () => {
    const mine = await makeOwn(admin, ['admin:access', 'companies:read']);
    const own = { label: 'more', scopes: ['companies:read'], expires_at: inDays(300) };
    expect(code(await call(service, mine, '/personal-access-tokens', 'POST', own))).toEqual([403, 'session_required']);
    for (const path of ['/personal-access-tokens', '/session', '/users/me', '/sessions'])
      expect([path, ...code(await call(service, mine, path))]).toEqual([path, 403, 'session_required']);
    // Its owner holds companies:write and audit:read; it does not.
    const attempts: [string, string, Record<string, unknown>][] = [
      ['POST', '/service-accounts', { name: 'Puppet', scopes: ['companies:write'] }],
      ['PATCH', `/service-accounts/${account.id}`, { scopes: ['companies:read', 'audit:read'] }],
      ['POST', `/service-accounts/${account.id}/secrets`, {}],
      ['POST', `/developer/service-principals/${account.id}/tokens`, { name: 'x', scopes: ['companies:write'] }],
      ['POST', '/users', { email: 'puppet@acme.example', name: 'Puppet', role: 'admin' }],
    ];
    for (const [method, path, body] of attempts)
      expect([path, ...code(await call(service, mine, path, method, body))]).toEqual([path, 403, 'scope_not_held']);
    expect(code(await call(service, mine, '/audit-events'))).toEqual([403, 'insufficient_scope']);
    expect(code(await call(service, mine, '/companies', 'POST', { name: 'x' }))).toEqual([403, 'insufficient_scope']);
    // E4: it manages principals within what it holds.
    const minted = await call(service, mine, `/developer/service-principals/${account.id}/tokens`, 'POST', {
      name: 'by a token',
      scopes: ['companies:read'],
    });
    expect([minted.status, minted.json.created_by]).toEqual([201, { type: 'user', id: admin.userId, name: 'admin' }]);
    expect((await call(service, minted.json)).status).toBe(200);
    await admin.post(`/personal-access-tokens/${mine.id}/revoke`);
  });

  it('CONTRACT §8: a platform admin’s, made for the platform, names another organization; where they are no member, none is made', async () => {
    const root = await service.signIn();
    const refused = await root.patch('/session', { organization_id: organization.id });
    expect(refused.status).toBe(200);
    expect(code(await post(root))).toEqual([400, 'invalid_parameter']);
    expect((await root.get('/personal-access-tokens')).json).toEqual({ data: [], next_cursor: null });
    const own = await service.signIn();
    const strong = await makeOwn(own, ['platform:admin', 'admin:access']);
    const named = (token: string) =>
      service.request('GET', '/api/v1/service-accounts', {
        headers: { ...bearer(token), 'x-organization-id': organization.id },
      });
    expect((await named(strong.token)).json.data.map(({ name }: TestAccount) => name)).toContain('Concierge');
    const weak = await makeOwn(own, ['admin:access']);
    expect(code(await named(weak.token))).toEqual([403, 'insufficient_scope']);
  });

  it('SC-07 a platform admin’s in an organization of theirs is bounded by what they are there', async () => {
    const root = await service.signIn();
    await root.createOrganization('Visited');
    await root.post('/users', { email: ADMIN.email, name: 'Admin', role: 'auditor' });
    const { organizations } = (await root.get('/session')).json;
    const visited = organizations.find(({ name }: { name: string }) => name === 'Visited');
    expect((await root.patch('/session', { organization_id: visited.id })).status).toBe(200);
    expect((await root.get('/session')).json.scopes).toContain('companies:read');
    expect(code(await post(root))).toEqual([403, 'scope_not_held']);
    const { token } = await makeOwn(root, ['audit:read']);
    expect((await call(service, { token }, '/audit-events')).status).toBe(200);
    const elsewhere = { ...bearer(token), 'x-organization-id': organization.id };
    expect(code(await service.request('GET', '/api/v1/audit-events', { headers: elsewhere }))).toEqual([
      403,
      'insufficient_scope',
    ]);
  });

  it('TN-01 a person sees and revokes their own alone', async () => {
    const [ann, bob] = [await somebody(), await somebody()];
    const { id, token } = await makeOwn(ann, ['companies:read']);
    expect((await bob.get('/personal-access-tokens')).json.data).toEqual([]);
    expect(code(await bob.post(`/personal-access-tokens/${id}/revoke`))).toEqual([404, 'not_found']);
    for (const path of [`secrets/${id}/revoke`, `secrets/${id}/rotate`])
      expect(code(await admin.post(`/service-accounts/${account.id}/${path}`))).toEqual([404, 'not_found']);
    const principal = `/developer/service-principals/${account.id}/tokens`;
    for (const other of [id, account.secret.id])
      expect(code(await admin.post(`${principal}/${other}/revoke`))).toEqual([404, 'not_found']);
    expect((await call(service, { token })).status).toBe(200);
  });
});

describe('which are ours', () => {
  it('SC-05 one that shares the first 72 bytes is another one, checksum and all', async () => {
    const { token } = await makeOwn(await somebody(), ['companies:read']);
    const { token: sibling } = await makeOwn(await somebody(), ['companies:read']);
    const forged = [
      ...[0, 40, 73, 80, token.length - 1].map((i) => flip(token, i)),
      `${token}A`,
      token.slice(0, 72),
      withChecksum(flip(token, 73).slice(0, -6)),
      withChecksum(flip(token, 80).slice(0, -6)),
      withChecksum(token.slice(0, 38) + sibling.slice(38, -6)),
      withChecksum(flip(token, 20).slice(0, -6)),
      withChecksum(token.replace('client', 'other').slice(0, -6)),
    ];
    for (const text of forged) expectInvalidToken(await call(service, { token: text }));
    expect((await call(service, { token })).status).toBe(200);
  });

  it('BR-17 P6 a wrong checksum costs no query, and neither does one that is in memory', async () => {
    const { token } = await makeOwn(await somebody(), ['companies:read']);
    const forged = [flip(token, 30), flip(token, 60), flip(token, token.length - 1), token.slice(0, -1), `${token}0`];
    const asked = await queriesDuring(async () => {
      for (const text of forged) expectInvalidToken(await call(service, { token: text }));
    });
    expect(asked).toEqual([]);
    const path = '/session'; // refuses whoever is no session, once it knows who it is
    const cold = await queriesDuring(async () => void (await call(service, { token }, path)));
    expect(cold.length).toBeGreaterThan(0);
    const warm = await queriesDuring(async () =>
      expect(code(await call(service, { token }, path))).toEqual([403, 'session_required']),
    );
    expect(warm).toEqual([]);
  });

  it('J5 one of the other environment is refused with a description that says so', async () => {
    const { token } = await makeOwn(await somebody(), ['companies:read']);
    const other = withChecksum(token.replace('_live_', '_test_').slice(0, -6));
    expectInvalidToken(await call(service, { token: other }), 'The access token is of another environment');
  });

  it('BR-13 it is no client secret, and no client secret is a bearer token', async () => {
    const { token } = await makeFor(admin, (await admin.createAccount('Typed')).id, ['companies:read']);
    const asSecret = await service.token(
      { grant_type: 'client_credentials' },
      { id: account.client_id, secret: token },
    );
    expect([asSecret.status, asSecret.json.error]).toEqual([401, 'invalid_client']);
    expectInvalidToken(await call(service, { token: account.secret.secret }));
    // Nor can an account be told to issue such: what it writes holds its claims.
    const set = await admin.patch(`/service-accounts/${account.id}`, { token_format: 'personal_access_token' });
    expect(code(set)).toEqual([400, 'validation_failed']);
  });

  it('SC-08 a scanner knows one by its form and checksum; in a URL it is refused, and no log has it', async () => {
    const { token } = await makeOwn(await somebody(), ['companies:read']);
    expect(withChecksum(token.slice(0, -6))).toBe(token);
    const inUrl = await service.request('GET', `/companies?access_token=${token}`, {
      headers: { referer: `https://elsewhere.example/?token=${token}` },
    });
    expectRefused(
      inUrl,
      400,
      'malformed_request',
      'Bearer realm="gatehouse", error="invalid_request", error_description="An access token goes into the Authorization header"',
    );
    await service.request('GET', `/api/v1/nowhere/x?t=${token}`, { headers: bearer(token) });
    expect(service.logs.join('')).not.toContain(token.slice(20));
  });
});
