import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  accessToken,
  eventsOf,
  expectOAuthError,
  expectToken,
  expectTokenHeaders,
  GRANT,
  issuedTo,
  PATIENT,
} from '../support/oauth.js';
import { bearer, type Session, type TestAccount, TestService } from '../support/service.js';

const ALL = 'companies:read companies:write employees:write';
const FORM = { 'content-type': 'application/x-www-form-urlencoded' };

let service: TestService;
let admin: Session;
let account: TestAccount;

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  admin = await service.signIn();
  await admin.createOrganization('Token endpoint');
  account = await admin.createAccount('Concierge');
});
afterAll(() => service?.stop());

describe('what is issued', () => {
  it('TE-01 exactly the members of RFC 6749 §5.1, without refresh_token or id_token', async () => {
    expectToken(await service.token(GRANT, account.credentials), ALL);
  });

  it('RT-13 there is no refresh token for client credentials: none is issued, none is taken', async () => {
    const jwt = await admin.createAccount('Refresher', ['companies:read'], { token_format: 'jwt' });
    for (const { credentials } of [account, jwt]) {
      const { json } = await service.token(GRANT, credentials);
      expect(Object.keys(json).sort()).toEqual(['access_token', 'expires_in', 'scope', 'token_type']);
    }
    const refresh = { grant_type: 'refresh_token', refresh_token: 'client_ort_live_anything' };
    expectOAuthError(
      await service.token(refresh, account.credentials),
      400,
      'invalid_grant',
      /not one that this server supports/,
    );
  });

  it('TE-02 the headers of the secret that is made, and of its rotation', async () => {
    const path = `/service-accounts/${account.id}/secrets`;
    const made = await admin.post(path, { label: 'shown once' });
    const rotated = await admin.post(`${path}/${made.json.id}/rotate`);
    for (const answer of [made, rotated]) {
      expect(answer.status).toBe(201);
      expect(answer.json.secret).toMatch(/^client_sec_live_/);
      expectTokenHeaders(answer);
    }
  });

  it('TE-02 the headers of errors that no handler made: 404, 405, 413, 415', async () => {
    const at = (method: string, url: string, headers: Record<string, string>, body?: string) =>
      service.request(method, url, { headers, body });
    expectOAuthError(await at('GET', '/oauth/token', {}), 405, 'invalid_request');
    expect((await at('GET', '/oauth/token', {})).headers.allow).toBe('POST');
    expectOAuthError(await at('PUT', '/oauth/token', FORM, 'a=b'), 404, 'invalid_request');
    expectOAuthError(await at('POST', '/oauth/token', FORM, 'a'.repeat(16_385)), 413, 'invalid_request');
    expectOAuthError(await at('POST', '/oauth/token', { 'content-type': 'text/html' }, 'x'), 415, 'invalid_request');
    expectOAuthError(
      await at('POST', '/realms/other/protocol/openid-connect/token', FORM, 'grant_type=client_credentials'),
      404,
      'invalid_request',
    );
  });

  it('TE-14 a scope is a set: repeated and unordered tokens come back once and sorted', async () => {
    for (const scope of ['companies:write companies:write companies:read', 'companies:write companies:read']) {
      const token = expectToken(
        await service.token({ ...GRANT, scope }, account.credentials),
        'companies:read companies:write',
      );
      expect((await service.request('GET', '/companies', { headers: bearer(token) })).status).toBe(200);
    }
  });
});

