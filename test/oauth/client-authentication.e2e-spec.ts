import crypto, { createHmac } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { Passwords } from '../../src/organizations/passwords.js';
import {
  accessToken,
  eventsOf,
  expectOAuthError,
  expectToken,
  GRANT,
  issuedTo,
  PATIENT,
  untilClosed,
} from '../support/oauth.js';
import { basic, bearer, type Session, type TestAccount, TestService } from '../support/service.js';

const REFUSED = 'Client authentication failed';

let service: TestService;
let other: TestService;
let admin: Session;
let account: TestAccount;
let foreign: TestAccount;

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  other = await TestService.start(PATIENT, service.database);
  admin = await service.signIn();
  await admin.createOrganization('Elsewhere');
  foreign = await admin.createAccount('Foreign', ['companies:read']);
  await admin.createOrganization('Client authentication');
  account = await admin.createAccount('Concierge', ['companies:read']);
});
afterAll(async () => {
  await other?.stop();
  await service?.stop();
});
afterEach(() => {
  jest.restoreAllMocks();
});

/** A request with this Authorization header and these parameters in the body. */
const withHeader = (authorization: string, parameters: Record<string, string> = {}) =>
  service.token({ ...GRANT, ...parameters }, undefined, { authorization });
const raw = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;
const encoded = (text: string) =>
  encodeURIComponent(text).replace(/[-_.!~*'()]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);

describe('one method a request', () => {
  it('CA-01 no credentials: 401 with the Basic challenge', async () => {
    const incomplete: Record<string, string>[] = [
      {},
      { client_id: account.client_id },
      { client_id: account.client_id, client_secret: '' },
    ];
    for (const parameters of incomplete) {
      const answer = await service.token({ ...GRANT, ...parameters });
      expectOAuthError(answer, 401, 'invalid_client', 'The request carries no client credentials');
    }
  });

  it('CA-02 an unknown client and a wrong secret are told the same, at the same cost', async () => {
    const unknown = { id: `sa_${'0'.repeat(22)}`, secret: account.credentials.secret };
    const wrong = { id: account.client_id, secret: foreign.credentials.secret };
    await service.token(GRANT, wrong); // both are in memory from here on
    await service.token(GRANT, unknown);
    const told = [];
    for (const credentials of [unknown, wrong]) {
      const hashes = jest.spyOn(crypto, 'createHmac');
      const answer = await service.token(GRANT, credentials);
      expectOAuthError(answer, 401, 'invalid_client', REFUSED);
      const { date: _, 'x-request-id': __, ...headers } = answer.headers;
      told.push({ status: answer.status, text: answer.text, headers, hashes: hashes.mock.calls.length });
      hashes.mockRestore();
    }
    expect(told[0]).toEqual(told[1]);
    expect(told[0].hashes).toBe(1);
  });

  it('CA-04 more than one method', async () => {
    const { id, secret } = account.credentials;
    const assertion = {
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: 'e.e.e',
    };
    const description = 'The request authenticates in more than one way';
    const before = await issuedTo(service, account);
    for (const answer of [
      await withHeader(basic(account.credentials), { client_id: id, client_secret: secret }),
      await withHeader(basic(account.credentials), { client_secret: 'wrong' }),
      await withHeader(basic(account.credentials), assertion),
      await withHeader(basic(account.credentials), { client_assertion: 'e.e.e' }),
      await withHeader(basic(account.credentials), { client_assertion_type: 'x' }),
      await service.token({ ...GRANT, client_id: id, client_secret: secret, ...assertion }),
    ]) {
      expectOAuthError(answer, 400, 'invalid_request', description);
    }
    expect(await issuedTo(service, account)).toBe(before);
  });

  it('CA-05 another client_id in the body: the attempt is the header’s, the body’s is nobody', async () => {
    const answer = await withHeader(basic(account.credentials), { client_id: foreign.client_id });
    expectOAuthError(answer, 400, 'invalid_request', 'client_id is not the one that the request authenticates as');
    const [event] = await eventsOf(service, 'client.authenticated');
    expect(event).toMatchObject({
      outcome: 'failure',
      reason: 'client_id_mismatch',
      actor_type: 'anonymous',
      actor_id: null,
      actor_name: account.client_id,
    });
    expect(JSON.stringify(event)).not.toContain(foreign.client_id);
    expect(JSON.stringify(event)).not.toContain(foreign.id);
    // The same one beside Basic is no error (CLIENTS.md).
    expectToken(await withHeader(basic(account.credentials), { client_id: account.client_id }), 'companies:read');
  });

  it('CA-20 a method that metadata does not list', async () => {
    const { json } = await service.request('GET', '/.well-known/oauth-authorization-server');
    expect(json.token_endpoint_auth_methods_supported).toEqual([
      'client_secret_basic',
      'client_secret_post',
      'private_key_jwt',
    ]);
    // tls_client_auth shows in no parameter; client_secret_jwt is an assertion that no key signed.
    const { client_id } = account;
    expectOAuthError(await service.token({ ...GRANT, client_id }), 401, 'invalid_client');
    const text = `${Buffer.from('{"alg":"HS256"}').toString('base64url')}.${Buffer.from('{}').toString('base64url')}`;
    const answer = await service.token({
      ...GRANT,
      client_id,
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: `${text}.${createHmac('sha256', account.credentials.secret).update(text).digest('base64url')}`,
    });
    expectOAuthError(answer, 401, 'invalid_client', REFUSED);
    // Nor one that this account is not set to.
    const one = await admin.createAccount('Basic only', ['companies:read'], {
      client_auth_methods: ['client_secret_basic'],
    });
    expectToken(await service.token(GRANT, one.credentials), 'companies:read');
    const body = await service.token({ ...GRANT, client_id: one.client_id, client_secret: one.credentials.secret });
    expectOAuthError(body, 401, 'invalid_client', REFUSED);
  });
});

describe('the secret', () => {
  it('CA-10 what is no secret is refused without a password hash', async () => {
    const passwords = service.app.get(Passwords);
    const before = passwords.computations;
    const own = account.credentials.secret;
    const wrong = [
      'null',
      'undefined',
      ' ',
      own.slice(0, -1),
      `${own}a`,
      own.slice(0, 72),
      `${own.slice(0, 72)}${'x'.repeat(30)}`,
    ];
    for (const secret of [...wrong, own.toUpperCase(), own.replace('_live_', '_LIVE_'), 'x'.repeat(10_000)]) {
      expectOAuthError(await service.token(GRANT, { id: account.client_id, secret }), 401, 'invalid_client', REFUSED);
      const body = await service.token({ ...GRANT, client_id: account.client_id, client_secret: secret });
      expectOAuthError(body, 401, 'invalid_client', REFUSED);
    }
    for (const secret of ['', '\0', `${own}\0`]) {
      expectOAuthError(await service.token(GRANT, { id: account.client_id, secret }), 401, 'invalid_client');
    }
    // In a body NUL is no character, whatever parameter it stands in (IN-07); a megabyte is over the limit (CT-10).
    const nul = await service.token({ ...GRANT, client_id: account.client_id, client_secret: '\0' });
    expectOAuthError(nul, 400, 'invalid_request');
    const large = await service.token({ ...GRANT, client_id: account.client_id, client_secret: 'x'.repeat(1 << 20) });
    expectOAuthError(large, 413, 'invalid_request');
    expect(passwords.computations).toBe(before);
  });

  it('CA-13 old, new, then old after its revocation: 200, 200, 401 on every instance', async () => {
    const rotated = await admin.createAccount('Rotated', ['companies:read']);
    const fresh = await admin.post(`/service-accounts/${rotated.id}/secrets/${rotated.secret.id}/rotate`);
    const old = rotated.credentials;
    const next = { id: rotated.client_id, secret: fresh.json.secret };
    for (const instance of [service, other]) {
      for (const credentials of [old, next]) expectToken(await instance.token(GRANT, credentials), 'companies:read');
    }
    const tokens = [await accessToken(service, rotated), await accessToken(other, rotated)];
    const sibling = (await other.token(GRANT, next)).json.access_token;
    const revoked = await admin.post(`/service-accounts/${rotated.id}/secrets/${rotated.secret.id}/revoke`);
    expect([revoked.status, revoked.json.instances]).toEqual([200, { live: 2, confirmed: 2 }]);
    for (const instance of [service, other]) {
      expectOAuthError(await instance.token(GRANT, old), 401, 'invalid_client', REFUSED);
      expectToken(await instance.token(GRANT, next), 'companies:read');
      const call = async (token: string) =>
        (await instance.request('GET', '/companies', { headers: bearer(token) })).status;
      expect([await call(tokens[0]), await call(tokens[1]), await call(sibling)]).toEqual([401, 401, 200]);
    }
  });

  it('CA-14 a secret of another organization’s client, under this client’s id', async () => {
    const crossed = [
      { id: account.client_id, secret: foreign.credentials.secret },
      { id: foreign.client_id, secret: account.credentials.secret },
    ];
    for (const credentials of crossed) {
      expectOAuthError(await service.token(GRANT, credentials), 401, 'invalid_client', REFUSED);
      const [event] = await eventsOf(service, 'client.authenticated');
      const [claimed, owner] = credentials.id === account.client_id ? [account, foreign] : [foreign, account];
      expect(event.targets.map(({ id }) => id)).toEqual([claimed.id]);
      expect(JSON.stringify(event)).not.toContain(owner.id);
      expect(JSON.stringify(event)).not.toContain(owner.secret.id);
      expect(event.credential_id).toBeNull();
    }
  });
});

describe('Basic', () => {
  it('BA-01 id and secret are form-decoded (RFC 6749 §2.3.1), whatever was encoded of them', async () => {
    const { id, secret } = account.credentials;
    const every = (text: string) => [...text].map((c) => `%${c.charCodeAt(0).toString(16)}`).join('');
    for (const text of [
      `${encoded(id)}:${encoded(secret)}`,
      `${every(id)}:${every(secret)}`,
      `${id}:${encoded(secret)}`,
    ]) {
      expectToken(await withHeader(raw(text)), 'companies:read');
    }
  });

  it('BA-04 a colon in the id is not there to be found', async () => {
    expect(account.client_id).toMatch(/^[A-Za-z0-9_]+$/);
    for (const text of [`a:${account.client_id}:x`, `${account.client_id}::${account.credentials.secret}`]) {
      expectOAuthError(await withHeader(raw(text)), 401, 'invalid_client', REFUSED);
    }
  });

  it('BA-05 percent signs that encode nothing, NUL, and a plus: 401, never a 500', async () => {
    const { id, secret } = account.credentials;
    for (const bad of ['%zz', '%', '%C3', '%00', '%ED%A0%80', '+', '\u0000', '\u0001']) {
      for (const text of [`${id}:${secret}${bad}`, `${id}${bad}:${secret}`, `${bad}:${bad}`]) {
        expectOAuthError(await withHeader(raw(text)), 401, 'invalid_client', REFUSED);
      }
    }
    const octets = Buffer.concat([Buffer.from(`${id}:`), Buffer.from([0xff, 0xfe])]).toString('base64');
    expectOAuthError(await withHeader(`Basic ${octets}`), 401, 'invalid_client', REFUSED);
  });

  it('BA-07 a header without credentials fails; the scheme is there in any case', async () => {
    const { id, secret } = account.credentials;
    const without = [
      'Basic',
      'Basic ',
      'Basic  ',
      raw(id),
      raw(''),
      raw(':'),
      raw(`:${secret}`),
      'Basic !!!!',
      'Basic =',
      '',
    ];
    for (const header of without) {
      expectOAuthError(await withHeader(header), 401, 'invalid_client', REFUSED);
    }
    for (const scheme of ['basic', 'BASIC', 'bAsIc']) {
      expectToken(await withHeader(basic(account.credentials).replace('Basic', scheme)), 'companies:read');
    }
  });

  it('BA-08 two Authorization headers, or two in one', async () => {
    const header = basic(account.credentials);
    for (const two of [`${header}, ${header}`, `${header},${raw('a:b')}`]) {
      const answer = await withHeader(two);
      expectOAuthError(answer, 400, 'invalid_request', 'There is more than one Authorization header');
    }
    for (const second of [header, raw('a:b'), 'Bearer x']) {
      const body = 'grant_type=client_credentials';
      const lines = [
        `Authorization: ${header}`,
        `authorization: ${second}`,
        `Content-Length: ${body.length}`,
        'Connection: close',
      ];
      const received = await untilClosed(
        service,
        `POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n${lines.join('\r\n')}\r\n\r\n${body}`,
      );
      expect(received).toMatch(/^HTTP\/1\.1 400 /);
      expect(received).toMatch(/"error":"invalid_request"/);
    }
  });

  it('BA-10 another scheme is an attempt that failed, not none', async () => {
    const { id, secret } = account.credentials;
    const headers = [
      'Bearer x',
      `Bearer ${await accessToken(service, account)}`,
      `Digest username="${id}", realm="gatehouse", nonce="x", uri="/oauth/token", response="x"`,
      'Negotiate YII=',
      `Basi ${Buffer.from(`${id}:${secret}`).toString('base64')}`,
      secret,
    ];
    for (const header of headers) expectOAuthError(await withHeader(header), 401, 'invalid_client', REFUSED);
    const both = await withHeader('Bearer x', { client_id: id, client_secret: secret });
    expectOAuthError(both, 400, 'invalid_request', 'The request authenticates in more than one way');
  });

  it('BA-11 only the decoded form is tried, and once', async () => {
    const { id, secret } = account.credentials;
    const twice = encodeURIComponent(secret.replace('_', '%5F'));
    const hashes = jest.spyOn(crypto, 'createHmac');
    expectOAuthError(await withHeader(raw(`${id}:${twice}`)), 401, 'invalid_client', REFUSED);
    expect(hashes.mock.calls.length).toBe(1);
  });
});
