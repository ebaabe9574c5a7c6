import { createHmac, type KeyObject } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { SignJWT } from 'jose';
import { Keyring } from '../../src/keyring/keyring.js';
import {
  accessToken,
  expectInvalidRequest,
  expectInvalidToken,
  expectRefused,
  PATIENT,
  untilClosed,
} from '../support/oauth.js';
import { queriesDuring } from '../support/queries.js';
import { bearer, ISSUER, type Session, type TestAccount, TestService } from '../support/service.js';

let service: TestService;
let admin: Session;
let account: TestAccount;
let jwtAccount: TestAccount;
let token: string;
let jwt: string;

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  admin = await service.signIn();
  await admin.createOrganization('Bearer');
  account = await admin.createAccount('Concierge', ['companies:read']);
  jwtAccount = await admin.createAccount('JWT', ['companies:read'], { token_format: 'jwt' });
  token = await accessToken(service, account);
  jwt = await accessToken(service, jwtAccount);
});
afterAll(() => service?.stop());
afterEach(() => {
  jest.restoreAllMocks();
});

const call = (headers: Record<string, string>, url = '/companies', method = 'GET', body?: Record<string, unknown>) =>
  service.request(method, url, { headers, body });

describe('how a token is presented', () => {
  it('BR-01 in the Authorization header, the scheme in any case (D3), both formats', async () => {
    for (const good of [token, jwt]) {
      for (const scheme of ['Bearer', 'bearer', 'BEARER', 'bEaReR']) {
        const answer = await call({ authorization: `${scheme} ${good}` });
        expect([answer.status, answer.json]).toEqual([200, { data: [], next_cursor: null }]);
      }
    }
  });

  it('BR-02 never in the URL: it is not read, and the log has no query', async () => {
    expectInvalidRequest(
      await call({}, `/companies?access_token=${token}`),
      'An access token goes into the Authorization header',
    );
    expect(service.logs.join('')).toContain('"path":"/companies"');
    expect(service.logs.join('')).not.toContain(token);
  });

  it('BR-04 once, and in one place', async () => {
    const inUrl = await call(bearer(token), `/companies?access_token=${token}`);
    expectInvalidRequest(inUrl, 'An access token goes into the Authorization header');
    for (const two of [`Bearer ${token}, Bearer ${token}`, `Bearer ${token},${token}`, `Bearer ${token} ${token}`]) {
      expectInvalidRequest(await call({ authorization: two }), 'The Authorization header is not one bearer token');
    }
    for (const second of [`Bearer ${token}`, 'Basic eDp5']) {
      const lines = [`Authorization: Bearer ${token}`, `authorization: ${second}`, 'Connection: close', '', ''];
      const received = await untilClosed(
        service,
        `GET /companies HTTP/1.1\r\nHost: localhost\r\n${lines.join('\r\n')}`,
      );
      expect(received).toMatch(/^HTTP\/1\.1 400 /);
      expect(received).toContain(
        'www-authenticate: Bearer realm="gatehouse", error="invalid_request", error_description="The Authorization header is not one bearer token"',
      );
    }
    // RFC 6750 §2.2's form is not spoken here, and a member of that name is none of ours.
    const form = await service.request('POST', '/companies', {
      body: `access_token=${token}`,
      headers: { ...bearer(token), 'content-type': 'application/x-www-form-urlencoded' },
    });
    expect([form.status, form.json.code]).toEqual([415, 'unsupported_media_type']);
    const writer = await admin.createAccount('Writer', ['companies:write']);
    const json = await call(bearer(await accessToken(service, writer)), '/companies', 'POST', {
      name: 'x',
      access_token: token,
    });
    expect([json.status, json.json.code]).toEqual([400, 'validation_failed']);
  });

  it('BR-05 no token, or another scheme: a challenge without an error', async () => {
    for (const headers of [
      {},
      { authorization: 'Basic eDp5' },
      { authorization: 'Negotiate YII=' },
      { authorization: token },
    ]) {
      expectRefused(await call(headers as Record<string, string>), 401, 'unauthenticated', 'Bearer realm="gatehouse"');
    }
    for (const nothing of ['Bearer', 'Bearer ', 'Bearer   ']) {
      expectInvalidRequest(await call({ authorization: nothing }), 'The Authorization header is not one bearer token');
    }
  });

  it('BR-08 a challenge is fixed wording, whatever was sent', async () => {
    const canary = 'canary';
    const texts = [
      '"',
      '\\',
      '\t',
      ',',
      ';',
      '=',
      '%0d%0a',
      '{}',
      '<b>',
      '\u00e9',
      '..',
      'eyJ',
      'client_oa2_live_',
      'client_oa2_test_',
    ];
    for (const text of texts) {
      for (const value of [
        `Bearer ${canary}${text}`,
        `Bearer ${text}${canary}`,
        `${text}${canary} x`,
        `Bearer ${canary} ${text}`,
      ]) {
        for (const url of [
          '/companies',
          `/companies?limit=${encodeURIComponent(text + canary)}`,
          `/api/v1/${canary}`,
        ]) {
          const answer = await call({ authorization: value, 'x-request-id': canary }, url);
          expect(answer.status).toBeLessThan(500);
          const challenge = answer.headers['www-authenticate'];
          if (challenge !== undefined)
            expect(challenge).toMatch(/^Bearer realm="gatehouse"(, [a-z_]+="[\x20-\x21\x23-\x5B\x5D-\x7E]*")*$/);
          expect(JSON.stringify(answer.headers) + answer.text).not.toContain(canary);
        }
      }
    }
  });

  it('BR-13 a session cookie is no bearer token, a bearer token no cookie', async () => {
    const value = admin.cookie.split('=')[1];
    expectInvalidToken(await call(bearer(value)));
    for (const cookie of [`session=${token}`, `session=${jwt}`, `__Host-session=${value}`]) {
      expectRefused(await call({ cookie }, '/api/v1/session'), 401, 'unauthenticated', 'Bearer realm="gatehouse"');
    }
    // A token decides when both are there: a bad one is not made up for by a good cookie.
    expectInvalidToken(await call({ ...bearer('x'), cookie: admin.cookie }));
  });
});

