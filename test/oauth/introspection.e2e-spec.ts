import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { PLATFORM_ORGANIZATION } from '../../src/kernel/actor.js';
import { RevocationFeed } from '../../src/revocation/revocation-feed.js';
import { RevocationView } from '../../src/revocation/revocation-view.js';
import {
  accessToken,
  expectOAuthError,
  expectTokenHeaders,
  introspect,
  PATIENT,
  postForm,
  revoke,
} from '../support/oauth.js';
import { at, MINUTE } from '../support/people.js';
import { queriesDuring } from '../support/queries.js';
import { type Answer, basic, bearer, ISSUER, type Session, type TestAccount, TestService } from '../support/service.js';

const PATHS = ['/oauth/introspect', '/realms/gatehouse/protocol/openid-connect/token/introspect'];

let service: TestService;
let admin: Session;
let organization: { id: string };
let api: TestAccount;
let opaque: TestAccount;
let jwt: TestAccount;
let foreign: TestAccount;

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  admin = await service.signIn();
  await admin.createOrganization('Elsewhere');
  foreign = await admin.createAccount('Foreign', ['companies:read', 'tokens:introspect']);
  organization = await admin.createOrganization('Introspection');
  api = await admin.createAccount('Orders API', ['tokens:introspect']);
  opaque = await admin.createAccount('Opaque', ['companies:read', 'companies:write']);
  jwt = await admin.createAccount('JWT', ['companies:read', 'companies:write'], {
    token_format: 'jwt',
    token_ttl_seconds: 900,
  });
});
afterAll(() => service?.stop());
afterEach(() => {
  jest.restoreAllMocks();
});

/** RFC 7662 §2.2: exactly this, whatever the reason. */
function expectInactive(answer: Answer): void {
  expect([answer.status, answer.text]).toEqual([200, '{"active":false}']);
  expectTokenHeaders(answer);
}

const byBearer = (token: string, about: string, parameters: Record<string, string> = {}) =>
  postForm(service, '/oauth/introspect', { token: about, ...parameters }, undefined, bearer(token));

/** A refusal of the bearer: RFC 6750's challenge, and the form of error that OAuth endpoints have. */
function expectBearerError(answer: Answer, status: number, error: string, more = ''): void {
  expect([answer.status, answer.json?.error]).toEqual([status, error]);
  expectTokenHeaders(answer);
  const { error_description } = answer.json;
  expect(error_description).toMatch(/^[\x20-\x21\x23-\x5B\x5D-\x7E]+$/);
  expect(answer.headers['www-authenticate']).toBe(
    `Bearer realm="gatehouse", error="${error}", error_description="${error_description}"${more}`,
  );
}

