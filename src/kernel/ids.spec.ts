import { base62, DIGITS, fromPublicId, isUuid, publicId, randomOctets, uuidText, uuidv7, writeUuid } from './ids.js';

describe('UUIDs', () => {
  it('version 7, variant 10, each given out once', () => {
    const ids = Array.from({ length: 5000 }, () => uuidv7(1_763_712_000_123));
    for (const id of ids) expect(id).toMatch(/^019aa56d-607b-7000-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it('RFC 9562 §6.2: what is made one after the other within a millisecond is in that order', () => {
    const ids = Array.from({ length: 4096 }, (_, i) => uuidv7(1_763_712_000_123 + i / 4096));
    expect([...ids].sort()).toEqual(ids);
    const later = uuidv7(1_763_712_000_124);
    expect(ids.every((id) => id < later && id >= uuidv7(1_763_712_000_123, 0))).toBe(true);
    expect(uuidv7(1_763_712_000_123, 1) >= ids[4095]).toBe(true);
  });

  it('are octets and text, either way', () => {
    for (const id of [
      '00000000-0000-0000-0000-000000000000',
      '0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0',
      uuidv7(Date.now()),
    ]) {
      const octets = Buffer.alloc(20, 0xee);
      writeUuid(id, octets, 3);
      expect([isUuid(id), uuidText(octets, 3), octets.toString('hex', 3, 19)]).toEqual([
        true,
        id,
        id.replaceAll('-', ''),
      ]);
      expect([octets[2], octets[19]]).toEqual([0xee, 0xee]);
    }
    expect(publicId('ffffffff-ffff-ffff-ffff-ffffffffffff')).toBe('7n42DGM5Tflk9n8mt7Fhc7');
  });
});

it('random octets are given out once, each time their own copy', () => {
  const drawn = Array.from({ length: 2000 }, () => randomOctets(12));
  const texts = drawn.map((octets) => octets.toString('hex'));
  expect(new Set(texts).size).toBe(texts.length);
  for (let i = 0; i < 2000; i++) uuidv7(Date.now());
  expect(drawn.map((octets) => octets.toString('hex'))).toEqual(texts);
});

it('base 62 is the number that the octets are, and a public id leads back to its UUID', () => {
  for (const size of [4, 16, 32]) {
    for (const octets of [
      Buffer.alloc(size),
      Buffer.alloc(size, 0xff),
      ...Array.from({ length: 200 }, () => randomOctets(size)),
    ]) {
      let value = 0n;
      for (const digit of base62(octets)) value = value * 62n + BigInt(DIGITS.indexOf(digit));
      expect(value.toString(16).padStart(2 * size, '0')).toBe(octets.toString('hex'));
    }
  }
  const id = uuidv7(Date.now());
  expect(fromPublicId(publicId(id))).toBe(id);
});