describe('what a token may do', () => {
  it('BR-07 a scope that is missing is named', async () => {
    const answer = await call(bearer(token), '/companies', 'POST', { name: 'x' });
    expectRefused(
      answer,
      403,
      'insufficient_scope',
      'Bearer realm="gatehouse", error="insufficient_scope", error_description="The access token lacks a scope", scope="companies:write"',
    );
  });

  it('BR-14 a service account has no more of the management API than its scopes, and cannot widen them', async () => {
    const reads: [string, string, Record<string, unknown>?][] = [
      ['GET', '/api/v1/service-accounts'],
      ['POST', '/api/v1/service-accounts', { name: 'x', scopes: [] }],
      ['PATCH', `/api/v1/service-accounts/${account.id}`, { scopes: ['admin:access'] }],
      ['POST', `/api/v1/service-accounts/${account.id}/secrets`, {}],
      ['GET', `/api/v1/service-accounts/${account.id}/keys`],
      ['POST', `/api/v1/service-accounts/${account.id}/keys`, { jwk: {} }],
      ['GET', '/api/v1/users'],
      ['POST', '/api/v1/users', { email: 'x@example.com', name: 'x', role: 'admin' }],
      ['GET', '/api/v1/organizations'],
      ['POST', '/api/v1/scopes', { name: 'x', description: 'x' }],
      ['GET', '/api/v1/audit-events'],
      ['GET', '/api/v1/revocations'],
      ['GET', '/api/v1/session'],
    ];
    for (const [method, url, body] of reads) {
      const answer = await call(bearer(token), url, method, body);
      expect([url, answer.status]).toEqual([url, 403]);
    }
    // One that may manage accounts grants itself nothing that it does not hold.
    const manager = await admin.createAccount('Manager', ['admin:access', 'companies:read']);
    const managing = bearer(await accessToken(service, manager));
    const self = `/api/v1/service-accounts/${manager.id}`;
    for (const scopes of [['admin:access', 'companies:read', 'companies:write'], ['audit:read']]) {
      const answer = await call(managing, self, 'PATCH', { scopes });
      expect([answer.status, answer.json.code]).toEqual([403, 'scope_not_held']);
    }
    const beyond = await call(managing, self, 'PATCH', { scopes: ['platform:admin'] });
    expect([beyond.status, beyond.json.code]).toEqual([422, 'scope_beyond_ceiling']);
    expect((await call(managing, self)).json.scopes).toEqual(['admin:access', 'companies:read']);
  });
});

