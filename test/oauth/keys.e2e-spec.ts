import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { decodeJwt, decodeProtectedHeader, type JWTPayload, SignJWT } from 'jose';
import { Changes } from '../../src/changes/changes.js';
import { Recorder } from '../../src/changes/recorder.js';
import { Clock } from '../../src/kernel/clock.js';
import { type KeyPurpose, Keyring } from '../../src/keyring/keyring.js';
import { RevocationView } from '../../src/revocation/revocation-view.js';
import { Keys } from '../../src/tokens/keys.service.js';
import { accessToken, eventsOf, expectInvalidToken, GRANT, PATIENT } from '../support/oauth.js';
import { at, join, MINUTE } from '../support/people.js';
import { runToEnd } from '../support/processes.js';
import { bearer, ISSUER, type Session, serviceEnvironment, type TestAccount, TestService } from '../support/service.js';

const DAY_MS = 86_400_000;
const REVOKED = 'The access token was revoked';

let service: TestService;
let instances: TestService[];
let platform: Session;
let jwtAccount: TestAccount;
let opaqueAccount: TestAccount;

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  instances = [
    service,
    await TestService.start(PATIENT, service.database),
    await TestService.start(PATIENT, service.database),
  ];
  platform = await service.signIn();
  await platform.createOrganization('Keys');
  jwtAccount = await platform.createAccount('JWT', ['companies:read', 'companies:write'], { token_format: 'jwt' });
  opaqueAccount = await platform.createAccount('Opaque', ['companies:read']);
});
afterAll(async () => {
  for (const instance of [...(instances ?? [])].reverse()) await instance.stop();
});
afterEach(() => {
  jest.restoreAllMocks();
});

const use = (token: string, of = service) => of.request('GET', '/companies', { headers: bearer(token) });
const statuses = async (token: string) =>
  Promise.all(instances.map(async (instance) => (await use(token, instance)).status));
const expectRevoked = async (token: string) => {
  for (const instance of instances) expectInvalidToken(await use(token, instance), REVOKED);
};
const kids = async (of = service): Promise<string[]> =>
  (await of.request('GET', '/.well-known/jwks.json')).json.keys.map(({ kid }: { kid: string }) => kid);
const kidOf = (token: string) =>
  token.startsWith('eyJ') ? decodeProtectedHeader(token).kid! : token.slice('client_oa2_live_'.length).slice(0, 22);
const activeKid = (purpose: KeyPurpose, of = service) => of.app.get(Keyring).active(purpose).kid;
const gatehouse = (...words: string[]) =>
  runToEnd(serviceEnvironment(service.database, { ISSUER_URL: ISSUER }), ...words);
const rowOf = async (kid: string) =>
  (await service.database.query('SELECT * FROM keyring_key WHERE kid = $1', [kid]))[0] as Record<string, unknown>;

/** What whoever has the private key can make of a token of their own. */
function forge(token: string, change: JWTPayload): Promise<string> {
  const { secret, kid } = service.app.get(Keyring).active('token-sign');
  return new SignJWT({ ...decodeJwt(token), ...change })
    .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid })
    .sign(secret);
}

