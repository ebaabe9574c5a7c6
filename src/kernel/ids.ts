import { randomFillSync } from 'node:crypto';

// One randomFillSync of 8 KiB costs as much as one randomBytes(16); slices of it cost nothing.
const pool = Buffer.allocUnsafe(8192);
let used = pool.length;

/** Where the next `n` octets of the pool begin; they are given out once. */
function draw(n: number): number {
  if (used + n > pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  used += n;
  return used - n;
}

/** `n` bytes (n ≤ 8192) from the operating system's generator. The bytes are the caller's own copy. */
export function randomOctets(n: number): Buffer {
  const octets = Buffer.allocUnsafe(n);
  const at = draw(n);
  for (let i = 0; i < n; i++) octets[i] = pool[at + i];
  pool.fill(0, at, at + n);
  return octets;
}

const HEX = Array.from({ length: 256 }, (_, octet) => octet.toString(16).padStart(2, '0'));

/** RFC 9562 §4: sixteen octets as text. */
export function uuidText(b: Uint8Array, at = 0): string {
  return `${HEX[b[at]]}${HEX[b[at + 1]]}${HEX[b[at + 2]]}${HEX[b[at + 3]]}-${HEX[b[at + 4]]}${HEX[b[at + 5]]}-${HEX[b[at + 6]]}${HEX[b[at + 7]]}-${HEX[b[at + 8]]}${HEX[b[at + 9]]}-${HEX[b[at + 10]]}${HEX[b[at + 11]]}${HEX[b[at + 12]]}${HEX[b[at + 13]]}${HEX[b[at + 14]]}${HEX[b[at + 15]]}`;
}

/** Digits of a UUID, two an octet. */
const UUID_DIGITS = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
const NIBBLE = Uint8Array.from({ length: 128 }, (_, code) => Number.parseInt(String.fromCharCode(code), 16) || 0);

/** The reverse of {@link uuidText}. Without Buffer's `hex`: four calls into C++ cost more than to encrypt what they write. */
export function writeUuid(uuid: string, octets: Uint8Array, at: number): void {
  for (let i = 0; i < 16; i++) {
    const digit = UUID_DIGITS[i];
    octets[at + i] = (NIBBLE[uuid.charCodeAt(digit)] << 4) | NIBBLE[uuid.charCodeAt(digit + 1)];
  }
}

/**
 * RFC 9562 §5.7. `ms`: milliseconds since the Unix epoch, with their fraction (§6.2, method 3): what happens within one of them keeps
 * its order. The low 62 bits are random; or all that is not the whole milliseconds is `fill`.
 */
export function uuidv7(ms: number, fill?: 0 | 1): string {
  const b = fill === undefined ? pool : Buffer.alloc(16, fill === 0 ? 0x00 : 0xff);
  const at = fill === undefined ? draw(16) : 0;
  const whole = Math.floor(ms);
  b.writeUIntBE(whole, at, 6);
  if (fill === undefined) b.writeUInt16BE(Math.floor((ms - whole) * 4096), at + 6);
  b[at + 6] = (b[at + 6] & 0x0f) | 0x70;
  b[at + 8] = (b[at + 8] & 0x3f) | 0x80;
  return uuidText(b, at);
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
export const isUuid = (text: unknown): text is string => typeof text === 'string' && UUID.test(text);

export const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/**
 * Big-endian base 62, padded to the width that any value of `octets.length` bytes fits in: 22 for 16, 43 for 32, 6 for 4.
 * Long division in 16-bit limbs: BigInt takes thirty times as long.
 */
export function base62(octets: Uint8Array): string {
  const limbs = Array.from({ length: octets.length >> 1 }, (_, i) => (octets[2 * i] << 8) | octets[2 * i + 1]);
  let text = '';
  for (let width = Math.ceil((octets.length * 8) / Math.log2(62)); width > 0; width--) {
    let remainder = 0;
    for (let i = 0; i < limbs.length; i++) {
      const value = (remainder << 16) | limbs[i];
      limbs[i] = (value / 62) | 0;
      remainder = value % 62;
    }
    text = DIGITS[remainder] + text;
  }
  return text;
}

/** The 22 letters and digits under which a UUID stands in client ids and secrets. */
export function publicId(uuid: string): string {
  const octets = new Uint8Array(16);
  writeUuid(uuid, octets, 0);
  return base62(octets);
}

/** The reverse of {@link publicId}; undefined when the text is not one. */
export function fromPublicId(text: string): string | undefined {
  if (!/^[0-9A-Za-z]{22}$/.test(text)) return undefined;
  let value = 0n;
  for (const digit of text) value = value * 62n + BigInt(DIGITS.indexOf(digit));
  const h = value.toString(16).padStart(32, '0');
  if (h.length > 32) return undefined;
  return `${h.slice(0, 8)}-${h.slice(8, 12)}-${h.slice(12, 16)}-${h.slice(16, 20)}-${h.slice(20)}`;
}
