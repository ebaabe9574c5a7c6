import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { eventsOf, expectOAuthError, expectToken, issuedTo, PATIENT, untilClosed } from '../support/oauth.js';
import { type Answer, basic, type Session, type TestAccount, TestService } from '../support/service.js';

const ALL = 'companies:read companies:write employees:write';
const FORM = 'application/x-www-form-urlencoded';
const GRANT = 'grant_type=client_credentials';

let service: TestService;
let admin: Session;
let account: TestAccount;

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  admin = await service.signIn();
  await admin.createOrganization('Bodies');
  account = await admin.createAccount('Concierge');
});
afterAll(() => service?.stop());

const post = (body: string | Buffer | undefined, type?: string): Promise<Answer> =>
  service.request('POST', '/oauth/token', {
    payload: body,
    headers: { authorization: basic(account.credentials), ...(type === undefined ? {} : { 'content-type': type }) },
  });
const json = (value: unknown) => post(JSON.stringify(value), 'application/json');

describe('media types', () => {
  it('CT-01 a form in any spelling of its type, with charset=UTF-8', async () => {
    for (const type of [
      FORM,
      `${FORM}; charset=UTF-8`,
      `${FORM};charset=utf-8`,
      `${FORM}; charset="UTF-8"`,
      'Application/X-WWW-Form-URLencoded',
    ]) {
      expectToken(await post(GRANT, type), ALL);
    }
  });

  it('CT-02 a flat JSON object is the same request, with the same event', async () => {
    const { id, secret } = account.credentials;
    const parameters = {
      grant_type: 'client_credentials',
      scope: 'companies:read',
      client_id: id,
      client_secret: secret,
    };
    const events = [];
    for (const [body, type] of [
      [new URLSearchParams(parameters).toString(), FORM],
      [JSON.stringify(parameters), 'application/json'],
      [JSON.stringify(parameters, null, 2), 'application/json; charset=utf-8'],
    ]) {
      const answer = await service.request('POST', '/oauth/token', { body, headers: { 'content-type': type } });
      expectToken(answer, 'companies:read');
      const [event] = await eventsOf(service, 'token.issued');
      expect(event).toMatchObject({
        outcome: 'success',
        actor_type: 'service_account',
        actor_id: account.id,
        actor_name: 'Concierge',
        credential_id: account.secret.id,
        changes: { scope: { to: 'companies:read' } },
      });
      events.push([event.outcome, event.reason, event.actor_id, event.actor_name, event.targets, event.address]);
    }
    expect(events[1]).toEqual(events[0]);
    expect(events[2]).toEqual(events[0]);
  });

  it('CT-04 JSON that is no flat object of strings: no coercion', async () => {
    const before = await issuedTo(service, account);
    for (const value of [1, 1.5, true, false, null, ['companies:read'], [], { a: 'b' }, {}]) {
      for (const name of ['grant_type', 'scope', 'client_id', 'client_secret']) {
        const answer = await json({ grant_type: 'client_credentials', [name]: value });
        expectOAuthError(answer, 400, 'invalid_request', 'Every member of the body must be a string');
      }
    }
    for (const body of [[], ['grant_type', 'client_credentials'], 'grant_type', null, 1, true]) {
      expectOAuthError(await json(body), 400, 'invalid_request', 'The body must be a JSON object');
    }
    for (const body of [
      '{',
      '',
      '{"grant_type":"client_credentials"}}',
      "{'grant_type':'client_credentials'}",
      GRANT,
    ]) {
      expectOAuthError(await post(body, 'application/json'), 400, 'invalid_request');
    }
    expect(await issuedTo(service, account)).toBe(before);
  });

  it('CT-04 nor on another spelling of the path: whichever finds the route, its parser reads the body', async () => {
    const before = await issuedTo(service, account);
    const { id, secret } = account.credentials;
    const parameters = { grant_type: 'client_credentials', client_id: id, client_secret: secret };
    for (const path of [
      '/oauth/%74oken',
      '/api/oauth2/toke%6E/',
      '/realms/gatehouse/protocol/openid-connect/%74oken',
      '/oauth/introspec%74',
      '/oauth/revok%65',
    ]) {
      for (const body of [{ parameters }, { parameters, resources: [] }, { parameters: { client_secret: [secret] } }]) {
        const answer = await service.request('POST', path, {
          body: JSON.stringify(body),
          headers: { 'content-type': 'application/json' },
        });
        expectOAuthError(answer, 400, 'invalid_request', 'Every member of the body must be a string');
      }
      const empty = await service.request('POST', path, {
        body: '{}',
        headers: { 'content-type': 'application/json' },
      });
      expectOAuthError(empty, 401, 'invalid_client');
    }
    expect(await issuedTo(service, account)).toBe(before);
    const form = await service.request('POST', '/oauth/%74oken', {
      payload: GRANT,
      headers: { authorization: basic(account.credentials), 'content-type': FORM },
    });
    expectToken(form, ALL);
  });

  it('CT-05 __proto__, constructor and prototype are names like any other', async () => {
    const names = Object.getOwnPropertyNames(Object.prototype).sort();
    for (const name of ['__proto__', 'constructor', 'prototype', 'hasOwnProperty']) {
      const plain = await post(`{"grant_type":"client_credentials","${name}":"x"}`, 'application/json');
      expectToken(plain, ALL);
      expectToken(await post(`${GRANT}&${name}=x`, FORM), ALL);
      const nested = await post(
        `{"${name}":{"grant_type":"client_credentials","scope":"companies:read"}}`,
        'application/json',
      );
      expectOAuthError(nested, 400, 'invalid_request');
    }
    // Nothing is inherited: an absent grant_type stays absent, whatever a prototype might say.
    expectOAuthError(await post('__proto__[grant_type]=client_credentials', FORM), 400, 'invalid_grant');
    expect(Object.getOwnPropertyNames(Object.prototype).sort()).toEqual(names);
    expect(({} as Record<string, unknown>).grant_type).toBeUndefined();
  });

  it('CT-07 any other type is 415 and its body is not read', async () => {
    const before = await issuedTo(service, account);
    for (const type of [
      'text/plain',
      'multipart/form-data; boundary=x',
      'application/xml',
      'text/json',
      'application/json5',
      'application/vnd.api+json',
      `text/plain; ${FORM}`,
      'none',
      undefined,
    ]) {
      const answer = await post(GRANT, type);
      expectOAuthError(
        answer,
        415,
        'invalid_request',
        'The body must be application/x-www-form-urlencoded or application/json',
      );
    }
    expectOAuthError(await post(undefined), 415, 'invalid_request');
    expect(await issuedTo(service, account)).toBe(before);
  });

  it('CT-08 octets that are not UTF-8, and other charsets: refused, never replaced', async () => {
    const before = await issuedTo(service, account);
    for (const charset of ['utf-7', 'utf-16', 'iso-8859-1', 'us-ascii', '"utf-16"']) {
      expectOAuthError(await post(GRANT, `${FORM}; charset=${charset}`), 415, 'invalid_request');
      const body = '{"grant_type":"client_credentials"}';
      expectOAuthError(await post(body, `application/json; charset=${charset}`), 415, 'invalid_request');
    }
    const bom = Buffer.from('\uFEFF{"grant_type":"client_credentials"}');
    expectOAuthError(await post(bom, 'application/json'), 400, 'invalid_request', 'The body is not JSON');
    const inJson = (...octets: (string | number[])[]) =>
      Buffer.concat(octets.map((part) => (typeof part === 'string' ? Buffer.from(part) : Buffer.from(part))));
    for (const octets of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xc0, 0x80], [0xf5, 0x80, 0x80, 0x80]]) {
      const body = inJson('{"grant_type":"client_credentials","x":"', octets, '"}');
      expectOAuthError(await post(body, 'application/json'), 400, 'invalid_request', 'The body is not UTF-8');
      // A replacement character of the sender's own does not hide an octet that is none.
      const hidden = inJson('{"grant_type":"client_credentials","x":"\uFFFD', octets, '"}');
      expectOAuthError(await post(hidden, 'application/json'), 400, 'invalid_request', 'The body is not UTF-8');
      const form = inJson(`${GRANT}&x=`, octets);
      expectOAuthError(await post(form, FORM), 400, 'invalid_request', /not percent-encoded/);
      const encoded = `${GRANT}&x=${octets.map((octet) => `%${octet.toString(16)}`).join('')}`;
      expectOAuthError(await post(encoded, FORM), 400, 'invalid_request', /not UTF-8/);
    }
    for (const body of [`${GRANT}&x=%`, `${GRANT}&x=%zz`, `${GRANT}&%=x`, `${GRANT}&x=%00`]) {
      expectOAuthError(await post(body, FORM), 400, 'invalid_request');
    }
    for (const text of ['\\u0000', '\\ud800', '\\udfff\\ud800']) {
      const body = `{"grant_type":"client_credentials","x":"${text}"}`;
      expectOAuthError(await post(body, 'application/json'), 400, 'invalid_request');
    }
    expect(await issuedTo(service, account)).toBe(before);
    expectToken(await post('{"grant_type":"client_credentials","x":"\uFFFD é"}', 'application/json'), ALL);
  });
});