describe('who may ask', () => {
  it('IR-01 nobody without credentials: 401 with the Basic challenge, on every path', async () => {
    const token = await accessToken(service, opaque);
    for (const path of PATHS) {
      const answer = await postForm(service, path, { token });
      expectOAuthError(answer, 401, 'invalid_client', 'The request carries no client credentials');
      const wrong = await postForm(service, path, { token }, { ...api.credentials, secret: 'wrong' });
      expectOAuthError(wrong, 401, 'invalid_client', 'Client authentication failed');
    }
  });

  it('IR-01 a bearer without the scope: 403; one that is none: 401; one that holds it may ask', async () => {
    const about = await accessToken(service, opaque);
    const weak = await byBearer(await accessToken(service, jwt), about);
    expectBearerError(weak, 403, 'insufficient_scope', ', scope="tokens:introspect"');
    const expired = await accessToken(service, api);
    expectBearerError(await byBearer('x', about), 401, 'invalid_token');
    await at(service, 61 * MINUTE, async () => expectBearerError(await byBearer(expired, about), 401, 'invalid_token'));
    const good = await byBearer(await accessToken(service, api), about);
    expect([good.status, good.json.active, good.json.client_id]).toEqual([200, true, opaque.client_id]);
    expectTokenHeaders(good);
    // A scope that was taken from the account is not one that its token holds.
    const former = await admin.createAccount('Former API', ['companies:read', 'tokens:introspect']);
    const formerToken = await accessToken(service, former);
    await admin.patch(`/service-accounts/${former.id}`, { scopes: ['companies:read'] });
    expectBearerError(await byBearer(formerToken, about), 403, 'insufficient_scope', ', scope="tokens:introspect"');
  });

  it('IR-01 one way to authenticate: a bearer beside credentials, or two of them, is 400', async () => {
    const [token, about] = [await accessToken(service, api), await accessToken(service, opaque)];
    const { id: client_id, secret: client_secret } = api.credentials;
    const both: Record<string, string>[] = [{ client_id, client_secret }, { client_assertion: 'e.e.e' }];
    for (const more of both) {
      const answer = await byBearer(token, about, more);
      expectBearerError(answer, 400, 'invalid_request');
      expect(answer.json.error_description).toBe('The request authenticates in more than one way');
    }
    for (const authorization of ['Bearer', 'bearer ', `Bearer ${token} ${token}`, `Bearer ${token}, Bearer ${token}`]) {
      const answer = await postForm(service, PATHS[0], { token: about }, undefined, { authorization });
      expectBearerError(answer, 400, 'invalid_request');
    }
    // A name beside a bearer authenticates nobody.
    expect((await byBearer(token, about, { client_id })).json.active).toBe(true);
  });

  it('IR-01 an API’s own account can be limited to introspecting: that it can, by both ways, and nothing else', async () => {
    const about = await accessToken(service, opaque);
    const token = await accessToken(service, api);
    expect((await introspect(service, api, about)).json.active).toBe(true);
    expect((await byBearer(token, about)).json.active).toBe(true);
    const refused: [string, string, Record<string, unknown>?][] = [
      ['GET', '/companies'],
      ['POST', '/companies', { name: 'x' }],
      ['GET', '/api/v1/service-accounts'],
      ['POST', `/api/v1/service-accounts/${api.id}/secrets`, {}],
      ['PATCH', `/api/v1/service-accounts/${api.id}`, { scopes: ['companies:read'] }],
      ['GET', '/api/v1/users'],
      ['GET', '/api/v1/audit-events'],
      ['GET', '/api/v1/revocations'],
      ['GET', '/api/v1/organizations'],
      ['POST', '/api/v1/scopes', { name: 'x', description: 'x' }],
    ];
    for (const [method, url, body] of refused)
      expect([url, (await service.request(method, url, { body, headers: bearer(token) })).status]).toEqual([url, 403]);
    expectOAuthError(await revoke(service, api, about), 400, 'unauthorized_client');
    expect((await introspect(service, api, about)).json.active).toBe(true);
  });

  it('IR-02 an account of the platform that holds the scope may ask about every organization’s; others may not', async () => {
    const root = await service.signIn();
    await root.patch('/session', { organization_id: PLATFORM_ORGANIZATION });
    const everywhere = await root.createAccount('Platform API', ['tokens:introspect']);
    const plain = await root.createAccount('Platform job', ['companies:read']);
    for (const about of [await accessToken(service, opaque), await accessToken(service, jwt)]) {
      expect((await introspect(service, everywhere, about)).json).toMatchObject({
        active: true,
        org_id: organization.id,
      });
      expect((await byBearer(await accessToken(service, everywhere), about)).json.active).toBe(true);
      expectInactive(await introspect(service, plain, about));
      expectInactive(await introspect(service, foreign, about));
      expectInactive(await byBearer(await accessToken(service, foreign), about));
    }
    // Its own organization's it may ask about without the scope, as any.
    const own = await accessToken(service, everywhere);
    expect((await introspect(service, plain, own)).json.active).toBe(true);
    expectInactive(await introspect(service, opaque, own));
  });
});

