import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import pg from 'pg';
import { RevocationView } from '../../src/revocation/revocation-view.js';
import { Revocations } from '../../src/revocation/revocations.js';
import {
  accessToken,
  eventsOf,
  expectInvalidToken,
  expectOAuthError,
  expectTokenHeaders,
  introspect,
  PATIENT,
  postForm,
  revoke,
} from '../support/oauth.js';
import { at, MINUTE } from '../support/people.js';
import { type Answer, basic, bearer, type Session, type TestAccount, TestService } from '../support/service.js';

const PATHS = ['/oauth/revoke', '/realms/gatehouse/protocol/openid-connect/revoke'];
const FORMATS = ['opaque', 'jwt'];
const QUOTA = 30;

let service: TestService;
let other: TestService;
let admin: Session;
let organization: { id: string };
let accounts: Record<string, TestAccount>;
let neighbour: TestAccount;
let foreign: TestAccount;

beforeAll(async () => {
  const settings = { ...PATIENT, MAX_TOKEN_REVOCATIONS_PER_ORGANIZATION: String(QUOTA) };
  service = await TestService.start(settings);
  other = await TestService.start(settings, service.database);
  admin = await service.signIn();
  await admin.createOrganization('Elsewhere');
  foreign = await admin.createAccount('Foreign', ['companies:read']);
  organization = await admin.createOrganization('Revocation');
  accounts = {};
  for (const token_format of FORMATS)
    accounts[token_format] = await admin.createAccount(
      `Concierge ${token_format}`,
      ['companies:read', 'companies:write'],
      {
        token_format,
      },
    );
  neighbour = await admin.createAccount('Neighbour', ['companies:read']);
});
afterAll(async () => {
  await other?.stop();
  await service?.stop();
});
afterEach(() => {
  jest.restoreAllMocks();
});

/** RFC 7009 §2.2, with a body that clients can parse (CLIENTS.md: simple-oauth2). */
function expectDone(answer: Answer): void {
  expect([answer.status, answer.text]).toEqual([200, '{}']);
  expectTokenHeaders(answer);
}

const use = (token: string, on = service) => on.request('GET', '/companies', { headers: bearer(token) });
const idOf = async (token: string) => (await introspect(service, neighbour, token)).json.jti as string;
const lines = () =>
  service.database.query<{ subject_id: string; organization_id: string; epoch: number; left: number }>(
    `SELECT subject_id, organization_id, epoch, extract(epoch FROM matters_until - clock_timestamp())::float8 AS left
       FROM revocation WHERE kind = 'token' ORDER BY id`,
  );
const count = async (table: string) =>
  Number((await service.database.query<{ count: string }>(`SELECT count(*) FROM ${table}`))[0].count);

