import { constants, generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto';
import { expect } from '@jest/globals';
import { eventsOf, expectOAuthError, GRANT, issuedTo } from './oauth.js';
import type { Answer, Session, TestAccount, TestService } from './service.js';
import { ISSUER } from './service.js';

export const JWT_BEARER = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
export const ALGORITHMS = ['EdDSA', 'ES256', 'PS256', 'RS256'] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

/** A key pair that no library of the service's made, and what signs with it. */
export interface TestKey {
  alg: Algorithm;
  privateKey: KeyObject;
  jwk: Record<string, unknown>;
  pem: string;
}

const generate = (alg: Algorithm, bits = 2048) => {
  if (alg === 'EdDSA') return generateKeyPairSync('ed25519');
  if (alg === 'ES256') return generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return generateKeyPairSync('rsa', { modulusLength: bits });
};

export function makeKey(alg: Algorithm, bits?: number): TestKey {
  const { publicKey, privateKey } = generate(alg, bits);
  const pem = publicKey.export({ type: 'spki', format: 'pem' }) as string;
  return { alg, privateKey, jwk: publicKey.export({ format: 'jwk' }) as Record<string, unknown>, pem };
}

/** The octets of a signature by the key's own algorithm, or by another of its type. */
export function signatureOf({ privateKey, alg: own }: TestKey, data: string, alg: Algorithm = own): Buffer {
  const octets = Buffer.from(data);
  if (alg === 'EdDSA') return sign(null, octets, privateKey);
  if (alg === 'ES256') return sign('sha256', octets, { key: privateKey, dsaEncoding: 'ieee-p1363' });
  const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
  return sign('sha256', octets, alg === 'PS256' ? { key: privateKey, ...pss } : privateKey);
}

/** base64url of a text, of octets, or of a value as JSON. */
export const part = (value: unknown) =>
  (typeof value === 'string' || Buffer.isBuffer(value)
    ? Buffer.from(value)
    : Buffer.from(JSON.stringify(value))
  ).toString('base64url');

/** A JWT in the compact form. Header and claims may be texts, so that they can be what JSON.stringify would never write. */
export function jwt(key: TestKey, header: Record<string, unknown> | string, claims: Record<string, unknown> | string) {
  const data = `${part(typeof header === 'string' ? header : { alg: key.alg, ...header })}.${part(claims)}`;
  return `${data}.${signatureOf(key, data).toString('base64url')}`;
}

export const now = () => Math.floor(Date.now() / 1000);

/** What J2 says an assertion holds; a member that is undefined is left out. */
export const claimsOf = (account: Pick<TestAccount, 'client_id'>, own: Record<string, unknown> = {}) => ({
  iss: account.client_id,
  sub: account.client_id,
  aud: ISSUER,
  iat: now(),
  exp: now() + 300,
  jti: randomUUID(),
  ...own,
});

/** Registers the public half; the answer must be a 201. */
export async function register(
  admin: Session,
  account: Pick<TestAccount, 'id'>,
  { jwk }: TestKey,
  own: Record<string, unknown> = {},
): Promise<{ id: string; kid: string }> {
  const made = await admin.post(`/service-accounts/${account.id}/keys`, { jwk, ...own });
  if (made.status !== 201) throw new Error(`key: ${made.status} ${made.text}`);
  return made.json;
}

/** `POST` to a token endpoint with an assertion in place of a secret. */
export const present = (
  service: TestService,
  client_assertion: string,
  own: Record<string, string> = {},
  path = '/oauth/token',
): Promise<Answer> =>
  service.request('POST', path, {
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({ ...GRANT, client_assertion_type: JWT_BEARER, client_assertion, ...own }).toString(),
  });

/** What is told to whoever did not prove to hold a key. */
export const REFUSED = 'Client authentication failed';

/** Each of these must be refused, with this description and this reason in the log, and nothing be issued on any. */
export async function expectNoToken(
  service: TestService,
  account: TestAccount,
  assertions: readonly string[],
  description = REFUSED,
  reason?: string,
): Promise<void> {
  const before = await issuedTo(service, account);
  for (const assertion of assertions) {
    const answer = await present(service, assertion, { client_id: account.client_id });
    const which = assertion.slice(0, 300);
    expect([which, answer.status, answer.json.error_description]).toEqual([which, 401, description]);
    expectOAuthError(answer, 401, 'invalid_client', description);
    if (reason === undefined) continue;
    const [event] = await eventsOf(service, 'client.authenticated');
    expect([which, event.reason]).toEqual([which, reason]);
  }
  expect(await issuedTo(service, account)).toBe(before);
}