describe('a key that leaked', () => {
  it('P1 a signing key: when the call returns no instance accepts a token that it signed, no JWKS holds it, and all issue with the next', async () => {
    const tokens = await Promise.all(instances.map((instance) => accessToken(instance, jwtAccount)));
    const sealed = await accessToken(service, opaqueAccount);
    for (const token of [...tokens, sealed]) expect(await statuses(token)).toEqual([200, 200, 200]);
    const unseen = await accessToken(service, jwtAccount);
    const forged = await forge(unseen, { scope: 'companies:read companies:write', jti: crypto.randomUUID() });
    const kid = kidOf(unseen);

    const answer = await platform.post(`/keys/${kid}/revoke`, { reason: 'left in a log' });
    expect([answer.status, answer.json]).toEqual([
      200,
      {
        revocation_id: expect.any(String),
        revoked_at: expect.any(String),
        kid,
        active_kid: expect.any(String),
        tokens_expire_by: expect.any(String),
        jwks_cached_until: expect.any(String),
        instances: { live: 3, confirmed: 3 },
        waited_ms: expect.any(Number),
        bound_ms: 10_000,
      },
    ]);
    for (const token of [...tokens, unseen, forged]) await expectRevoked(token);
    const { active_kid, revoked_at, jwks_cached_until } = answer.json;
    expect(Date.parse(jwks_cached_until) - Date.parse(revoked_at)).toBe(300_000);
    for (const instance of instances) {
      expect(await kids(instance)).toEqual([active_kid]);
      const next = await accessToken(instance, jwtAccount);
      expect([kidOf(next), await statuses(next)]).toEqual([active_kid, [200, 200, 200]]);
    }
    expect(await statuses(sealed)).toEqual([200, 200, 200]); // of another key

    expect(await rowOf(kid)).toMatchObject({ state: 'retired', wrapped: null, revoked_reason: 'left in a log' });
    const [event] = await eventsOf(service, 'key.revoked');
    expect(event).toMatchObject({
      organization_id: '00000000-0000-7000-8000-000000000001',
      actor_type: 'user',
      reason: 'left in a log',
      targets: [{ type: 'key', name: kid }],
    });
    // Again: the same receipt, and nothing more is revoked.
    const again = await platform.post(`/keys/${kid}/revoke`);
    expect(again.json).toMatchObject({ revocation_id: answer.json.revocation_id, active_kid });
    expect(await eventsOf(service, 'key.revoked', 9)).toHaveLength(1);
    // An instance that starts later has never seen the key, and says the same.
    const late = await TestService.start(PATIENT, service.database);
    expectInvalidToken(await use(unseen, late), REVOKED);
    await late.stop();
  });

  it('P1 a sealing key, by the command', async () => {
    const sealed = await Promise.all(instances.map((instance) => accessToken(instance, opaqueAccount)));
    const signed = await accessToken(service, jwtAccount);
    for (const token of sealed) expect(await statuses(token)).toEqual([200, 200, 200]);
    const kid = activeKid('token-seal');
    const { code, stdout, stderr } = await gatehouse('keys', 'revoke', kid, '--reason', 'a drill');
    expect([code, stderr]).toEqual([0, '']);
    for (const token of sealed) await expectRevoked(token);
    const next = activeKid('token-seal');
    expect(next).not.toBe(kid);
    expect(stdout).toBe(
      `Revoked. Every token made with ${kid} is dead on every instance: 3 of 3 said so. In use now: ${next}.\n`,
    );
    for (const instance of instances)
      expect(await statuses(await accessToken(instance, opaqueAccount))).toEqual([200, 200, 200]);
    expect(await statuses(signed)).toEqual([200, 200, 200]);
    expect(await rowOf(kid)).toMatchObject({ revoked_reason: 'a drill', wrapped: null });
  });

  it('P1 a signing key, by the command, says what it cannot reach: verifiers with a copy of the JWKS', async () => {
    const kid = activeKid('token-sign');
    const { code, stdout } = await gatehouse('keys', 'revoke', kid);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /\nWhoever verifies tokens with a copy of the key set accepts that key until \S+Z, and does not know the next one: have them fetch http:\/\/localhost:3000\/\.well-known\/jwks\.json now\.\n$/,
    );
  });

  it('P1 an issuance under way is signed once more by the next key, not handed out dead and not refused', async () => {
    const kid = activeKid('token-sign');
    const recorder = service.app.get(Recorder);
    const record = recorder.record.bind(recorder);
    const spy = jest.spyOn(recorder, 'record').mockImplementationOnce(async (event, demands) => {
      await instances[1].app.get(Keys).revoke(kid); // signed here, not recorded yet
      return record(event, demands);
    });
    const token = await accessToken(service, jwtAccount);
    expect(spy.mock.calls.length).toBe(2);
    expect(kidOf(token)).not.toBe(kid);
    expect(await statuses(token)).toEqual([200, 200, 200]);
    const { jti } = decodeJwt(token);
    expect(await service.database.query('SELECT 1 FROM audit_event WHERE token_id = $1', [jti])).toHaveLength(1);
  });

  it('P1 a change by a token of the key, under way when it is revoked, is refused', async () => {
    const token = await accessToken(service, jwtAccount);
    const changes = service.app.get(Changes);
    const run = changes.run.bind(changes) as Changes['run'];
    jest.spyOn(changes, 'run').mockImplementationOnce((async (...args: Parameters<Changes['run']>) => {
      await instances[1].app.get(Keys).revoke(kidOf(token)); // the guard has let the request pass
      return run(...args);
    }) as never);
    const made = await service.request('POST', '/companies', { headers: bearer(token), body: { name: 'Late' } });
    expect([made.status, made.json.code]).toEqual([401, 'unauthenticated']);
    expect(await service.database.query(`SELECT 1 FROM company WHERE name = 'Late'`)).toEqual([]);
  });

  it('P1 a forged token without end does not come back when the view forgets the revocation', async () => {
    const token = await accessToken(service, jwtAccount);
    const eternal = await forge(token, { exp: Math.floor(Date.now() / 1000) + 3650 * 86_400 });
    expect((await use(eternal)).status).toBe(200); // opened, and remembered
    await service.app.get(Keys).revoke(kidOf(token));
    await at(service, 2 * DAY_MS, async () => {
      service.app.get(RevocationView).expire();
      expect(service.app.get(RevocationView).size).toBe(0);
      expectInvalidToken(await use(eternal), REVOKED);
    });
  });

  it('P1 two that revoke at once, while others issue: one revocation, nobody is refused, nobody signs with it afterwards', async () => {
    const kid = activeKid('token-sign');
    let going = true;
    const issued: string[] = [];
    const load = instances.map(async (instance) => {
      while (going) issued.push(await accessToken(instance, jwtAccount)); // throws unless 200
    });
    const receipts = await Promise.all(instances.map((instance) => instance.app.get(Keys).revoke(kid)));
    const afterwards = await Promise.all(instances.map((instance) => accessToken(instance, jwtAccount)));
    going = false;
    await Promise.all(load);
    expect(new Set(receipts.map(({ revocation_id }) => revocation_id)).size).toBe(1);
    expect(new Set(afterwards.map(kidOf)).size).toBe(1);
    for (const token of issued.filter((text) => kidOf(text) === kid).slice(-20)) await expectRevoked(token);
    for (const token of issued.filter((text) => kidOf(text) !== kid).slice(-20))
      expect(await statuses(token)).toEqual([200, 200, 200]);
    expect(
      await service.database.query(`SELECT 1 FROM revocation WHERE kind = 'key' AND subject_name = $1`, [kid]),
    ).toHaveLength(1);
  });

  it('P1 a key that is only published goes too, and one that has retired; the one in use goes on', async () => {
    const old = await accessToken(service, opaqueAccount);
    await platform.post('/keys/rotate', { purpose: 'token-seal' });
    const young = await accessToken(service, opaqueAccount);
    expect((await platform.post(`/keys/${kidOf(old)}/revoke`)).json.active_kid).toBe(kidOf(young));
    await expectRevoked(old);
    expect(await statuses(young)).toEqual([200, 200, 200]);

    const active = activeKid('token-sign');
    const published = await platform.post('/keys/rotate', { purpose: 'token-sign' });
    expect(published.json).toMatchObject({ purpose: 'token-sign', state: 'pending', revoked_at: null });
    expect(await kids(instances[2])).toEqual([active, published.json.kid]);
    expect((await platform.post(`/keys/${published.json.kid}/revoke`)).json.active_kid).toBe(active);
    for (const instance of instances) expect(await kids(instance)).toEqual([active]);
  });

  it('P1 a machine revokes the key of its own token: it is answered, and that was its last call', async () => {
    const root = await service.signIn();
    const { credentials } = await root.createAccount('Operator', ['platform:admin']);
    const token = (await service.token(GRANT, credentials)).json.access_token;
    const revoke = () =>
      service.request('POST', `/api/v1/keys/${kidOf(token)}/revoke`, { headers: bearer(token), body: {} });
    const answer = await revoke();
    expect([answer.status, answer.json.instances]).toEqual([200, { live: 3, confirmed: 3 }]);
    expectInvalidToken(await revoke(), REVOKED);
  });

  it('what cannot be revoked: keys of no token, retired ones, unknown ones', async () => {
    for (const purpose of ['credential-hash', 'cursor'] as const) {
      const answer = await platform.post(`/keys/${activeKid(purpose)}/revoke`);
      expect([answer.status, answer.json.code]).toEqual([422, 'key_not_revocable']);
    }
    const refused = await gatehouse('keys', 'revoke', activeKid('credential-hash'));
    expect(refused).toEqual({
      code: 1,
      stdout: '',
      stderr:
        'Every secret and session that it hashed would end with it: rotate it, and revoke those that may have leaked\n',
    });
    const [retired] = await service.database.query<{ kid: string }>(
      `UPDATE keyring_key SET revoked_at = NULL WHERE revoked_reason = 'a drill' RETURNING kid`,
    );
    const answer = await platform.post(`/keys/${retired.kid}/revoke`);
    expect([answer.status, answer.json.code]).toEqual([422, 'key_not_revocable']);
    for (const kid of ['nobody', '%00', '..', 'x'.repeat(300)])
      expect((await platform.post(`/keys/${kid}/revoke`)).status).not.toBe(200);
    expect((await platform.post('/keys/nobody/revoke')).status).toBe(404);
  });

  it('LG-13 the platform’s admins alone, and only when they proved of late who they are', async () => {
    const admin = await join(platform, 'admin@keys.example');
    for (const [method, path, body] of [
      ['GET', '/keys', undefined],
      ['POST', '/keys/rotate', { purpose: 'token-seal' }],
      ['POST', `/keys/${activeKid('token-seal')}/revoke`, {}],
    ] as const) {
      const answer = await admin.call(method, path, body);
      expect([path, answer.status, answer.json.code]).toEqual([path, 403, 'insufficient_scope']);
      if (method === 'GET') continue;
      await at(service, 11 * MINUTE, async () => {
        const late = await platform.call(method, path, body);
        expect([path, late.status, late.json.code]).toEqual([path, 403, 'reauthentication_required']);
      });
    }
    for (const purpose of ['cursor', 'constructor', undefined])
      expect((await platform.post('/keys/rotate', { purpose })).status).toBe(400);
  });
});