describe('a client’s own token', () => {
  it.each(FORMATS)(
    'IR-10 P1 (%s): dead on every instance when the 200 arrives, and its siblings alive',
    async (format) => {
      const account = accounts[format];
      for (const path of PATHS) {
        const [token, sibling] = [await accessToken(service, account), await accessToken(other, account)];
        const id = await idOf(token);
        for (const on of [service, other]) expect((await use(token, on)).status).toBe(200);
        expectDone(await postForm(service, path, { token, token_type_hint: 'access_token' }, account.credentials));
        for (const on of [other, service]) {
          expectInvalidToken(await use(token, on), 'The access token was revoked');
          expect((await introspect(on, neighbour, token)).text).toBe('{"active":false}');
          expect((await use(sibling, on)).status).toBe(200);
          expect((await introspect(on, neighbour, sibling)).json.active).toBe(true);
        }
        // It matters for as long as it would have lived, not for as long as the longest would.
        const line = (await lines()).find(({ subject_id }) => subject_id === id);
        expect(line).toMatchObject({ epoch: 1, organization_id: organization.id });
        expect(line!.left).toBeGreaterThan(3600 + 300 - 60);
        expect(line!.left).toBeLessThanOrEqual(3600 + 300);
      }
      expect((await service.token({ grant_type: 'client_credentials' }, account.credentials)).status).toBe(200);
    },
  );

  it('AU-01 P2 is recorded and listed: who, on which credential, which token, until when', async () => {
    const account = accounts.opaque;
    const token = await accessToken(service, account);
    const { jti, exp } = (await introspect(service, neighbour, token)).json;
    expectDone(await revoke(service, account, token));
    const [event] = await eventsOf(service, 'token.revoked');
    const name = expect.stringMatching(/^Concierge opaque, issued 20\d\d-\d\d-\d\dT[\d:.]+Z$/);
    expect(event).toMatchObject({
      outcome: 'success',
      organization_id: organization.id,
      actor_type: 'service_account',
      actor_id: account.id,
      actor_name: account.name,
      credential_id: account.secret.id,
      token_id: jti,
      targets: [{ type: 'access_token', id: jti, name }],
      changes: {
        credential_id: { from: account.secret.id },
        expires_at: { from: new Date(exp * 1000).toISOString() },
      },
    });
    expect((await admin.get(`/audit-events?target_id=${jti}`)).json.data).toHaveLength(1);
    const [listed] = (await admin.get('/revocations?limit=1')).json.data;
    expect(listed).toMatchObject({
      kind: 'token',
      subject_id: jti,
      subject_name: name,
      revoked_by: { type: 'service_account', id: account.id, name: account.name },
    });
    expect(Date.parse(listed.matters_until)).toBe((exp + 300) * 1000);
    expect(JSON.stringify([event, listed])).not.toContain(token);
  });

  it('IR-10 again, or twice at once: 200, one line and one event', async () => {
    const account = accounts.jwt;
    const token = await accessToken(service, account);
    const [before, events] = [(await lines()).length, await count('audit_event')];
    for (const answer of await Promise.all([service, other, service, other].map((on) => revoke(on, account, token))))
      expectDone(answer);
    expectDone(await revoke(other, account, token));
    expect([(await lines()).length, await count('audit_event')]).toEqual([before + 1, events + 1]);
  });

  it('IR-10 a token that died with its secret is dead: 200, and it costs nothing', async () => {
    const account = await admin.createAccount('Rotated', ['companies:read']);
    const token = await accessToken(service, account);
    const next = await admin.createSecret(account.id);
    await admin.post(`/service-accounts/${account.id}/secrets/${account.secret.id}/revoke`);
    const before = (await lines()).length;
    const credentials = { id: account.client_id, secret: next.secret };
    expectDone(await postForm(other, PATHS[0], { token }, credentials));
    expect((await lines()).length).toBe(before);
  });
});