describe('on the wire', () => {
  const head = (path: string, ...headers: string[]) =>
    [
      `POST ${path} HTTP/1.1`,
      'Host: localhost:3000',
      `Authorization: ${basic(account.credentials)}`,
      ...headers,
      '',
      '',
    ].join('\r\n');
  const FORM_HEADER = `Content-Type: ${FORM}`;

  it('CT-10 one octet over the limit is 413: 16 KiB for a token request, 64 KiB elsewhere', async () => {
    const filled = (start: string, size: number, end = '') =>
      start + 'a'.repeat(size - start.length - end.length) + end;
    expectToken(await post(filled(`${GRANT}&x=`, 16_384), FORM), ALL);
    expectOAuthError(
      await post(filled(`${GRANT}&x=`, 16_385), FORM),
      413,
      'invalid_request',
      'The body is over 16 KiB',
    );
    const admin413 = await admin.service.request('POST', '/api/v1/service-accounts', {
      body: filled('{"name":"', 65_537, '"}'),
      headers: { cookie: admin.cookie, 'content-type': 'application/json' },
    });
    expect([admin413.status, admin413.json.code]).toEqual([413, 'payload_too_large']);
    const within = await admin.service.request('POST', '/api/v1/service-accounts', {
      body: filled('{"name":"', 65_536, '"}'),
      headers: { cookie: admin.cookie, 'content-type': 'application/json' },
    });
    expect([within.status, within.json.code]).toEqual([400, 'validation_failed']);
  });

  it('CT-10 a length announced beyond the limit is refused before the body comes, and the connection closed', async () => {
    for (const path of ['/oauth/token', '/companies']) {
      const received = await untilClosed(service, head(path, FORM_HEADER, 'Content-Length: 1000000'));
      expect(received).toMatch(/^HTTP\/1\.1 413 /);
      expect(received).toMatch(/\r\nconnection: close\r\n/i);
    }
  });

  it('CT-10 more than the announced length is no part of the request; the connection is closed', async () => {
    const before = await issuedTo(service, account);
    const received = await untilClosed(service, `${head('/oauth/token', FORM_HEADER, 'Content-Length: 10')}${GRANT}`);
    expect(received).toMatch(/^HTTP\/1\.1 400 /);
    expect(received).not.toContain('access_token');
    expect(await issuedTo(service, account)).toBe(before);
  });

  it('CT-10 chunks without end are cut off at the limit', async () => {
    let sent = 0;
    const chunk = `1000\r\n${'a'.repeat(4096)}\r\n`;
    const received = await untilClosed(service, head('/oauth/token', FORM_HEADER, 'Transfer-Encoding: chunked'), () => {
      sent += chunk.length;
      return sent < 256 * 1024 * 1024 ? chunk : undefined;
    });
    // The answer may be lost in the reset that follows it; the service read on no further either way.
    expect(received).toMatch(/^(HTTP\/1\.1 413 |$)/);
    expect(sent).toBeLessThan(64 * 1024 * 1024);
  });

  it('CT-11 whatever two parsers could read in two ways: 400, the connection closed, nothing issued', async () => {
    const before = await issuedTo(service, account);
    const length = `Content-Length: ${GRANT.length}`;
    const chunked = `${GRANT.length.toString(16)}\r\n${GRANT}\r\n0\r\n\r\n`;
    const attempts = {
      'Transfer-Encoding and Content-Length':
        head('/oauth/token', FORM_HEADER, length, 'Transfer-Encoding: chunked') + chunked,
      'two lengths': `${head('/oauth/token', FORM_HEADER, length, 'Content-Length: 5')}${GRANT}`,
      'a length with a sign': `${head('/oauth/token', FORM_HEADER, `Content-Length: +${GRANT.length}`)}${GRANT}`,
      'bare LF throughout': `${head('/oauth/token', FORM_HEADER, length).replaceAll('\r\n', '\n')}${GRANT}`,
      'bare LF once': `${head('/oauth/token', FORM_HEADER, `${length}\nX-A: b`)}${GRANT}`,
      'bare CR': `${head('/oauth/token', FORM_HEADER, `X-A: b\rX-B: c`, length)}${GRANT}`,
      'obs-fold': `${head('/oauth/token', FORM_HEADER, 'X-A: b\r\n c', length)}${GRANT}`,
      'a space before the colon': `${head('/oauth/token', FORM_HEADER, `Content-Length : ${GRANT.length}`)}${GRANT}`,
      'NUL in a header': `${head('/oauth/token', FORM_HEADER, 'X-A: b\0c', length)}${GRANT}`,
      'chunked is not last': `${head('/oauth/token', FORM_HEADER, 'Transfer-Encoding: chunked, identity')}${chunked}`,
    };
    for (const [name, octets] of Object.entries(attempts)) {
      const received = await untilClosed(service, octets);
      expect([name, received.slice(0, 24)]).toEqual([name, 'HTTP/1.1 400 Bad Request']);
    }
    expect(await issuedTo(service, account)).toBe(before);
  });
});
