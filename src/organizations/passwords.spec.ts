import type { Config } from '../config/config.js';
import { Passwords } from './passwords.js';

const passwords = new Passwords({ NODE_ENV: 'test' } as Config);

describe('what is a password (LG-14)', () => {
  it.each([
    ['7 characters', 'a'.repeat(7), false],
    ['8 characters', 'a'.repeat(8), true],
    ['128 characters', 'a'.repeat(128), true],
    ['129 characters', 'a'.repeat(129), false],
    ['8 emoji, 32 bytes', '🔑'.repeat(8), true],
    ['128 emoji, 512 bytes', '🔑'.repeat(128), true],
    ['spaces', '        ', true],
    ['8 characters that NFC makes 7', 'abcdefe\u0301', false],
    ['a NUL', 'abcdefgh\0', false],
    ['a lone surrogate', 'abcdefgh\ud800', false],
  ])('%s', (_, password, accepted) => {
    expect(passwords.acceptable(password)).toBe(accepted);
  });
});

it('tells apart two passwords that share their first 72 bytes', async () => {
  const shared = 'x'.repeat(72);
  const hash = await passwords.hash(`${shared}one`);
  expect(await passwords.verify(`${shared}one`, hash)).toBe(true);
  expect(await passwords.verify(`${shared}two`, hash)).toBe(false);
  expect(await passwords.verify(shared, hash)).toBe(false);
});

it('knows a password typed on a keyboard that decomposes', async () => {
  const hash = await passwords.hash('caf\u00e9 creme');
  expect(await passwords.verify('cafe\u0301 creme', hash)).toBe(true);
});

it('does the same work for nobody as for somebody (LG-02)', async () => {
  const hash = await passwords.hash('correct horse');
  const before = passwords.computations;
  expect(await passwords.verify('battery staple', hash)).toBe(false);
  expect(await passwords.verify('battery staple', null)).toBe(false);
  expect(passwords.computations - before).toBe(2);
});

it('really computes at full cost for nobody', async () => {
  const slow = new Passwords({ NODE_ENV: 'production' } as Config);
  const started = performance.now();
  expect(await slow.verify('battery staple', undefined)).toBe(false);
  expect(performance.now() - started).toBeGreaterThan(30);
});

it('lets a crowd through, two at a time', async () => {
  const hash = await passwords.hash('correct horse');
  const answers = await Promise.all(Array.from({ length: 20 }, () => passwords.verify('correct horse', hash)));
  expect(answers).toEqual(Array(20).fill(true));
});

it('lets people in while a crowd sets passwords', async () => {
  const hash = await passwords.hash('correct horse');
  const crowd = Promise.allSettled(Array.from({ length: 200 }, () => passwords.hash('battery staple')));
  expect(await passwords.verify('correct horse', hash)).toBe(true);
  const refused = (await crowd).filter(({ status }) => status === 'rejected');
  expect(refused).toHaveLength(200 - 65); // one at work, and those who wait
});