describe('what is not the client’s own', () => {
  it('IR-11 unknown, garbage, expired, of another environment: 200, and nothing is done', async () => {
    const account = accounts.opaque;
    const token = await accessToken(service, account);
    const before = [(await lines()).length, await count('audit_event')];
    const nothing = ['x', 'eyJ.eyJ.x', 'client_oa2_test_x', `${token}A`, token.slice(0, -1), account.secret.secret];
    for (const text of [...nothing, 'a'.repeat(9000), '"\\\r\n'])
      for (const path of PATHS) expectDone(await postForm(service, path, { token: text }, account.credentials));
    await at(service, 61 * MINUTE, async () => {
      expectDone(await revoke(service, account, token));
      expectDone(await revoke(service, neighbour, token));
    });
    expect([(await lines()).length, await count('audit_event')]).toEqual(before);
    expect((await use(token)).status).toBe(200);
  });

  it('P1 a token of another client is refused and lives: a 200 would say that it is dead', async () => {
    for (const format of FORMATS) {
      const token = await accessToken(service, accounts[format]);
      const id = await idOf(token);
      for (const thief of [neighbour, foreign]) {
        const answer = await revoke(service, thief, token);
        expectOAuthError(answer, 400, 'unauthorized_client', 'The token was not issued to this client');
        const [event] = await eventsOf(service, 'token.revoked');
        expect(event).toMatchObject({
          outcome: 'failure',
          reason: 'unauthorized_client',
          actor_id: thief.id,
          credential_id: thief.secret.id,
          targets: [],
        });
        // Whose it was, the log of another organization is not told.
        expect(JSON.stringify(event)).not.toContain(id);
        expect(JSON.stringify(event)).not.toContain(accounts[format].id);
      }
      for (const on of [service, other]) expect((await use(token, on)).status).toBe(200);
    }
  });

  it('TE-04 TE-08 a request that is none: 400, 405, 415, and the token lives', async () => {
    const account = accounts.opaque;
    const token = await accessToken(service, account);
    const send = (body: string, type = 'application/x-www-form-urlencoded', url = PATHS[0]) =>
      service.request('POST', url, {
        body,
        headers: { 'content-type': type, authorization: basic(account.credentials) },
      });
    expectOAuthError(await send(''), 400, 'invalid_request', 'token is missing');
    expectOAuthError(await send('token='), 400, 'invalid_request', 'token is missing');
    expectOAuthError(await send(`token=${token}&token=${token}`), 400, 'invalid_request', 'A parameter is repeated');
    expectOAuthError(await send(`token=${token}&%zz`), 400, 'invalid_request');
    expectOAuthError(await send(`{"token":["${token}"]}`, 'application/json'), 400, 'invalid_request');
    expectOAuthError(await send(`token=${token}`, 'text/plain'), 415, 'invalid_request');
    expectOAuthError(await send('token=x', undefined, `${PATHS[0]}?token=${token}`), 400, 'invalid_request');
    const got = await service.request('GET', `${PATHS[1]}?token=${token}`);
    expectOAuthError(got, 405, 'invalid_request', 'This endpoint takes POST only');
    expect((await use(token)).status).toBe(200);
    expectDone(await send(`{"token":"${token}"}`, 'application/json'));
    expectInvalidToken(await use(token), 'The access token was revoked');
    expect(service.logs.join('')).not.toContain(token);
  });
});

describe('changes by a revoked token', () => {
  const push = (token: string, on = service) =>
    on.request('POST', '/companies', { body: { name: 'Too late' }, headers: bearer(token) });

  it.each(FORMATS)(
    'P1 (%s) are refused inside their transaction, even where the news has not arrived',
    async (format) => {
      const token = await accessToken(service, accounts[format]);
      expect((await push(token)).status).toBe(201);
      expectDone(await revoke(service, accounts[format], token));
      jest.spyOn(other.app.get(RevocationView), 'alive').mockReturnValue(true);
      const before = await count('company');
      const late = await push(token, other);
      expect([late.status, late.json.code]).toEqual([401, 'unauthenticated']);
      expect(await count('company')).toBe(before);
    },
  );

  it('P1 wait for a revocation that is under way, and then find it: what they saw before it counts for nothing', async () => {
    const account = accounts.opaque;
    const token = await accessToken(service, account);
    const id = await idOf(token);
    jest.spyOn(service.app.get(RevocationView), 'alive').mockReturnValue(true);
    const client = new pg.Client(service.database.superuser);
    await client.connect();
    try {
      await client.query('BEGIN');
      await client.query('SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text, 7315))', [id]);
      let answered = false;
      const waiting = push(token).finally(() => {
        answered = true;
      });
      for (let waits = 0; waits === 0; ) {
        const sql = `SELECT count(*)::int AS waits FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`;
        [{ waits }] = await service.database.query<{ waits: number }>(sql);
      }
      expect(answered).toBe(false);
      await client.query(
        `INSERT INTO revocation (id, kind, subject_id, subject_name, organization_id, epoch, actor_type, actor_name, matters_until)
         VALUES (nextval('revocation_id_seq'), 'token', $1, '', $2, 1, 'system', '', clock_timestamp() + interval '1 hour')`,
        [id, organization.id],
      );
      await client.query('COMMIT');
      expect((await waiting).status).toBe(401);
    } finally {
      await client.end();
    }
  });

  it('IR-10 a client whose secret was revoked since it authenticated revokes nothing: 401, as at the token endpoint', async () => {
    const token = await accessToken(service, accounts.opaque);
    jest.spyOn(service.app.get(Revocations), 'stillHeld').mockResolvedValue(false);
    const answer = await revoke(service, accounts.opaque, token);
    expectOAuthError(answer, 401, 'invalid_client', 'Client authentication failed');
    expect((await use(token)).status).toBe(200);
  });
});

