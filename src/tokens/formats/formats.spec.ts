import { createSecretKey, randomBytes } from 'node:crypto';
import { Config } from '../../config/config.js';
import { uuidv7 } from '../../kernel/ids.js';
import type { Key } from '../../keyring/keyring.js';
import type { ClientToken } from '../access-token.js';
import { OpaqueFormat } from './opaque.js';

const ids = Array.from({ length: 4 }, () => uuidv7(Date.now()));
const token = (issuedAt: number, lifetime: number): ClientToken => ({
  id: ids[0],
  issuedAt,
  expiresAt: issuedAt + lifetime,
  organizationId: ids[1],
  clientId: ids[2],
  credentialId: ids[3],
  scopes: ['a:b', 'c.d'],
  audience: ['https://one.example', 'https://two.example'],
  era: 7,
  holds: ids.slice(1).map((id, epoch) => ({ id, epoch })),
});

const key = { kid: 'k'.repeat(22), secret: createSecretKey(randomBytes(32)) } as Key;
const opaque = new OpaqueFormat(Object.assign(new Config(), { CREDENTIAL_PREFIX: 'client', ENVIRONMENT: 'live' }));

it.each([
  ['the last second of 32 bits', 2_147_483_647],
  ['the year 2106', 4_294_967_296],
  ['a leap second', 1_483_228_799],
  ['an end of daylight saving', 1_793_494_800],
])('CK-05 times are whole numbers: %s', (_, issuedAt) => {
  for (const lifetime of [60, 86_400])
    expect(opaque.open(opaque.seal(token(issuedAt, lifetime), key), key)).toEqual(token(issuedAt, lifetime));
});

it('opens nothing that was changed in a single character', () => {
  const text = opaque.seal(token(1_800_000_000, 3600), key);
  for (let at = 0; at < text.length; at += 7) {
    const other = text[at] === 'A' ? 'B' : 'A';
    expect(opaque.open(text.slice(0, at) + other + text.slice(at + 1), key)).toBeUndefined();
  }
  expect(opaque.open(`${text}=`, key)).toBeUndefined();
  expect(opaque.open(text.slice(0, -1), key)).toBeUndefined();
});
