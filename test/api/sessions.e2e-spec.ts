import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { Unavailable } from '../../src/kernel/problem.js';
import { Passwords } from '../../src/organizations/passwords.js';
import { makeKey } from '../support/assertions.js';
import { dataDir } from '../support/database.js';
import { at, join, MINUTE, PASSWORD, startPatient, tokenOf } from '../support/people.js';
import { ADMIN, type Answer, bearer, ISSUER, Session, TestService } from '../support/service.js';

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

const post = (email: string, password: string, rest: Parameters<TestService['request']>[2] = {}) =>
  service.request('POST', '/api/v1/session', { body: { email, password }, ...rest });
const signIn = (who: { email: string; password: string }) => service.signIn(who);
const ME = { email: 'admin@acme.example', password: PASSWORD };
const code = ({ status, json }: Answer) => [status, json?.code];

describe('signing in', () => {
  it('LG-01 a wrong password and an unknown person are told the same, to the byte', async () => {
    const answers = [await post(ME.email, 'wrong password'), await post('nobody@acme.example', 'wrong password')];
    const [wrong, unknown] = answers.map(({ status, headers, json }) => ({
      status,
      headers: { ...headers, 'x-request-id': undefined, date: undefined } as Answer['headers'],
      body: { ...json, request_id: undefined },
    }));
    expect(wrong).toEqual(unknown);
    expect(code(answers[0])).toEqual([401, 'invalid_credentials']);
    expect(wrong.headers['set-cookie']).toBeUndefined();
    expect(answers[0].text).toHaveLength(answers[1].text.length);
  });

  it('LG-02 the same number of hashes is computed for both', async () => {
    const passwords = service.app.get(Passwords);
    await join(platform, 'unused@acme.example');
    await platform.post('/users', { email: 'without@acme.example', name: 'No password', role: 'auditor' });
    const cost = async (email: string) => {
      const before = passwords.computations;
      expect((await post(email, 'wrong password')).status).toBe(401);
      return passwords.computations - before;
    };
    for (const email of ['unused@acme.example', 'nobody2@acme.example', 'without@acme.example', 'not an address'])
      expect([email, await cost(email)]).toEqual([email, 1]);
  });

  it('LG-04 LG-05 a thousand wrong tries from one address: it waits, the victim elsewhere signs in', async () => {
    const attacker = { remoteAddress: '198.51.100.7' };
    const statuses = new Map<number, number>();
    for (let i = 0; i < 1000; i += 50) {
      const answers = await Promise.all(Array.from({ length: 50 }, () => post(ME.email, `wrong ${i}`, attacker)));
      for (const { status } of answers) statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
    expect([...statuses.keys()].sort()).toEqual([401, 429]);
    expect(statuses.get(401)).toBeLessThanOrEqual(11);
    const throttled = await post(ME.email, ME.password, attacker);
    expect(code(throttled)).toEqual([429, 'too_many_attempts']);
    expect(Number(throttled.headers['retry-after'])).toBeGreaterThan(0);
    expect((await post(ME.email, ME.password, { remoteAddress: '203.0.113.9' })).status).toBe(201);
    // Step-up is a path to the password too.
    const inside = await service.request('POST', '/api/v1/session/reauthenticate', {
      body: { password: ME.password },
      headers: { cookie: admin.cookie },
      ...attacker,
    });
    expect(code(inside)).toEqual([429, 'too_many_attempts']);
  });

  it('LG-04 what was not checked, since too many wait, is no attempt: nobody is locked out by a crowd', async () => {
    const from = { remoteAddress: '198.51.100.8' };
    const verify = jest.spyOn(service.app.get(Passwords), 'verify').mockRejectedValue(new Unavailable('too many'));
    try {
      for (let i = 0; i < 20; i++) expect((await post(ME.email, ME.password, from)).status).toBe(503);
    } finally {
      verify.mockRestore();
    }
    expect((await post(ME.email, ME.password, from)).status).toBe(201);
  });

  it('LG-14 passwords are taken whole or refused by rule', async () => {
    const shared = 'x'.repeat(72);
    const good = ['eight ch', 'y'.repeat(128), '🔑'.repeat(128), ' spaces at both ends ', `${shared}-one-80`];
    for (const [i, password] of good.entries()) {
      const email = `password${i}@acme.example`;
      const made = await platform.post('/users', { email, name: 'P', password, role: 'auditor' });
      expect([password, made.status]).toEqual([password, 201]);
      expect((await post(email, password)).status).toBe(201);
      expect((await post(email, `${password} `)).status).toBe(401);
    }
    expect((await post('password4@acme.example', `${shared}-two-80`)).status).toBe(401);
    await platform.post('/users', {
      email: 'nfc@acme.example',
      name: 'P',
      password: 'caf\u00e9 caf\u00e9',
      role: 'auditor',
    });
    expect((await post('nfc@acme.example', 'cafe\u0301 cafe\u0301')).status).toBe(201);
    for (const password of [
      'seven c',
      'y'.repeat(129),
      '🔑'.repeat(7),
      '',
      'with\u0000nul in it',
      'lone \ud800 surrogate',
    ])
      expect(
        (await platform.post('/users', { email: 'bad@acme.example', name: 'P', password, role: 'auditor' })).status,
      ).toBe(400);
  });

  it('LG-20 no default password: a printed one is good for choosing another, and nothing else', async () => {
    const fresh = await startPatient({ BOOTSTRAP_ADMIN_PASSWORD: '', DATA_DIR: dataDir() });
    try {
      const { email, password } = fresh.running.firstStart!;
      expect(password).toMatch(/^[0-9A-Za-z]{22}$/);
      expect(fresh.logs.join('')).not.toContain(password);
      const first = await fresh.signIn({ email, password: password! });
      expect((await first.get('/session')).json).toMatchObject({ must_change_password: true, scopes: [] });
      for (const path of ['/organizations', '/audit-events', '/companies', '/scopes', '/users', '/sessions'])
        expect(`${path} ${code(await first.get(path))}`).toBe(`${path} 403,password_change_required`);
      expect(code(await first.patch('/users/me', { password }))).toEqual([400, 'validation_failed']);
      expect((await first.patch('/users/me', { password: 'one of my very own' })).status).toBe(200);
      expect((await first.get('/organizations')).status).toBe(200);
      expect((await first.get('/session')).json.must_change_password).toBe(false);
    } finally {
      await fresh.stop();
    }
    expect(service.running.firstStart).toEqual({ email: ADMIN.email, password: undefined });
  });
});

describe('the cookie', () => {
  it('LG-08 on http over loopback', async () => {
    const { headers } = await post(ME.email, ME.password);
    expect(headers['set-cookie']).toMatch(/^session=[0-9A-Za-z]{43}; Path=\/; HttpOnly; SameSite=Lax$/);
    const value = String(headers['set-cookie']).slice(8, 51);
    const rows = await service.database.query<{ row: string }>('SELECT s::text AS row FROM session s');
    for (const { row } of rows) {
      expect(row).not.toContain(value);
      expect(row).not.toContain(Buffer.from(value).toString('hex'));
    }
  });

  it('LG-08 on https: __Host-, Secure, HSTS; the other name is nobody’s', async () => {
    const https = await startPatient({ ISSUER_URL: 'https://id.example.com' });
    try {
      const answer = await https.request('POST', '/api/v1/session', { body: { ...ADMIN } });
      const cookie = String(answer.headers['set-cookie']);
      expect(cookie).toMatch(/^__Host-session=[0-9A-Za-z]{43}; Path=\/; HttpOnly; SameSite=Lax; Secure$/);
      expect(answer.headers['strict-transport-security']).toBe('max-age=31536000');
      const value = cookie.split(';')[0];
      const get = (text: string, origin?: string) =>
        https.request(origin ? 'DELETE' : 'GET', '/api/v1/session', {
          headers: { cookie: text, ...(origin && { origin }) },
        });
      expect((await get(value)).status).toBe(200);
      expect((await get(value.replace('__Host-', ''))).status).toBe(401);
      expect(code(await get(value, 'http://id.example.com'))).toEqual([403, 'cross_origin']);
      expect((await get(value, 'https://id.example.com')).status).toBe(204);
    } finally {
      await https.stop();
    }
  });

  it('BR-13 a session cookie is no bearer token, a bearer token no cookie', async () => {
    const value = admin.cookie.split('=')[1];
    const asBearer = await service.request('GET', '/api/v1/users', { headers: bearer(value) });
    expect(code(asBearer)).toEqual([401, 'invalid_token']);
    expect(asBearer.headers['www-authenticate']).toContain('error="invalid_token"');
    const account = await admin.createAccount('Cookie', ['companies:read', 'admin:access']);
    const token = await tokenOf(service, account.credentials);
    const asCookie = await service.request('GET', '/api/v1/users', { headers: { cookie: `session=${token}` } });
    expect(code(asCookie)).toEqual([401, 'unauthenticated']);
    // A header that is wrong is not made good by a cookie that is right.
    const both = await service.request('GET', '/api/v1/users', { headers: { ...bearer('x'), cookie: admin.cookie } });
    expect(code(both)).toEqual([401, 'invalid_token']);
  });

  it('LG-07 a change by cookie comes from this site, reading need not', async () => {
    const name = () => ({ name: `Company ${Math.random()}` });
    const foreign: Record<string, string>[] = [
      { origin: 'https://evil.example' },
      { origin: 'null' },
      { origin: `${ISSUER}.evil.example` },
      { origin: 'http://localhost:3001' },
      { origin: 'https://localhost:3000' },
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site' },
      { 'sec-fetch-site': 'none' },
      { origin: 'https://evil.example', 'sec-fetch-site': 'same-origin' },
    ];
    for (const headers of foreign) {
      expect(code(await admin.post('/companies', name(), headers))).toEqual([403, 'cross_origin']);
      expect(code(await admin.delete('/session', headers))).toEqual([403, 'cross_origin']);
      expect((await admin.get('/companies', headers)).status).toBe(200);
      // Signing in is a change too: nobody is signed in as somebody else from another site.
      expect(code(await post(ME.email, ME.password, { headers }))).toEqual([403, 'cross_origin']);
    }
    for (const headers of [{}, { origin: ISSUER }, { 'sec-fetch-site': 'same-origin' }] as Record<string, string>[])
      expect((await admin.post('/companies', name(), headers)).status).toBe(201);
  });

  it('LG-07 what one had before signing in, turning and proving oneself again is worth nothing afterwards', async () => {
    const session = await signIn(ME);
    const seen = [session.cookie];
    await session.post('/session/reauthenticate', { password: PASSWORD });
    seen.push(session.cookie);
    await session.patch('/session', { organization_id: (await session.get('/session')).json.organization.id });
    seen.push(session.cookie);
    await session.patch('/users/me', { password: PASSWORD });
    expect(new Set([...seen, session.cookie]).size).toBe(4);
    for (const cookie of seen) expect((await new Session(service, cookie).get('/session')).status).toBe(401);
    expect((await session.get('/session')).status).toBe(200);
    admin = Object.assign(await signIn(ME), { userId: admin.userId });
  });
});

describe('the end of a session', () => {
  it('LG-10 signing out: the cookie is dead and told to go; reading does not sign out', async () => {
    const session = await signIn(ME);
    const { cookie } = session;
    expect((await session.get('/session')).status).toBe(200);
    const out = await session.delete('/session');
    expect([out.status, out.headers['clear-site-data']]).toEqual([204, '"cookies"']);
    expect(out.headers['set-cookie']).toBe('session=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0');
    const replay = await new Session(service, cookie).get('/session');
    expect(code(replay)).toEqual([401, 'unauthenticated']);
    const { data } = (await admin.get('/audit-events?action=session.ended&limit=1')).json;
    expect(data[0]).toMatchObject({ actor: { id: admin.userId }, outcome: 'success' });
  });

  it('LG-11 idle after 30 minutes without use; use prolongs it, up to twelve hours', async () => {
    const idle = await signIn(ME);
    await at(service, 29 * MINUTE, async () => expect((await idle.get('/session')).status).toBe(200));
    await at(service, 58 * MINUTE, async () => expect((await idle.get('/session')).status).toBe(200));
    await at(service, 89 * MINUTE, async () =>
      expect(code(await idle.get('/session'))).toEqual([401, 'unauthenticated']),
    );
    const used = await signIn(ME);
    const last = 12 * 60 - 1;
    for (let minute = 25; minute < last; minute += 25)
      await at(service, minute * MINUTE, async () => expect((await used.get('/session')).status).toBe(200));
    await at(service, last * MINUTE, async () => expect((await used.get('/session')).status).toBe(200));
    await at(service, (last + 2) * MINUTE, async () => expect((await used.get('/session')).status).toBe(401));
  });

  it('LG-13 what is sensitive wants proof from the last ten minutes', async () => {
    const account = await admin.createAccount('Sensitive');
    const session = await signIn(ME);
    const secrets = `/service-accounts/${account.id}/secrets`;
    const sensitive: [string, string, Record<string, unknown>, number][] = [
      ['POST', secrets, {}, 201],
      ['POST', `/service-accounts/${account.id}/keys`, { jwk: makeKey('EdDSA').jwk }, 201],
      ['POST', `${secrets}/${account.secret.id}/rotate`, {}, 201],
      ['POST', '/users', { email: 'second@acme.example', name: 'Second', role: 'admin' }, 201],
      ['PATCH', `/users/${admin.userId}`, { role: 'admin' }, 200],
      ['PATCH', '/users/me', { password: PASSWORD }, 200],
    ];
    await at(service, 11 * MINUTE, async () => {
      for (const [method, path, body] of sensitive)
        expect(`${path} ${code(await session.call(method, path, body))}`).toBe(`${path} 403,reauthentication_required`);
      // Taking away never waits for a password.
      const extra = await service.database.query<{ id: string }>(
        'SELECT id FROM credential WHERE service_account_id = $1 AND revoked_at IS NULL',
        [account.id],
      );
      expect(extra).toHaveLength(1);
      expect(code(await session.post('/session/reauthenticate', { password: 'wrong password' }))).toEqual([
        401,
        'invalid_credentials',
      ]);
      expect((await session.post('/session/reauthenticate', { password: PASSWORD })).status).toBe(200);
      for (const [method, path, body, status] of sensitive)
        expect(`${path} ${(await session.call(method, path, body)).status}`).toBe(`${path} ${status}`);
    });
    admin = Object.assign(await signIn(ME), { userId: admin.userId });
  });

  it('LG-13 revoking does not wait for a password', async () => {
    const account = await admin.createAccount('Leaked');
    const session = await signIn(ME);
    await at(service, 11 * MINUTE, async () => {
      const path = `/service-accounts/${account.id}/secrets/${account.secret.id}/revoke`;
      expect((await session.post(path)).status).toBe(200);
    });
  });

  it('LG-19 one sees where one is signed in, and ends another browser from here', async () => {
    const here = await signIn(ME);
    const there = await signIn(ME);
    const list = (await here.get('/sessions')).json.data as { id: string; current: boolean; expires_at: string }[];
    expect(list.filter(({ current }) => current)).toHaveLength(1);
    expect(list.map(({ id }) => id)).toEqual([...list.map(({ id }) => id)].sort().reverse());
    expect(JSON.stringify(list)).not.toContain(there.cookie.split('=')[1]);
    const other = (await there.get('/sessions')).json.data.find(({ current }: { current: boolean }) => current);
    expect((await here.delete(`/sessions/${other.id}`)).status).toBe(204);
    expect((await there.get('/session')).status).toBe(401);
    expect((await here.get('/session')).status).toBe(200);
    expect(code(await here.delete(`/sessions/${other.id}`))).toEqual([404, 'not_found']);
    const theirs = (await platform.get('/sessions')).json.data[0].id;
    expect(code(await here.delete(`/sessions/${theirs}`))).toEqual([404, 'not_found']);
    expect((await platform.get('/session')).status).toBe(200);
  });
});