describe('the quota', () => {
  it('RL-08 an organization revokes so many tokens one by one, then secrets; what has expired makes room; nobody else is touched', async () => {
    const crowded = await service.signIn();
    const { id } = await crowded.createOrganization('Crowded');
    const account = await crowded.createAccount('Busy', ['companies:read']);
    const seed = (n: number, left: string) =>
      service.database.query(
        `INSERT INTO revocation (id, kind, subject_id, subject_name, organization_id, epoch, actor_type, actor_name, matters_until)
         SELECT nextval('revocation_id_seq'), 'token', gen_random_uuid(), '', $1, 1, 'system', '', clock_timestamp() + $3::interval
           FROM generate_series(1, $2::int)`,
        [id, n, left],
      );
    await seed(QUOTA, '-1 second'); // expired: they count for nothing
    await seed(QUOTA - 1, '10 minutes');
    const [last, beyond] = [await accessToken(service, account), await accessToken(service, account)];
    expectDone(await revoke(service, account, last));
    const full = await revoke(service, account, beyond);
    expectOAuthError(full, 429, 'temporarily_unavailable', /revoke their secret, which ends all of them at once$/);
    const wait = Number(full.headers['retry-after']);
    expect(wait).toBeGreaterThan(540);
    expect(wait).toBeLessThanOrEqual(600);
    expect((await eventsOf(service, 'token.revoked'))[0]).toMatchObject({ outcome: 'failure', actor_id: account.id });
    expect((await use(beyond)).status).toBe(200);
    expectDone(await revoke(service, account, last)); // it costs no line
    const neighbours = await accessToken(service, accounts.jwt);
    expectDone(await revoke(service, accounts.jwt, neighbours));
    // The advice holds: one line ends all of them.
    await crowded.post(`/service-accounts/${account.id}/secrets/${account.secret.id}/revoke`);
    for (const on of [service, other]) expectInvalidToken(await use(beyond, on), 'The access token was revoked');
  });

  it('RL-08 RV-05 lines of tokens go once the tokens have expired, and not before; the newest line stays', async () => {
    const ids = async () =>
      (await service.database.query<{ subject_id: string }>('SELECT subject_id FROM revocation')).map(
        (r) => r.subject_id,
      );
    const add = async (kind: string, left: string) => {
      const [row] = await service.database.query<{ subject_id: string }>(
        `INSERT INTO revocation (id, kind, subject_id, subject_name, organization_id, epoch, actor_type, actor_name, matters_until)
         VALUES (nextval('revocation_id_seq'), $1, gen_random_uuid(), '', $2, 1, 'system', '', clock_timestamp() + $3::interval)
         RETURNING subject_id`,
        [kind, organization.id, left],
      );
      return row.subject_id;
    };
    const expired = await add('token', '-1 second');
    const living = await add('token', '1 minute');
    const secret = await add('secret', '-1 second');
    const newest = await add('token', '-1 second');
    const refusal = /what was revoked stays revoked/;
    for (const id of [living, secret])
      await expect(service.database.query('DELETE FROM revocation WHERE subject_id = $1', [id])).rejects.toThrow(
        refusal,
      );
    await service.app.get(Revocations).prune();
    const left = await ids();
    expect([expired, living, secret, newest].map((id) => left.includes(id))).toEqual([false, true, true, true]);
    expect((await use(await accessToken(service, accounts.opaque))).status).toBe(200); // the head never fell
  });
});