describe('what is told', () => {
  it.each(['opaque', 'jwt'])('IR-05 of an active token (%s): its claims, and no more', async (format) => {
    const account = format === 'jwt' ? jwt : opaque;
    const token = await accessToken(service, account);
    for (const path of PATHS) {
      const answer = await postForm(service, path, { token, token_type_hint: 'access_token' }, api.credentials);
      expect([answer.status, answer.json]).toEqual([
        200,
        {
          active: true,
          iss: ISSUER,
          sub: account.id,
          aud: ISSUER,
          client_id: account.client_id,
          scope: 'companies:read companies:write',
          exp: answer.json.iat + (format === 'jwt' ? 900 : 3600),
          iat: expect.any(Number),
          jti: expect.stringMatching(/^[0-9a-f-]{36}$/),
          token_type: 'Bearer',
          org_id: organization.id,
          credential_id: account.secret.id,
        },
      ]);
      expectTokenHeaders(answer);
      expect(answer.text).not.toContain(account.secret.secret.slice(-10));
      expect(Math.abs(answer.json.iat * 1000 - Date.now())).toBeLessThan(60_000);
    }
    if (format === 'jwt') {
      const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString());
      const { active: _, token_type: __, ...told } = (await introspect(service, api, token)).json;
      expect(claims).toMatchObject(told);
    }
  });

  it('IR-05 the scope is what may be used now; a hint that nobody knows changes nothing', async () => {
    const account = await admin.createAccount('Reduced', ['companies:read', 'companies:write']);
    const token = await accessToken(service, account);
    const asked = { token, token_type_hint: 'refresh_token' };
    const scope = async () => (await postForm(service, PATHS[0], asked, api.credentials)).json.scope;
    expect(await scope()).toBe('companies:read companies:write');
    await admin.patch(`/service-accounts/${account.id}`, { scopes: ['companies:read'] });
    expect(await scope()).toBe('companies:read');
    await admin.patch(`/service-accounts/${account.id}`, { scopes: [] });
    expect(await scope()).toBe('');
  });

  it('CT-02 a JSON body is answered as a form is', async () => {
    const token = await accessToken(service, opaque);
    const answer = await service.request('POST', PATHS[0], {
      body: { token, client_id: api.client_id, client_secret: api.credentials.secret },
    });
    expect(answer.json).toEqual((await introspect(service, api, token)).json);
  });

  it('IR-02 a dead token: exactly {"active":false}, for whatever reason, without asking the database', async () => {
    const mine = async (settings: Record<string, unknown> = {}) => {
      const account = await admin.createAccount(`Dead ${Math.random()}`, ['companies:read'], settings);
      return { account, token: await accessToken(service, account) };
    };
    const dead: string[] = ['x', 'eyJ', 'eyJ.eyJ.x', 'client_oa2_live_0123456789abcdef', 'client_oa2_test_x'.repeat(3)];
    for (const settings of [{}, { token_format: 'jwt' }]) {
      const [revoked, disabled, secretless, deleted, good] = await Promise.all(
        [1, 2, 3, 4, 5].map(() => mine(settings)),
      );
      expect((await revoke(service, revoked.account, revoked.token)).status).toBe(200);
      await admin.post(`/service-accounts/${disabled.account.id}/disable`);
      const { id, secret } = secretless.account;
      await admin.post(`/service-accounts/${id}/secrets/${secret.id}/revoke`);
      await admin.delete(`/service-accounts/${deleted.account.id}`);
      dead.push(...[revoked, disabled, secretless, deleted].map(({ token }) => token));
      dead.push(`${good.token.slice(0, -3)}AAA`, good.token.slice(0, -1), `${good.token}A`, good.token.toUpperCase());
      expect((await introspect(service, api, good.token)).json.active).toBe(true);
    }
    dead.push(await accessToken(service, foreign), api.secret.secret, foreign.client_id);
    await introspect(service, api, dead.at(-3)!); // whoever it belongs to is in memory from here on
    const asked = await queriesDuring(async () => {
      for (const token of dead) expectInactive(await introspect(service, api, token));
    });
    expect(asked).toEqual([]);
    const short = await mine({ token_ttl_seconds: 60 });
    await at(service, MINUTE, async () => expectInactive(await introspect(service, api, short.token)));
    expect((await introspect(service, api, short.token)).json.active).toBe(true);
  });

  it('IR-02 a disabled organization’s tokens are dead to the platform too', async () => {
    const root = await service.signIn();
    await root.patch('/session', { organization_id: PLATFORM_ORGANIZATION });
    const everywhere = await root.createAccount('Auditing API', ['tokens:introspect']);
    const other = await service.signIn();
    const { id } = await other.createOrganization('Ends soon');
    const token = await accessToken(service, await other.createAccount('Ends too', ['companies:read']));
    expect((await introspect(service, everywhere, token)).json.active).toBe(true);
    await root.patch(`/organizations/${id}`, { disabled: true });
    expectInactive(await introspect(service, everywhere, token));
  });

  it('IR-19 no answer may be kept, and the documentation says what keeping one costs', async () => {
    for (const token of [await accessToken(service, opaque), 'x']) {
      const answer = await introspect(service, api, token);
      expect(answer.headers['cache-control']).toBe('no-store');
      expectTokenHeaders(answer);
    }
    const { json } = await service.request('GET', '/openapi.json');
    expect(json.paths['/oauth/introspect'].post.description).toMatch(
      /who caches it accepts a token for that long after it was revoked/,
    );
  });

  it('nothing is recorded of a question, an answer or a token', async () => {
    const count = async () =>
      Number((await service.database.query<{ count: string }>('SELECT count(*) FROM audit_event'))[0].count);
    const token = await accessToken(service, opaque);
    const before = await count();
    for (const text of [token, 'x']) await introspect(service, api, text);
    expect(await count()).toBe(before);
    await introspect(service, { ...api, credentials: { ...api.credentials, secret: 'wrong' } }, token);
    expect(await count()).toBe(before + 1); // the refusal, as at every endpoint (AU-01)
    expect(service.logs.join('')).not.toContain(token);
  });
});