describe('keys on schedule', () => {
  const age = (days: number) =>
    service.database.query(
      `UPDATE keyring_key SET activated_at = clock_timestamp() - make_interval(days => $1) WHERE purpose = 'token-sign' AND state = 'active'`,
      [days],
    );

  it('MD-05 CK-04 a signing key of 30 days is followed by the next: one, though every instance sees to it; it signs after twice max-age', async () => {
    const maintain = (of = instances) => Promise.all(of.map((instance) => instance.app.get(Keys).maintain()));
    const active = activeKid('token-sign');
    await age(29);
    await maintain();
    expect(await kids()).toEqual([active]);
    const never = await TestService.start({ ...PATIENT, SIGNING_KEY_ROTATION_DAYS: '0' }, service.database);
    await age(400);
    await maintain([never]);
    await never.stop();
    expect(await kids()).toEqual([active]);

    await age(31);
    const begun = (await eventsOf(service, 'key.published', 99)).length;
    await maintain();
    const published = await kids();
    expect(published).toEqual([active, expect.any(String)]);
    expect((await eventsOf(service, 'key.published', 99)).length).toBe(begun + 1);
    await maintain();
    for (const instance of instances) {
      expect(await kids(instance)).toEqual(published);
      expect(kidOf(await accessToken(instance, jwtAccount))).toBe(active);
    }
    await at(service, 570_000, () => maintain([service]));
    expect(kidOf(await accessToken(service, jwtAccount))).toBe(active);
    await at(service, 601_000, () => maintain([service]));
    for (const instance of instances) {
      const token = await accessToken(instance, jwtAccount);
      expect([kidOf(token), await statuses(token)]).toEqual([published[1], [200, 200, 200]]);
    }
    await maintain();
    expect(await kids()).toEqual(published); // the next one is not due for 30 days
  });

  it('MD-05 keys of credential hashes rotate too: new secrets name the new one, old secrets and sessions go on', async () => {
    const before = activeKid('credential-hash');
    const session = await service.signIn();
    const rotated = await gatehouse('keys', 'rotate', 'credential-hash');
    expect(rotated).toEqual({ code: 0, stdout: 'The next key is in use.\n', stderr: '' });
    const after = activeKid('credential-hash');
    expect(after).not.toBe(before);
    const account = await platform.createAccount('Young', ['companies:read']);
    const named = await service.database.query<{ kid: string }>(
      'SELECT k.kid FROM credential c JOIN keyring_key k ON k.id = c.hash_key_id WHERE c.id = ANY($1) ORDER BY c.id',
      [[jwtAccount.secret.id, account.secret.id]],
    );
    expect(named.map(({ kid }) => kid)).toEqual([before, after]);
    for (const instance of instances) {
      for (const { credentials } of [jwtAccount, account])
        expect((await instance.token(GRANT, credentials)).status).toBe(200);
      for (const { cookie } of [session, await service.signIn()])
        expect((await instance.request('GET', '/api/v1/session', { headers: { cookie } })).status).toBe(200);
    }
    await at(service, 2 * DAY_MS, () => service.app.get(Keys).maintain());
    expect(await rowOf(before)).toMatchObject({ state: 'retiring', wrapped: expect.any(Buffer) });
  });

  it('MD-07 lists of keys show no material', async () => {
    const pages = [];
    for (let cursor = ''; ; ) {
      const { json, text } = await platform.get(`/keys?limit=5${cursor}`);
      pages.push(...json.data);
      for (const { secret } of instances[0].app.get(Keyring).all('credential-hash'))
        expect(text).not.toContain(secret.export().toString('base64'));
      if (json.next_cursor === null) break;
      cursor = `&cursor=${json.next_cursor}`;
    }
    const rows = await service.database.query<{ kid: string }>('SELECT kid FROM keyring_key ORDER BY id DESC');
    expect(pages.map(({ kid }) => kid)).toEqual(rows.map(({ kid }) => kid));
    expect(Object.keys(pages[0])).not.toContain('wrapped');
    expect(new Set(pages.map(({ state }) => state))).toEqual(new Set(['active', 'retiring', 'retired', 'revoked']));

    const { stdout } = await gatehouse('keys', 'list');
    const lines = stdout.trimEnd().split('\n');
    expect(lines[0]).toMatch(/^PURPOSE +STATE +ALG +KID +CREATED +ACTIVE FROM +UNTIL +MASTER KEY$/);
    expect(lines.slice(1).map((line) => line.split(/ +/)[3])).toEqual(
      pages.filter(({ master_key_id }) => master_key_id !== null).map(({ kid }) => kid),
    );
    const all = (await gatehouse('keys', 'list', '--all')).stdout.trimEnd().split('\n');
    expect(all).toHaveLength(rows.length + 1);
  });
});

it('P5 a blind instance says 503 of a key that it does not know: it may be a new one', async () => {
  const token = await accessToken(instances[1], opaqueAccount);
  const clock = service.app.get(Clock);
  const monotonic = clock.monotonic.bind(clock);
  const unknown = token.replace(kidOf(token), 'A'.repeat(22));
  expect((await use(unknown)).status).toBe(401);
  clock.monotonic = () => monotonic() + 3_600_000;
  try {
    expect((await use(unknown)).status).toBe(503);
  } finally {
    Reflect.deleteProperty(clock, 'monotonic');
  }
});
