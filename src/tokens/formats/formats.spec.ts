import { createCipheriv, createSecretKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { JwtService } from '@nestjs/jwt';
import { jwtVerify } from 'jose';
import { Config } from '../../config/config.js';
import { uuidv7, writeUuid } from '../../kernel/ids.js';
import type { Key } from '../../keyring/keyring.js';
import type { ClientToken } from '../access-token.js';
import { JwtFormat } from './jwt.js';
import { OpaqueFormat } from './opaque.js';

const ids = Array.from({ length: 8 }, () => uuidv7(Date.now()));
const token = (issuedAt: number, lifetime: number): ClientToken => ({
  id: ids[0],
  issuedAt,
  expiresAt: issuedAt + lifetime,
  organizationId: ids[1],
  clientId: ids[2],
  subjectId: ids[2],
  credentialId: ids[3],
  scopes: ['a:b', 'c.d'],
  audience: ['https://one.example', 'https://two.example'],
  era: 7,
  holds: {
    organization: { id: ids[1], epoch: 1 },
    account: { id: ids[2], epoch: 2 },
    credential: { id: ids[3], epoch: 3 },
  },
});

/** The same token under a person's grant. */
const granted = (issuedAt: number, lifetime: number): ClientToken => {
  const plain = token(issuedAt, lifetime);
  return {
    ...plain,
    subjectId: ids[4],
    resource: { grantId: ids[5], organizationId: ids[6], companyId: ids[7] },
    holds: {
      ...plain.holds,
      user: { id: ids[4], epoch: 4 },
      grant: { id: ids[5], epoch: 5 },
      resource_organization: { id: ids[6], epoch: 6 },
    },
  };
};

const key = { kid: 'k'.repeat(22), secret: createSecretKey(randomBytes(32)) } as Key;
const config = Object.assign(new Config(), {
  ...{ CREDENTIAL_PREFIX: 'client', ENVIRONMENT: 'live', ISSUER_URL: 'https://issuer.example' },
});
const opaque = new OpaqueFormat(config);
const jwt = new JwtFormat(new JwtService(), config);
const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const signing = { kid: 'k', algorithm: 'ES256', secret: pair.privateKey, publicKey: pair.publicKey } as unknown as Key;

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

it.each([
  ['the account itself', token],
  ['a person under a grant', granted],
])('a token carries whom it is for and names all that it hangs on, in every format: %s', (_, of) => {
  const said = of(1_800_000_000, 3600);
  expect(opaque.open(opaque.seal(said, key), key)).toEqual(said);
  expect(jwt.open(jwt.seal(said, signing), signing)).toEqual(said);
});

it('opaque tokens from before versions stay good, and those of a version to come are refused', () => {
  const said = token(1_800_000_000, 3600);
  const text = `${said.scopes.join(' ')}\n${said.audience.join(' ')}`;
  const octets = Buffer.alloc(90 + text.length);
  for (const [i, id] of ids.slice(0, 4).entries()) writeUuid(id, octets, 16 * i);
  octets.writeUIntBE(said.issuedAt, 64, 6);
  for (const [i, integer] of [3600, 7, 1, 2, 3].entries()) octets.writeUInt32BE(integer, 70 + 4 * i);
  octets.write(text, 90);
  const seal = (plain: Buffer) => {
    const header = `client_oa2_live_${key.kid}`;
    const nonce = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', key.secret, nonce).setAAD(Buffer.from(header));
    const sealed = Buffer.concat([cipher.update(plain), cipher.final()]);
    return header + Buffer.concat([nonce, sealed, cipher.getAuthTag()]).toString('base64url');
  };
  expect(opaque.open(seal(octets), key)).toEqual(said);
  expect(opaque.open(seal(Buffer.concat([Buffer.of(0x9f), octets])), key)).toBeUndefined();
});

it('JWTs from before the members of their epochs had names stay good', () => {
  const said = token(1_800_000_000, 3600);
  const claims = JSON.parse(Buffer.from(jwt.seal(said, signing).split('.')[1], 'base64url').toString());
  const options = { privateKey: pair.privateKey as never, algorithm: 'ES256' as const };
  const header = { alg: 'ES256', typ: 'at+jwt', kid: 'k' };
  const before = new JwtService().sign({ ...claims, gatehouse_epochs: [7, 1, 2, 3] }, { ...options, header });
  expect(jwt.open(before, signing)).toEqual(said);
});

it.each(['ES256', 'RS256', 'PS256'])('a JWT bears a signature that others verify: %s', async (algorithm) => {
  const rsa = () => generateKeyPairSync('rsa', { modulusLength: 2048 });
  const { privateKey, publicKey } = algorithm === 'ES256' ? pair : rsa();
  const own = { kid: 'k', algorithm, secret: privateKey, publicKey } as unknown as Key;
  // Of 600 ECDSA signatures some have an R or S that begins with a zero octet, and most one whose first bit is set.
  for (let i = 0; i < (algorithm === 'ES256' ? 600 : 3); i++) {
    const said = { ...token(1_800_000_000 + i, 3600), audience: ['https://one.example'] };
    const text = jwt.seal(said, own);
    const { payload } = await jwtVerify(text, publicKey, { typ: 'at+jwt', currentDate: new Date(1_800_000_000_000) });
    expect(payload.iat).toBe(said.issuedAt);
    expect(jwt.open(text, own)).toEqual(said);
  }
});
