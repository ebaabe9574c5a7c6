import { createHmac, createSign, sign } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import {
  ALGORITHMS,
  claimsOf,
  expectNoToken,
  JWT_BEARER,
  jwt,
  makeKey,
  now,
  part,
  present,
  REFUSED,
  register,
  signatureOf,
  type TestKey,
} from '../support/assertions.js';
import { accessToken, eventsOf, expectOAuthError, expectToken, GRANT, PATIENT } from '../support/oauth.js';
import { ISSUER, type Session, type TestAccount, TestService } from '../support/service.js';

let service: TestService;
let admin: Session;
let account: TestAccount;
let sibling: TestAccount;
let foreign: TestAccount;
let keys: Record<(typeof ALGORITHMS)[number], TestKey>;
let siblings: { id: string; kid: string };
let foreigns: { id: string; kid: string };
const stranger = makeKey('EdDSA');

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  admin = await service.signIn();
  await admin.createOrganization('Elsewhere');
  foreign = await admin.createAccount('Foreign', ['companies:read']);
  foreigns = await register(admin, foreign, makeKey('EdDSA'));
  await admin.createOrganization('Hostile assertions');
  account = await admin.createAccount('Ledger', ['companies:read']);
  sibling = await admin.createAccount('Sibling', ['companies:read']);
  siblings = await register(admin, sibling, makeKey('EdDSA'));
  keys = Object.fromEntries(ALGORITHMS.map((alg) => [alg, makeKey(alg)])) as typeof keys;
  for (const alg of ALGORITHMS) await register(admin, account, keys[alg], { alg });
});
afterAll(() => service?.stop());

const refused = (assertions: readonly string[], description?: string, reason?: string) =>
  expectNoToken(service, account, assertions, description, reason);
const signed = (own: Record<string, unknown>, header: Record<string, unknown> = {}, key = keys.EdDSA) =>
  jwt(key, header, claimsOf(account, own));

describe('the request', () => {
  it('PJ-29 client_assertion_type missing, wrong or twice; a type without an assertion', async () => {
    const assertion = signed({});
    const forms = [
      { client_assertion: assertion },
      { client_assertion: assertion, client_assertion_type: 'jwt-bearer' },
      { client_assertion: assertion, client_assertion_type: JWT_BEARER.toUpperCase() },
      { client_assertion: assertion, client_assertion_type: `${JWT_BEARER} ` },
      {
        client_assertion: assertion,
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:saml2-bearer',
      },
      { client_assertion_type: JWT_BEARER },
      { client_assertion_type: JWT_BEARER, client_assertion: '' },
    ];
    for (const form of forms)
      expectOAuthError(await service.token({ ...GRANT, ...(form as Record<string, string>) }), 400, 'invalid_request');
    const twice = `${new URLSearchParams({ ...GRANT, client_assertion: assertion })}&client_assertion_type=${JWT_BEARER}`;
    expectOAuthError(await service.token(`${twice}&client_assertion_type=${JWT_BEARER}`), 400, 'invalid_request');
    expectOAuthError(await service.token(`${twice}&client_assertion=${assertion}`), 400, 'invalid_request');
    expectToken(await service.token(twice), 'companies:read'); // control: nothing was used up by any of them
  });

  it('PJ-28 over 8 KiB, before anything is decoded', async () => {
    const fits = (length: number) => {
      const bare = signed({ pad: '' }).length;
      for (let pad = Math.floor(((length - bare) * 3) / 4) - 4; ; pad++) {
        const assertion = signed({ pad: 'x'.repeat(pad) });
        if (assertion.length >= length) return assertion;
      }
    };
    const large = fits(8193);
    expect(large.length).toBeLessThan(8200);
    const answer = await present(service, large);
    expectOAuthError(answer, 400, 'invalid_request', 'client_assertion is over 8 KiB');
    expectOAuthError(await present(service, `${'e'.repeat(9000)}.e.e`), 400, 'invalid_request');
    expectToken(await present(service, fits(8180).slice(0, 8192)), 'companies:read');
    expectOAuthError(await present(service, `${'e'.repeat(1 << 20)}.e.e`), 413, 'invalid_request');
  });

  it('CA-05 client_id of another; an assertion for another than it says', async () => {
    const answer = await present(service, signed({}), { client_id: sibling.client_id });
    expectOAuthError(answer, 400, 'invalid_request', 'client_id is not the one that the request authenticates as');
    const [event] = await eventsOf(service, 'client.authenticated');
    expect(event).toMatchObject({ reason: 'client_id_mismatch', actor_name: account.client_id });
    const issuer = 'iss and sub of the client assertion must both be the client id';
    await refused([signed({ iss: sibling.client_id }), signed({ iss: undefined }), signed({ iss: ISSUER })], issuer);
    for (const sub of [sibling.client_id, foreign.client_id])
      expectOAuthError(await present(service, signed({ sub, iss: sub })), 401, 'invalid_client', REFUSED);
    await refused([signed({ sub: undefined }), signed({ sub: [account.client_id] }), signed({ sub: 7 })]);
  });
});

