import { type AddressInfo, connect } from 'node:net';
import { expect } from '@jest/globals';
import { type Answer, basic, type TestAccount, type TestService } from './service.js';

export const CHALLENGE = 'Basic realm="gatehouse", charset="UTF-8", error="invalid_client"';
export const GRANT = { grant_type: 'client_credentials' };

/** For tests that are not about freshness: a busy machine may hold the event loop for longer than the default bound of 500 ms. */
export const PATIENT = { REVOCATION_BOUND_MS: '10000' };

/** RFC 6749 §5.2 allows these octets alone, so no quote, backslash, line break or non-ASCII (TE-17). */
const OAUTH_TEXT = /^[\x20-\x21\x23-\x5B\x5D-\x7E]+$/;

/** What every answer with or about a token carries, success or not (TE-02). */
export function expectTokenHeaders({ headers }: Answer): void {
  expect(headers).toMatchObject({
    'cache-control': 'no-store',
    pragma: 'no-cache',
    'content-type': 'application/json; charset=utf-8',
    'x-content-type-options': 'nosniff',
  });
  for (const absent of ['etag', 'set-cookie', 'access-control-allow-origin'])
    expect(headers).not.toHaveProperty(absent);
}

/** An error of RFC 6749 §5.2, whole: status, code, headers, octets (TE-17), and a challenge with a 401 and only there. */
export function expectOAuthError(answer: Answer, status: number, error: string, description?: string | RegExp): void {
  expect([answer.status, answer.json?.error, answer.text]).toEqual([status, error, answer.text]);
  expectTokenHeaders(answer);
  expect(Object.keys(answer.json)).toEqual(['error', 'error_description']);
  expect(answer.json.error).toMatch(OAUTH_TEXT);
  expect(answer.json.error_description).toMatch(OAUTH_TEXT);
  expect(answer.headers['www-authenticate']).toBe(status === 401 ? CHALLENGE : undefined);
  if (description instanceof RegExp) expect(answer.json.error_description).toMatch(description);
  else if (description !== undefined) expect(answer.json.error_description).toBe(description);
}

/** The 200 of RFC 6749 §5.1 for client credentials: exactly these members (TE-01). Gives the access token back. */
export function expectToken(answer: Answer, scope: string, expiresIn = 3600): string {
  expect([answer.status, answer.json]).toEqual([
    200,
    { access_token: expect.any(String), token_type: 'Bearer', expires_in: expiresIn, scope },
  ]);
  expectTokenHeaders(answer);
  return answer.json.access_token;
}

/** An access token of the account for these scopes, or for all that it may use. */
export async function accessToken(service: TestService, account: TestAccount, scope?: string): Promise<string> {
  const answer = await service.token({ ...GRANT, ...(scope ? { scope } : {}) }, account.credentials);
  if (answer.status !== 200) throw new Error(`token: ${answer.status} ${answer.text}`);
  return answer.json.access_token;
}

/** A form to an OAuth endpoint, with Basic credentials if given. */
export const postForm = (
  service: TestService,
  url: string,
  parameters: Record<string, string> | [string, string][] | string,
  credentials?: { id: string; secret: string },
  headers: Record<string, string> = {},
): Promise<Answer> =>
  service.request('POST', url, {
    body: new URLSearchParams(parameters).toString(),
    headers: {
      'content-type': 'application/x-www-form-urlencoded',
      ...(credentials && { authorization: basic(credentials) }),
      ...headers,
    },
  });

/** RFC 7662, by the credentials of an account. */
export const introspect = (service: TestService, { credentials }: TestAccount, token: string) =>
  postForm(service, '/oauth/introspect', { token }, credentials);

/** RFC 7009, by the credentials of an account. */
export const revoke = (service: TestService, { credentials }: TestAccount, token: string) =>
  postForm(service, '/oauth/revoke', { token }, credentials);

/** How many tokens were recorded as issued to an account. */
export async function issuedTo(service: TestService, account: TestAccount): Promise<number> {
  const [{ count }] = await service.database.query<{ count: string }>(
    `SELECT count(*) FROM audit_event WHERE actor_id = $1 AND action = 'token.issued' AND outcome = 'success'`,
    [account.id],
  );
  return Number(count);
}

/** The newest events of an action, as they stand in the table. */
export const eventsOf = (service: TestService, action: string, limit = 1) =>
  service.database.query<{
    organization_id: string;
    outcome: string;
    reason: string | null;
    actor_type: string;
    actor_id: string | null;
    actor_name: string;
    credential_id: string | null;
    token_id: string | null;
    targets: { type: string; id: string; name: string }[];
    changes: Record<string, { from?: unknown; to?: unknown }> | null;
    address: string | null;
  }>('SELECT * FROM audit_event WHERE action = $1 ORDER BY occurred_at DESC, counter DESC LIMIT $2', [action, limit]);

export const portOf = (service: TestService) => (service.app.getHttpServer().address() as AddressInfo).port;
export const urlOfService = (service: TestService) => `http://127.0.0.1:${portOf(service)}`;

/**
 * Sends octets as they are to the listening service, and more while `more` gives some; resolves with what came back once the
 * service has closed the connection. A connection that is left open never resolves: closing it is part of what is tested.
 */
export function untilClosed(service: TestService, head: string, more?: () => string | undefined): Promise<string> {
  return new Promise((resolve) => {
    let received = '';
    const socket = connect(portOf(service), '127.0.0.1');
    const pump = () => {
      let text = more?.();
      while (text !== undefined && !socket.destroyed && socket.write(text)) text = more?.();
    };
    socket.on('connect', () => {
      socket.write(head);
      pump();
    });
    socket.on('drain', pump);
    socket.on('data', (chunk) => {
      received += chunk;
    });
    socket.on('error', () => undefined); // a reset is a way to close
    socket.on('close', () => resolve(received));
  });
}

/** RFC 6750 §3 and RFC 9457: the whole of a refusal at a protected resource. */
export function expectRefused(answer: Answer, status: number, code: string, challenge: string | undefined): void {
  expect([answer.status, answer.json?.code, answer.headers['www-authenticate']]).toEqual([status, code, challenge]);
  expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8');
  expect(answer.headers['cache-control']).toBe('no-store');
}

const bearerError = (error: string, description: string) =>
  `Bearer realm="gatehouse", error="${error}", error_description="${description}"`;

export const expectInvalidToken = (
  answer: Answer,
  description = 'The access token is malformed or was not issued here',
) => expectRefused(answer, 401, 'invalid_token', bearerError('invalid_token', description));

export const expectInvalidRequest = (answer: Answer, description: string) =>
  expectRefused(answer, 400, 'malformed_request', bearerError('invalid_request', description));
