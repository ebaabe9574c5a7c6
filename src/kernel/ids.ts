import { randomFillSync } from 'node:crypto';

// One randomFillSync of 8 KiB costs as much as one randomBytes(16); slices of it cost nothing.
const pool = Buffer.allocUnsafe(8192);
let used = pool.length;

/** `n` bytes (n ≤ 8192) from the operating system's generator. The bytes are the caller's own copy. */
export function randomOctets(n: number): Buffer {
  if (used + n > pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  const octets = Buffer.from(pool.subarray(used, used + n));
  pool.fill(0, used, used + n);
  used += n;
  return octets;
}

const HEX = Array.from({ length: 256 }, (_, octet) => octet.toString(16).padStart(2, '0'));

/** RFC 9562 §4: sixteen octets as text. */
export function uuidText(b: Uint8Array, at = 0): string {
  return `${HEX[b[at]]}${HEX[b[at + 1]]}${HEX[b[at + 2]]}${HEX[b[at + 3]]}-${HEX[b[at + 4]]}${HEX[b[at + 5]]}-${HEX[b[at + 6]]}${HEX[b[at + 7]]}-${HEX[b[at + 8]]}${HEX[b[at + 9]]}-${HEX[b[at + 10]]}${HEX[b[at + 11]]}${HEX[b[at + 12]]}${HEX[b[at + 13]]}${HEX[b[at + 14]]}${HEX[b[at + 15]]}`;
}

/** The reverse of {@link uuidText}. */
export const uuidOctets = (uuid: string) => Buffer.from(uuid.replaceAll('-', ''), 'hex');

/** RFC 9562 §5.7. `ms`: milliseconds since the Unix epoch. The low 74 bits are random, or all `fill`. */
export function uuidv7(ms: number, fill?: 0 | 1): string {
  const b = fill === undefined ? randomOctets(16) : Buffer.alloc(16, fill === 0 ? 0x00 : 0xff);
  b.writeUIntBE(Math.floor(ms), 0, 6);
  b[6] = (b[6] & 0x0f) | 0x70;
  b[8] = (b[8] & 0x3f) | 0x80;
  return uuidText(b);
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
export const isUuid = (text: unknown): text is string => typeof text === 'string' && UUID.test(text);

export const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/** Big-endian base 62, padded to the width that any value of `octets.length` bytes fits in: 22 for 16, 43 for 32, 6 for 4. */
export function base62(octets: Uint8Array): string {
  let value = BigInt(`0x${Buffer.from(octets).toString('hex')}`);
  let text = '';
  for (let width = Math.ceil((octets.length * 8) / Math.log2(62)); width > 0; width--) {
    text = DIGITS[Number(value % 62n)] + text;
    value /= 62n;
  }
  return text;
}

/** The 22 letters and digits under which a UUID stands in client ids and secrets. */
export const publicId = (uuid: string) => base62(uuidOctets(uuid));

/** The reverse of {@link publicId}; undefined when the text is not one. */
export function fromPublicId(text: string): string | undefined {
  if (!/^[0-9A-Za-z]{22}$/.test(text)) return undefined;
  let value = 0n;
  for (const digit of text) value = value * 62n + BigInt(DIGITS.indexOf(digit));
  const h = value.toString(16).padStart(32, '0');
  if (h.length > 32) return undefined;
  return `${h.slice(0, 8)}-${h.slice(8, 12)}-${h.slice(12, 16)}-${h.slice(16, 20)}-${h.slice(20)}`;
}