describe('the form', () => {
  it('PJ-26 whatever is no compact JWS', async () => {
    const good = signed({});
    const [header, claims, signature] = good.split('.');
    await refused(
      [
        `${good}.${signature}`,
        `${good}.${signature}.${signature}`,
        `${header}.${claims}`,
        `${header}.${claims}.`,
        `.${claims}.${signature}`,
        '..',
        `${good}=`,
        `${header}==.${claims}.${signature}`,
        `${header}.${claims}.${signature}\n`,
        ` ${good}`,
        `${header} .${claims}.${signature}`,
        `${header}.\n${claims}.${signature}`,
        good.replace(/.$/, '/'), // base64, not base64url
        JSON.stringify({ payload: claims, signatures: [{ protected: header, signature }] }),
        JSON.stringify({ payload: claims, protected: header, signature }),
        jwt(keys.EdDSA, '[]', claimsOf(account)),
        jwt(keys.EdDSA, 'null', claimsOf(account)),
        jwt(keys.EdDSA, '"alg"', claimsOf(account)),
        jwt(keys.EdDSA, {}, '[]'),
        jwt(keys.EdDSA, {}, 'no JSON'),
        jwt(keys.EdDSA, {}, `\ufeff${JSON.stringify(claimsOf(account))}`),
        jwt(keys.EdDSA, {}, `${JSON.stringify(claimsOf(account))} {}`),
        `${part({ alg: 'EdDSA' })}.${part(Buffer.from([0x7b, 0xff, 0x7d]))}.${signature}`,
      ],
      REFUSED,
      'malformed_assertion',
    );
  });

  it('PJ-13 a member twice, in header or claims, in any spelling', async () => {
    const claims = JSON.stringify(claimsOf(account));
    await refused(
      [
        jwt(keys.EdDSA, '{"alg":"EdDSA","kid":"a","kid":"a"}', claims),
        jwt(keys.EdDSA, '{"alg":"none","alg":"EdDSA"}', claims),
        jwt(keys.EdDSA, '{"alg":"EdDSA","\\u0061lg":"EdDSA"}', claims),
        jwt(keys.EdDSA, {}, claims.replace('{', `{"sub":"${sibling.client_id}",`)),
        jwt(keys.EdDSA, {}, claims.replace('{', '{"jti" : "x",')),
      ],
      REFUSED,
      'malformed_assertion',
    );
    const nested = { jwk: { kty: 'OKP', alg: '{"alg":"alg"}' }, other: ['alg', { kid: 'kid' }], x: '"kid":' };
    expectToken(await present(service, signed(nested, nested)), 'companies:read'); // control: deeper down they may repeat
  });

  it('PJ-14 crit of any content, and b64', async () => {
    const headers = [
      { crit: ['exp'], exp: now() + 60 },
      { crit: ['bork'], bork: 1 },
      { crit: [] },
      { crit: null },
      { b64: false },
      { b64: true },
      { crit: ['b64'], b64: false },
    ];
    await refused(
      headers.map((header) => signed({}, header)),
      REFUSED,
      'malformed_assertion',
    );
  });

  it('PJ-31 other types of JWT, and our own tokens', async () => {
    const types = ['at+jwt', 'application/at+jwt', 'dpop+jwt', 'jose', '', 7, null, ['JWT']];
    await refused(
      types.map((typ) => signed({}, { typ })),
      REFUSED,
      'malformed_assertion',
    );
    const tokens = [];
    for (const token_format of ['jwt', 'opaque']) {
      const issuing = await admin.createAccount(`Issuing ${token_format}`, ['companies:read'], { token_format });
      tokens.push(await accessToken(service, issuing));
    }
    for (const token of tokens) expectOAuthError(await present(service, token), 401, 'invalid_client', REFUSED);
    // Even with the type of an assertion, it is signed by no key of a client's.
    const [, claims, signature] = tokens[0].split('.');
    const renamed = `${part({ alg: 'ES256', typ: 'JWT' })}.${claims}.${signature}`;
    expectOAuthError(await present(service, renamed), 401, 'invalid_client', REFUSED);
  });
});

