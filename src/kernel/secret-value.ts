import { crc32 } from 'node:zlib';
import { base62, DIGITS, publicId, randomOctets } from './ids.js';

/** `oa2` access token, `sec` client secret, `pat` personal access token, `ort` refresh token. */
export type SecretKind = 'oa2' | 'sec' | 'pat' | 'ort';
export type Environment = 'live' | 'test';

/** What every credential and token of this deployment begins with: `client_sec_live_`. */
export interface SecretPrefix {
  word: string;
  environment: Environment;
}

export const prefixOf = (kind: SecretKind, { word, environment }: SecretPrefix) => `${word}_${kind}_${environment}_`;

/**
 * A new secret: prefix, the credential's id (22 characters), 256 random bits (43), CRC-32 of all before it (6).
 * Letters, digits and `_` only, so that raw and form-encoded Basic are the same octets and a scanner can tell a real one.
 */
export function mintSecret(kind: SecretKind, prefix: SecretPrefix, credentialId: string): string {
  const body = prefixOf(kind, prefix) + publicId(credentialId) + base62(randomOctets(32));
  return body + checksum(body);
}

export interface ParsedSecret {
  kind: SecretKind;
  environment: Environment;
  /** {@link publicId} of the credential. */
  credential: string;
}

const SHAPE = /^([A-Za-z0-9]{1,32})_(sec|pat|ort)_(live|test)_([0-9A-Za-z]{22})[0-9A-Za-z]{43}([0-9A-Za-z]{6})$/;

/** Recognises a secret by its shape and checksum alone: a mistyped one costs no lookup. */
export function parseSecret(text: string): ParsedSecret | undefined {
  if (text.length > 160) return undefined;
  const m = SHAPE.exec(text);
  if (!m || checksum(text.slice(0, -6)) !== m[5]) return undefined;
  return { kind: m[2] as SecretKind, environment: m[3] as Environment, credential: m[4] };
}

/** What may be shown of a secret: its last four characters. */
export const hintOf = (secret: string) => secret.slice(-4);

/** CRC-32 in base 62, six digits. In numbers, not in BigInt: it is on the path of each token. */
function checksum(body: string): string {
  let text = '';
  for (let digit = 0, value = crc32(body); digit < 6; digit++, value = Math.floor(value / 62))
    text = DIGITS[value % 62] + text;
  return text;
}