describe('what is refused', () => {
  it('TE-04 credentials or parameters in the URL: nothing is issued, and the log has the path without the query', async () => {
    const before = await issuedTo(service, account);
    const { id, secret } = account.credentials;
    const names = [
      'client_secret',
      'client_assertion',
      'code',
      'refresh_token',
      'token',
      'code_verifier',
      'grant_type',
    ];
    for (const name of names) {
      const answer = await service.request('POST', `/oauth/token?${name}=${secret}`, {
        body: new URLSearchParams({ ...GRANT, client_id: id, client_secret: secret }).toString(),
        headers: FORM,
      });
      expectOAuthError(answer, 400, 'invalid_request', /URL/);
    }
    expect(await issuedTo(service, account)).toBe(before);
    const lines = service.logs.map((line) => JSON.parse(line)).filter(({ path }) => path?.startsWith('/oauth/token'));
    expect(lines.filter(({ status }) => status === 400).length).toBeGreaterThanOrEqual(names.length);
    expect(service.logs.join('')).not.toContain(secret);
    expect(lines.filter(({ path }) => path.includes('?'))).toEqual([]);
  });

  it('TE-05 grant_type missing or empty: invalid_grant, and it says so', async () => {
    for (const body of ['scope=companies%3Aread', 'grant_type=', 'grant_type', '']) {
      const answer = await service.token(body, account.credentials);
      expectOAuthError(answer, 400, 'invalid_grant', 'grant_type is missing; supported: client_credentials');
    }
  });

  it('TE-07 a grant that the server does not speak is refused only after authentication, and recorded', async () => {
    for (const grant_type of ['authorization_code', 'refresh_token', 'password', 'CLIENT_CREDENTIALS', 'toString']) {
      const answer = await service.token({ grant_type, code: 'x' }, account.credentials);
      expectOAuthError(answer, 400, 'invalid_grant', /^grant_type is not one that this server supports/);
      expect(await eventsOf(service, 'token.issued')).toMatchObject([
        { outcome: 'failure', reason: 'invalid_grant', actor_id: account.id, credential_id: account.secret.id },
      ]);
      const stranger = await service.token({ grant_type, code: 'x' }, { id: account.client_id, secret: 'wrong' });
      expectOAuthError(stranger, 401, 'invalid_client');
    }
  });

  it('TE-08 a repeated parameter, with the same value or another, in a form or in JSON', async () => {
    const before = await issuedTo(service, account);
    const { id, secret } = account.credentials;
    const good = { ...GRANT, client_id: id, client_secret: secret, scope: 'companies:read' };
    const others = { code: 'x', code_verifier: 'x', redirect_uri: 'x', client_assertion: 'x' };
    for (const name of [...Object.keys(good), ...Object.keys(others)]) {
      const value = { ...good, ...others }[name as keyof typeof good];
      for (const second of [value, `${value}2`]) {
        const form = new URLSearchParams(good);
        form.set(name, value);
        form.append(name, second);
        expectOAuthError(await service.token(form.toString()), 400, 'invalid_request', 'A parameter is repeated');
        const json = `${JSON.stringify({ ...good, [name]: value }).slice(0, -1)},${JSON.stringify(name)}:${JSON.stringify(second)}}`;
        const answer = await service.request('POST', '/oauth/token', {
          body: json,
          headers: { 'content-type': 'application/json' },
        });
        expectOAuthError(answer, 400, 'invalid_request', 'A parameter is repeated');
      }
    }
    expect(await issuedTo(service, account)).toBe(before);
  });

  it('TE-11 brackets are part of a name, never structure', async () => {
    const ignored = await service.token(
      'grant_type=client_credentials&scope[]=companies%3Aread&client_id[$ne]=x&a[b][c]=1',
      account.credentials,
    );
    expectToken(ignored, ALL);
    const twice = await service.token('grant_type=client_credentials&scope[]=a&scope[]=b', account.credentials);
    expectOAuthError(twice, 400, 'invalid_request', 'A parameter is repeated');
    expectOAuthError(await service.token('grant_type[]=client_credentials', account.credentials), 400, 'invalid_grant');
    const { id, secret } = account.credentials;
    const nested = await service.token(`grant_type=client_credentials&client_id[$ne]=x&client_secret=${secret}`);
    expectOAuthError(nested, 401, 'invalid_client');
    expect(id).toMatch(/^sa_[0-9A-Za-z]{22}$/);
  });

  it('TE-13 a scope beyond the allowance, or none at all, is refused without repeating it', async () => {
    const before = await issuedTo(service, account);
    const beyond = ['admin:access', 'companies:read admin:access', 'no:such', 'platform:admin', 'COMPANIES:READ'];
    const malformed = ['a"b', 'a\\b', 'a\u0001b', 'a\tb', 'a\nb', 'é', 'a\u2028b', 'a'.repeat(10_000), 'a'.repeat(129)];
    for (const scope of beyond) {
      const answer = await service.token({ ...GRANT, scope }, account.credentials);
      expectOAuthError(answer, 400, 'invalid_scope', 'A requested scope is not one that this client may use');
      expect(answer.text).not.toContain(scope);
    }
    for (const scope of malformed) {
      const answer = await service.token({ ...GRANT, scope }, account.credentials);
      expectOAuthError(answer, 400, 'invalid_scope', 'scope is not a list of scope tokens');
    }
    expect(await issuedTo(service, account)).toBe(before);
  });

  it('TE-17 whatever is sent, an error is made of fixed wording', async () => {
    const canary = 'canary"\\\r\nX-Canary: 1é\u2028';
    const cases: [Record<string, string>, { id: string; secret: string }?][] = [
      [{ grant_type: canary }, account.credentials],
      [{ ...GRANT, scope: canary }, account.credentials],
      [{ ...GRANT, client_id: canary }, account.credentials],
      [{ ...GRANT, client_id: canary, client_secret: canary }],
      [{ ...GRANT, client_id: account.client_id, client_secret: canary }],
      [{ ...GRANT, client_assertion: canary }],
      [{ ...GRANT, client_assertion_type: canary }, account.credentials],
      [GRANT, { id: canary, secret: canary }],
    ];
    for (const [parameters, credentials] of cases) {
      const answer = await service.token(parameters, credentials);
      expectOAuthError(answer, answer.status, answer.json.error);
      expect(answer.status).toBeGreaterThanOrEqual(400);
      expect(answer.status).toBeLessThan(500);
      expect(answer.text + JSON.stringify(answer.headers)).not.toMatch(/canary/i);
    }
  });

  it('TE-19 an issuance that the database does not record is a 503 without a token', async () => {
    await service.database.query(
      `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room'; END $$`,
    );
    await service.database.query(
      'CREATE TRIGGER refuse BEFORE INSERT ON audit_event FOR EACH ROW EXECUTE FUNCTION refuse()',
    );
    try {
      const answer = await service.token(GRANT, account.credentials);
      expectOAuthError(answer, 503, 'temporarily_unavailable');
      expect(answer.headers['retry-after']).toBe('1');
      // A refusal that cannot be recorded is no refusal either.
      const refused = await service.token(GRANT, { id: account.client_id, secret: 'wrong' });
      expectOAuthError(refused, 503, 'temporarily_unavailable');
    } finally {
      await service.database.query('DROP TRIGGER refuse ON audit_event');
    }
    expectToken(await service.token(GRANT, account.credentials), ALL);
  });

  it('TE-20 no origin may read a token: preflights and answers carry no CORS header', async () => {
    for (const origin of ['https://app.example', 'null', 'http://localhost:3000']) {
      const preflight = await service.request('OPTIONS', '/oauth/token', {
        headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' },
      });
      expect(preflight.status).toBe(404);
      const answer = await service.token(GRANT, account.credentials, { origin });
      expect(answer.status).toBe(200);
      for (const { headers } of [preflight, answer]) {
        expect(Object.keys(headers).filter((name) => name.startsWith('access-control-'))).toEqual([]);
      }
    }
  });
});

it('TE-05 D1 GRANT_TYPE_ERRORS=rfc6749 switches to the codes of RFC 6749 §5.2', async () => {
  const strict = await TestService.start({ ...PATIENT, GRANT_TYPE_ERRORS: 'rfc6749' }, service.database);
  try {
    const missing = await strict.token('scope=companies%3Aread', account.credentials);
    expectOAuthError(missing, 400, 'invalid_request', 'grant_type is missing; supported: client_credentials');
    const unknown = await strict.token({ grant_type: 'password' }, account.credentials);
    expectOAuthError(
      unknown,
      400,
      'unsupported_grant_type',
      'grant_type is not one that this server supports; supported: client_credentials',
    );
    // A token of one instance is good at the other.
    const token = await accessToken(strict, account);
    expect((await service.request('GET', '/companies', { headers: bearer(token) })).status).toBe(200);
  } finally {
    await strict.stop();
  }
});