describe('algorithm and key', () => {
  it('PJ-07 none, however it is spelled; CA-20 the algorithms of client_secret_jwt, which metadata does not list', async () => {
    const unsigned = (alg: unknown, signature = '') => `${part({ alg })}.${part(claimsOf(account))}.${signature}`;
    const good = signed({}).split('.')[2];
    const spellings = ['none', 'None', 'nOnE', 'NONE', '', null, 0, ['EdDSA'], undefined];
    await refused(spellings.flatMap((alg) => [unsigned(alg), unsigned(alg, good), unsigned(alg, 'AA')]));
    const hmac = (secret: string | Buffer) => {
      const data = `${part({ alg: 'HS256' })}.${part(claimsOf(account))}`;
      return `${data}.${createHmac('sha256', secret).update(data).digest('base64url')}`;
    };
    // RFC 8725 §2.1: a public key taken for a shared secret.
    const publics = Object.values(keys).flatMap(({ pem, jwk }) => [pem, pem.trim(), JSON.stringify(jwk)]);
    await refused([account.credentials.secret, ...publics].map(hmac), REFUSED, 'unsupported_algorithm');
    await refused(
      ['ES384', 'PS512', 'RS512', 'ES256K', 'Ed448', 'eddsa', 'RSA-OAEP'].map((alg) => signed({}, { alg })),
    );
  });

  it('PJ-10 another algorithm than the one that the key is registered for', async () => {
    const pinned = await admin.createAccount('Pinned', ['companies:read']);
    const rsa = makeKey('PS256');
    await register(admin, pinned, rsa);
    const by = (alg: 'PS256' | 'RS256', header: string) => {
      const data = `${part({ alg: header })}.${part(claimsOf(pinned))}`;
      return `${data}.${signatureOf(rsa, data, alg).toString('base64url')}`;
    };
    for (const assertion of [by('RS256', 'RS256'), by('RS256', 'PS256'), by('PS256', 'RS256'), by('PS256', 'ES256')])
      expectOAuthError(await present(service, assertion), 401, 'invalid_client', REFUSED);
    expectToken(await present(service, by('PS256', 'PS256')), 'companies:read');
  });

  it('PJ-11 SS-01 SS-02 SS-04 a key in the header, or a place to fetch one from: neither is looked at', async () => {
    let asked = 0;
    const server = createServer((_request, response) => {
      asked++;
      response.end(JSON.stringify({ keys: [stranger.jwk] }));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks`;
    const places = [url, 'http://169.254.169.254/', 'http://[::1]/', 'file:///etc/passwd'];
    const headers = [
      { jwk: stranger.jwk },
      { x5c: [stranger.pem] },
      ...places.flatMap((at) => [{ jku: at }, { x5u: at }]),
    ];
    try {
      await refused(
        headers.map((header) => signed({}, header, stranger)),
        REFUSED,
        'wrong_signature',
      );
      // A storm of unknown keys costs no fetch either: there is nothing that fetches.
      await refused(Array.from({ length: 30 }, (_, i) => signed({}, { kid: `k${i}`, jku: url }, stranger)));
      for (const header of headers) expectToken(await present(service, signed({}, header)), 'companies:read');
      expect(asked).toBe(0);
    } finally {
      server.close();
    }
  });

  it('PJ-13 a kid of any content chooses among the client’s own keys, and is nothing else', async () => {
    const kids = [
      '../../etc/passwd',
      "x' OR 1=1--",
      'kid\r\nX-Injected: y',
      'x'.repeat(5000),
      '%00',
      '',
      siblings.id,
      siblings.kid,
      foreigns.id,
      foreigns.kid,
      '__proto__',
    ];
    await refused(
      kids.map((kid) => signed({}, { kid })),
      REFUSED,
      'unknown_key',
    );
    await refused([signed({}, { kid: ['a'] }), signed({}, { kid: { $ne: '' } }), signed({}, { kid: null })]);
    expectOAuthError(await present(service, signed({}, { kid: 'x'.repeat(100_000) })), 413, 'invalid_request');
    const [event] = await eventsOf(service, 'client.authenticated');
    expect(JSON.stringify(event)).not.toContain('x'.repeat(200));
  });

  it('PJ-25 broken signatures: bits, lengths, encodings, values out of range', async () => {
    for (const alg of ALGORITHMS) {
      const good = signed({}, {}, keys[alg]);
      const [header, claims, text] = good.split('.');
      const signature = Buffer.from(text, 'base64url');
      const data = `${header}.${claims}`;
      const as = (octets: Uint8Array) => `${data}.${Buffer.from(octets).toString('base64url')}`;
      const flipped = [0, 1, 31, 32, 63, signature.length - 1].map((at) => {
        const copy = Buffer.from(signature);
        copy[at] ^= 1;
        return as(copy);
      });
      const lengths = [signature.subarray(1), signature.subarray(0, -1), Buffer.concat([signature, Buffer.of(0)])];
      const plain = [Buffer.alloc(signature.length), Buffer.alloc(signature.length, 0xff), Buffer.of(0)];
      // The same octets with a bit set that base64url has to spare: another text, so another spelling of one assertion.
      const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
      const spare = `${good.slice(0, -1)}${digits[digits.indexOf(good.at(-1)!) ^ 1]}`;
      expect(Buffer.from(spare.split('.')[2], 'base64url').equals(signature)).toBe(true);
      await refused([...flipped, ...[...lengths, ...plain].map(as), spare]);
      expectToken(await present(service, good), 'companies:read'); // control
    }
  });

  it('PJ-25 ES256 in DER, and zeros; EdDSA with S that is not reduced; PS256 with another salt', async () => {
    const with_ = (key: TestKey, make: (data: Buffer) => Buffer) => {
      const data = `${part({ alg: key.alg })}.${part(claimsOf(account))}`;
      return `${data}.${make(Buffer.from(data)).toString('base64url')}`;
    };
    const zeros = [Buffer.alloc(64), Buffer.concat([Buffer.alloc(32), Buffer.alloc(32, 1)])];
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    const unreduced = (data: Buffer) => {
      const signature = sign(null, data, keys.EdDSA.privateKey);
      const s = BigInt(`0x${Buffer.from(signature.subarray(32)).reverse().toString('hex')}`) + order;
      return Buffer.concat([signature.subarray(0, 32), Buffer.from(s.toString(16).padStart(64, '0'), 'hex').reverse()]);
    };
    await refused([
      with_(keys.ES256, (data) => createSign('sha256').update(data).sign(keys.ES256.privateKey)),
      ...zeros.map((octets) => with_(keys.ES256, () => octets)),
      with_(keys.EdDSA, unreduced),
      with_(keys.PS256, (data) => sign('sha256', data, { key: keys.PS256.privateKey, padding: 6, saltLength: 0 })),
      with_(keys.PS256, (data) => sign('sha512', data, { key: keys.PS256.privateKey, padding: 6, saltLength: 32 })),
      with_(keys.RS256, (data) => sign('sha1', data, keys.RS256.privateKey)),
    ]);
  });
});