describe('which tokens are ours', () => {
  const claimsOf = (text: string) => JSON.parse(Buffer.from(text.split('.')[1], 'base64url').toString());
  const key = () => service.app.get(Keyring).active('token-sign');
  const signed = (
    changes: Record<string, unknown>,
    header: Record<string, unknown> = {},
    secret?: KeyObject | Uint8Array,
  ) =>
    new SignJWT({ ...claimsOf(jwt), ...changes })
      .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid: key().kid, ...header })
      .sign(secret ?? key().secret);

  it('BR-10 the issuer and the audience exactly, even under our own key', async () => {
    expect((await call(bearer(await signed({})))).status).toBe(200);
    for (const iss of [
      'https://other.example',
      `${ISSUER}/`,
      `${ISSUER}.evil.example`,
      ISSUER.toUpperCase(),
      '',
      undefined,
    ]) {
      expectInvalidToken(await call(bearer(await signed({ iss }))));
    }
    const wrong = 'The access token is for another audience';
    for (const aud of [
      'https://api.example',
      `${ISSUER}/`,
      `${ISSUER}/api`,
      ISSUER.slice(0, -1),
      '',
      [],
      ['https://api.example'],
    ]) {
      expectInvalidToken(await call(bearer(await signed({ aud }))), wrong);
    }
    for (const aud of [[ISSUER], ['https://api.example', ISSUER]]) {
      expect((await call(bearer(await signed({ aud })))).status).toBe(200);
    }
  });

  it('BR-11 an unknown or retired key, no algorithm, another algorithm, another type: refused without asking the database', async () => {
    const [head, body, signature] = jwt.split('.');
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const unsigned = (alg: string) => `${part({ alg, typ: 'at+jwt', kid: key().kid })}.${body}.`;
    const publicKey = key().publicKey!.export({ format: 'pem', type: 'spki' });
    const hs = `${part({ alg: 'HS256', typ: 'at+jwt', kid: key().kid })}.${body}`;
    const flipped = Buffer.from(signature, 'base64url');
    flipped[10] ^= 1;
    const forged = [
      await signed({}, { kid: 'unknown' }),
      await signed({}, { kid: undefined }),
      await signed({}, { kid: '../../etc/passwd' }),
      await signed({}, { kid: "x' OR 1=1--" }),
      await signed({}, { kid: 'x'.repeat(4000) }),
      await signed({}, { typ: 'JWT' }),
      await signed({}, { typ: undefined }),
      ...['none', 'None', 'nOnE', ''].map(unsigned),
      `${hs}.${createHmac('sha256', publicKey).update(hs).digest('base64url')}`,
      `${head}.${body}.${flipped.toString('base64url')}`,
      `${head}.${part({ ...claimsOf(jwt), scope: 'admin:access' })}.${signature}`,
      `${head}.${body}`,
      `${head}.${body}.`,
      `${jwt}.x`,
      `${jwt}=`,
      'eyJ',
      'eyJ.eyJ.x',
      `${part({ alg: 'ES256', typ: 'at+jwt', kid: key().kid, crit: ['exp'] })}.${body}.${signature}`,
    ];
    const asked = await queriesDuring(async () => {
      for (const text of forged) expectInvalidToken(await call(bearer(text)));
    });
    expect(asked).toEqual([]);
  });

  it('BR-17 an opaque token with one octet changed, cut or added: refused without asking the database', async () => {
    const prefix = 'client_oa2_live_'.length;
    const forged = [prefix, prefix + 21, prefix + 22, prefix + 40, token.length - 1].map(
      (at) => token.slice(0, at) + (token[at] === 'A' ? 'B' : 'A') + token.slice(at + 1),
    );
    forged.push(
      token.slice(0, -1),
      `${token}A`,
      `${token}=`,
      token.slice(0, prefix),
      token.slice(0, prefix + 22),
      `x${token}`,
    );
    forged.push('client_oa2_live_0123456789abcdef', token.replace('client_', 'other_'), `${'a'.repeat(9000)}`);
    const asked = await queriesDuring(async () => {
      for (const text of forged) expectInvalidToken(await call(bearer(text)));
    });
    expect(asked).toEqual([]);
    expect((await call(bearer(token))).status).toBe(200);
  });
});
