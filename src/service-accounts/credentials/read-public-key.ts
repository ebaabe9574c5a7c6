import { createHash, createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto';
import { problem } from '../../kernel/problem.js';

/** The JWS algorithms that a client may sign with, as keys are registered for them. */
export const KEY_ALGORITHMS = ['EdDSA', 'ES256', 'PS256', 'RS256'] as const;
export type KeyAlgorithm = (typeof KEY_ALGORITHMS)[number];

/** RFC 9864 gave EdDSA over Ed25519 a name of its own: the same signatures. */
export const algorithmOf = (alg: unknown): KeyAlgorithm | undefined =>
  alg === 'Ed25519' ? 'EdDSA' : KEY_ALGORITHMS.find((known) => known === alg);

/** RFC 7517: the public members of a key of ours, and the `kid` that its owner calls it by. */
export interface PublicJwk {
  kty: string;
  kid?: string;
  crv?: string;
  x?: string;
  y?: string;
  n?: string;
  e?: string;
}

export interface GivenKey {
  jwk?: Record<string, unknown>;
  pem?: string;
  alg?: string;
}

export interface ReadKey {
  jwk: PublicJwk;
  algorithm: KeyAlgorithm;
  /** RFC 7638 */
  thumbprint: string;
}

/** A message never repeats what was sent: it may be a private key. */
const fault = (field: string, message: string) => problem('validation_failed', { errors: [{ field, message }] });

const PRIVATE =
  'holds a private or symmetric key: send the public half of a new pair, since this one has left the place where it was safe';
const UNREADABLE = 'is no public key that can be read';

/** RFC 7517 §9.3 and RFC 7518 §6: what only the owner may have, and the octets of a symmetric key. */
const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'];

/** Verification is quadratic in it, and anybody may have a signature tried with every key of an account: twenty of 8192 bits blind an instance. */
const MAX_RSA_BITS = 4096;
/** Verification is linear in its bits. Nobody uses more than 65537. */
const MAX_RSA_EXPONENT = 2n ** 17n;

/**
 * Reads the public key that a client registers and pins it to one algorithm: the one named, or the one that its type has. An RSA key
 * has two; unnamed it is PS256. Throws validation_failed, with the field and what is wrong with it.
 */
export function readPublicKey({ jwk, pem, alg }: GivenKey): ReadKey {
  if ((jwk === undefined) === (pem === undefined)) throw fault('jwk', 'must be given, or else pem: one of the two');
  const field = jwk ? 'jwk' : 'pem';
  const given = jwk ? importJwk(jwk) : importPem(pem!);
  const possible = algorithmsFor(given, field);
  const named = [
    { field: 'alg', name: alg },
    { field: 'jwk.alg', name: jwk?.alg },
  ].filter(({ name }) => name !== undefined);
  for (const { field, name } of named)
    if (!possible.some((algorithm) => algorithm === algorithmOf(name)))
      throw fault(field, `must be ${possible.join(' or ')} for a key of this type`);
  const [algorithm = possible[0], other = algorithm] = named.map(({ name }) => algorithmOf(name)!);
  if (other !== algorithm) throw fault('alg', 'must be the one that the key itself names');
  const members = exportJwk(given, field);
  return {
    jwk: { ...members, ...(jwk?.kid !== undefined && { kid: jwk.kid as string }) },
    algorithm,
    thumbprint: thumbprintOf(members),
  };
}

function importJwk(jwk: Record<string, unknown>): KeyObject {
  if (PRIVATE_MEMBERS.some((member) => member in jwk) || jwk.kty === 'oct') throw fault('jwk', PRIVATE);
  const { kty, crv, x, y, n, e, use, key_ops: operations, kid } = jwk;
  if (use !== undefined && use !== 'sig') throw fault('jwk.use', 'must be sig');
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes('verify')))
    throw fault('jwk.key_ops', 'must be a list with verify in it');
  if (kid !== undefined && (typeof kid !== 'string' || kid.length < 1 || kid.length > 256))
    throw fault('jwk.kid', 'must be a text of 1 to 256 characters');
  try {
    return createPublicKey({ key: { kty, crv, x, y, n, e } as JsonWebKey, format: 'jwk' });
  } catch {
    throw fault('jwk', UNREADABLE);
  }
}

/** A public key, or the one in an X.509 certificate, of which nothing else counts: neither its dates nor who signed it. */
const PEM = /^\s*-----BEGIN (PUBLIC KEY|RSA PUBLIC KEY|CERTIFICATE)-----[A-Za-z0-9+/=\s]+-----END \1-----\s*$/;

function importPem(pem: string): KeyObject {
  // Node would derive the public half and say nothing.
  if (/PRIVATE KEY/.test(pem)) throw fault('pem', PRIVATE);
  if (!PEM.test(pem)) throw fault('pem', 'must be one PUBLIC KEY or CERTIFICATE in PEM');
  try {
    return createPublicKey(pem);
  } catch {
    throw fault('pem', UNREADABLE);
  }
}

function algorithmsFor(key: KeyObject, field: string): readonly KeyAlgorithm[] {
  const { namedCurve, modulusLength = 0, publicExponent = 0n } = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === 'ed25519') return ['EdDSA'];
  if (key.asymmetricKeyType === 'ec' && namedCurve === 'prime256v1') return ['ES256'];
  if (key.asymmetricKeyType !== 'rsa')
    throw fault(field, 'must be Ed25519, P-256 or RSA (not confined to PSS); other types and curves are not supported');
  if (modulusLength < 2048 || modulusLength > MAX_RSA_BITS)
    throw fault(field, `must have 2048 to ${MAX_RSA_BITS} bits as an RSA key`);
  // With an exponent of 1 a message is its own signature; an even one has no inverse.
  if (publicExponent < 3n || publicExponent % 2n === 0n || publicExponent >= MAX_RSA_EXPONENT)
    throw fault(field, 'must have an odd exponent of 3 to 2^17 as an RSA key');
  return ['PS256', 'RS256'];
}

/** The members that make up the key, as Node writes them: one spelling of each key. */
function exportJwk(key: KeyObject, field: string): PublicJwk {
  let members: PublicJwk;
  try {
    members = key.export({ format: 'jwk' }) as PublicJwk;
    createPublicKey({ key: members as JsonWebKey, format: 'jwk' }); // the point at infinity has no members
  } catch {
    throw fault(field, UNREADABLE);
  }
  if (members.crv === 'Ed25519' && isOfSmallOrder(Buffer.from(members.x!, 'base64url')))
    throw fault(field, 'is a point of small order: anyone could sign for it');
  return members;
}

/** RFC 8032 §5.1: the encodings of the points of order 1, 2, 4 and 8, the sign bit left out, as every library lists them. */
const SMALL_ORDER = new Set([
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
]);

function isOfSmallOrder(point: Buffer): boolean {
  point[31] &= 0x7f;
  return SMALL_ORDER.has(point.toString('hex'));
}

/** RFC 7638 §3: the required members in the order of their names. */
function thumbprintOf(members: PublicJwk): string {
  const ordered = Object.fromEntries(Object.entries(members).sort(([a], [b]) => (a < b ? -1 : 1)));
  return createHash('sha256').update(JSON.stringify(ordered)).digest('base64url');
}