describe('how it is asked', () => {
  it('IR-07 TE-04 by POST, the token in the body: GET is 405, a token in the URL 400, and the log has no query', async () => {
    const token = await accessToken(service, opaque);
    const authorization = basic(api.credentials);
    for (const path of PATHS) {
      for (const url of [path, `${path}?token=${token}`]) {
        const got = await service.request('GET', url, { headers: { authorization } });
        expectOAuthError(got, 405, 'invalid_request', 'This endpoint takes POST only');
        expect(got.headers.allow).toBe('POST');
      }
      for (const url of [`${path}?token=${token}`, `${path}/?client_secret=x`]) {
        const posted = await postForm(service, url, { token }, api.credentials);
        expectOAuthError(posted, 400, 'invalid_request', 'Parameters go into the body, never into the URL');
      }
    }
    expect(service.logs.join('')).toContain('"path":"/oauth/introspect"');
    expect(service.logs.join('')).not.toContain(token);
  });

  it('TE-08 TE-17 CT-07 a body without a token, with two, or of another type', async () => {
    const ask = (body: string, type = 'application/x-www-form-urlencoded') =>
      service.request('POST', PATHS[0], {
        body,
        headers: { 'content-type': type, authorization: basic(api.credentials) },
      });
    expectOAuthError(await ask(''), 400, 'invalid_request', 'token is missing');
    expectOAuthError(await ask('token='), 400, 'invalid_request', 'token is missing');
    expectOAuthError(await ask('token=a&token=b'), 400, 'invalid_request', 'A parameter is repeated');
    expectOAuthError(await ask('token[]=a'), 400, 'invalid_request', 'token is missing');
    expectOAuthError(await ask('{"token":["a"]}', 'application/json'), 400, 'invalid_request');
    expectOAuthError(await ask('token=a', 'text/plain'), 415, 'invalid_request');
    expectOAuthError(await ask(`token=${'a'.repeat(16_400)}`), 413, 'invalid_request');
    expectInactive(await ask(`token=${'a'.repeat(9000)}`));
    expectInactive(await ask('token=%22%5C%0D%0A'));
  });

  it('TE-20 D9 no page of another origin reads it, trailing slashes never matter, and other realms are none', async () => {
    const token = await accessToken(service, opaque);
    for (const path of [...PATHS, ...PATHS.map((path) => `${path}/`)]) {
      const answer = await postForm(service, path, { token }, api.credentials, { origin: 'https://evil.example' });
      expect([path, answer.json.active]).toEqual([path, true]);
      expectTokenHeaders(answer);
    }
    const none = await postForm(service, PATHS[1].replace('gatehouse', 'other'), { token }, api.credentials);
    expect(none.status).toBe(404);
  });
});

describe('P5 closed when blind', () => {
  it('IR-08 without news of revocations: 503 with Retry-After, never an answer; and again when there is news', async () => {
    const blind = await TestService.start({ REVOCATION_BOUND_MS: '500' }, service.database);
    try {
      const feed = blind.app.get(RevocationFeed) as unknown as { poll(): Promise<void> };
      const view = blind.app.get(RevocationView);
      const tokens = [await accessToken(service, opaque), await accessToken(service, jwt)];
      const asking = await accessToken(service, api);
      const ask = (token: string) => [
        introspect(blind, api, token),
        postForm(blind, PATHS[1], { token }, undefined, bearer(asking)),
        revoke(blind, opaque, token),
      ];
      jest.spyOn(feed, 'poll').mockRejectedValue(new Error('cut off'));
      while (view.staleness() === undefined) await new Promise((resolve) => setTimeout(resolve, 20));
      for (const token of tokens) {
        for (const answer of await Promise.all(ask(token))) {
          expectOAuthError(answer, 503, 'temporarily_unavailable', 'The service cannot answer safely at the moment');
          expect(answer.headers['retry-after']).toBe('1');
        }
      }
      jest.restoreAllMocks();
      while (view.staleness() !== undefined) await new Promise((resolve) => setTimeout(resolve, 20));
      for (const token of tokens) expect((await introspect(blind, api, token)).json.active).toBe(true);
    } finally {
      await blind.stop();
    }
  });
});
