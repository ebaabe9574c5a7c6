import { createHash } from 'node:crypto';
import { isStorableText } from '../../kernel/text.js';
import { algorithmOf, type KeyAlgorithm } from '../../service-accounts/credentials/read-public-key.js';
import type { AssertionFault } from './client-auth-method.js';

/** A client's assertion (RFC 7523 §2.2), read and not yet believed. */
export interface Assertion {
  algorithm: KeyAlgorithm;
  kid: string | undefined;
  claims: Readonly<Record<string, unknown>>;
  /** `sub` (RFC 7523 §3, 2B): the client that it speaks for. */
  clientId: string;
  /** What was signed. */
  data: Buffer;
  signature: Buffer;
}

/** RFC 7515 §7.1: three parts in base64url, without padding or white space. Five would be a JWE. */
const COMPACT = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)$/;
/** RFC 7515 §4.1.9; the last as RFC 7523 is to be profiled. Ours are `at+jwt`: no access token passes for an assertion. */
const TYPES = ['jwt', 'client-authentication+jwt'];

/**
 * Reads the compact form, strictly: no member twice, no spare bits. Members that would name a key or a place to fetch one from (`jwk`,
 * `jku`, `x5c`, `x5u`) are not looked at; `crit` and `b64` change what a signature means, and none of that is understood here.
 */
export function readAssertion(text: string): Assertion | AssertionFault {
  const parts = COMPACT.exec(text)?.slice(1);
  const [header, claims] = parts?.slice(0, 2).map(readObject) ?? [];
  const signature = parts && octetsOf(parts[2]);
  if (!parts || !header || !claims || !signature) return 'malformed_assertion';
  const { alg, kid, typ, crit, b64 } = header;
  if (crit !== undefined || b64 !== undefined) return 'malformed_assertion';
  if (kid !== undefined && typeof kid !== 'string') return 'malformed_assertion';
  if (typ !== undefined && !(typeof typ === 'string' && TYPES.includes(typ.toLowerCase().replace('application/', ''))))
    return 'malformed_assertion';
  const algorithm = algorithmOf(alg);
  if (!algorithm) return 'unsupported_algorithm';
  if (typeof claims.sub !== 'string') return 'malformed_assertion';
  return {
    algorithm,
    kid,
    claims,
    clientId: claims.sub,
    data: Buffer.from(`${parts[0]}.${parts[1]}`, 'latin1'),
    signature,
  };
}

/** Seconds: J4, and how far a client's clock may be off. */
export const MAX_LIFETIME = 300;
export const SKEW = 30;
/** `iat` and `exp` may have been rounded each their own way. */
const ROUNDING = 1;
const MAX_JTI = 256;

/** What is wrong with the claims (RFC 7523 §3) at `now`, in seconds; else the `jti`, hashed, and when its `exp` is past for everyone. */
export function judgeClaims(
  { claims: { iss, sub, aud, exp, iat, nbf, jti } }: Assertion,
  audiences: readonly string[],
  now: number,
): AssertionFault | { hash: Buffer; expiresAt: number } {
  if (iss !== sub) return 'wrong_issuer';
  // D13: one value, code point by code point. An assertion for two audiences could be used at the other.
  const [audience, ...others] = [aud].flat();
  if (typeof audience !== 'string' || others.length > 0 || !audiences.includes(audience)) return 'wrong_audience';
  if (!isTime(exp) || (iat !== undefined && !isTime(iat)) || (nbf !== undefined && !isTime(nbf)))
    return 'incomplete_assertion';
  if (typeof jti !== 'string' || jti === '' || jti.length > MAX_JTI || !isStorableText(jti))
    return 'incomplete_assertion';
  if (exp <= now - SKEW) return 'expired_assertion';
  if (exp > now + MAX_LIFETIME + SKEW || (iat !== undefined && exp - iat > MAX_LIFETIME + ROUNDING))
    return 'assertion_lives_too_long';
  if ((iat ?? 0) > now + SKEW || (nbf ?? 0) > now + SKEW) return 'assertion_from_the_future';
  return { hash: createHash('sha256').update(jti).digest(), expiresAt: (exp + SKEW) * 1000 };
}

/** NumericDate in whole seconds. */
const isTime = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

function readObject(part: string): Record<string, unknown> | undefined {
  const octets = octetsOf(part);
  if (!octets) return undefined;
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(octets);
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null || Array.isArray(value) || repeatsMember(text)) return undefined;
    return value as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

/** Node passes over bits that base64 has to spare, and then one assertion would have several spellings. */
function octetsOf(part: string): Buffer | undefined {
  const octets = Buffer.from(part, 'base64url');
  return octets.toString('base64url') === part ? octets : undefined;
}

/** RFC 7515 §4: names must be unique; JSON.parse keeps the last and says nothing. `json` is the text of an object, and well formed. */
function repeatsMember(json: string): boolean {
  const texts = json.match(/"(?:[^"\\]|\\.)*"/g) ?? [];
  const names = new Set<string>();
  let [depth, text] = [0, -1];
  for (const sign of json.replace(/"(?:[^"\\]|\\.)*"/g, '"')) {
    if (sign === '"') text++;
    else if (sign === '{' || sign === '[') depth++;
    else if (sign === '}' || sign === ']') depth--;
    else if (sign === ':' && depth === 1) {
      const name = JSON.parse(texts[text]) as string;
      if (names.has(name)) return true;
      names.add(name);
    }
  }
  return false;
}
