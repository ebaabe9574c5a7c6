import type { webcrypto } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';
// @ts-expect-error it ships no types
import { ClientCredentials } from 'simple-oauth2';
import { PATIENT } from '../support/oauth.js';
import { bearer, freePort, type Session, type TestAccount, TestService } from '../support/service.js';

const SCOPE = 'companies:read companies:write';

/** Clients that no one here wrote, as their documentation has them; nothing is loosened but https, on loopback. */
let service: TestService;
let issuer: string;
let admin: Session;
let opaque: TestAccount;
let jwt: TestAccount;

beforeAll(async () => {
  const PORT = await freePort();
  issuer = `http://127.0.0.1:${PORT}`;
  service = await TestService.start({ ...PATIENT, PORT, ISSUER_URL: issuer });
  admin = await service.signIn();
  await admin.createOrganization('Strict clients');
  opaque = await admin.createAccount('Opaque', SCOPE.split(' '));
  jwt = await admin.createAccount('JWT', SCOPE.split(' '), { token_format: 'jwt', token_ttl_seconds: 900 });
});
afterAll(() => service?.stop());

const companies = async (token: string) => (await fetch(`${issuer}/companies`, { headers: bearer(token) })).status;

describe('Y11 oauth4webapi', () => {
  const loopback = { [oauth.allowInsecureRequests]: true };
  const discover = async (algorithm: 'oauth2' | 'oidc') => {
    const url = new URL(issuer);
    return oauth.processDiscoveryResponse(url, await oauth.discoveryRequest(url, { algorithm, ...loopback }));
  };

  for (const algorithm of ['oauth2', 'oidc'] as const) {
    for (const authenticate of [oauth.ClientSecretBasic, oauth.ClientSecretPost]) {
      it(`discovers by ${algorithm} and authenticates by ${authenticate.name}`, async () => {
        const server = await discover(algorithm);
        const client: oauth.Client = { client_id: opaque.client_id };
        const auth = authenticate(opaque.credentials.secret);
        const response = await oauth.clientCredentialsGrantRequest(server, client, auth, { scope: SCOPE }, loopback);
        const result = await oauth.processClientCredentialsResponse(server, client, response);
        expect(result).toEqual({
          access_token: expect.any(String),
          token_type: 'bearer',
          expires_in: 3600,
          scope: SCOPE,
        });
        expect(await companies(result.access_token)).toBe(200);
      });
    }
  }

  for (const authenticate of [oauth.ClientSecretBasic, oauth.ClientSecretPost]) {
    it(`introspects and revokes by ${authenticate.name}`, async () => {
      const server = await discover('oauth2');
      const client: oauth.Client = { client_id: opaque.client_id };
      const auth = authenticate(opaque.credentials.secret);
      const granted = await oauth.clientCredentialsGrantRequest(server, client, auth, { scope: SCOPE }, loopback);
      const { access_token } = await oauth.processClientCredentialsResponse(server, client, granted);
      const ask = async () => {
        const response = await oauth.introspectionRequest(server, client, auth, access_token, loopback);
        return oauth.processIntrospectionResponse(server, client, response);
      };
      expect(await ask()).toMatchObject({ active: true, client_id: opaque.client_id, scope: SCOPE, iss: issuer });
      const revoked = await oauth.revocationRequest(server, client, auth, access_token, loopback);
      expect(await oauth.processRevocationResponse(revoked)).toBeUndefined();
      expect(await ask()).toEqual({ active: false });
      expect(await companies(access_token)).toBe(401);
      // What is refused it reads from the body, and from the challenge.
      const foreign = oauth.clientCredentialsGrantRequest(
        server,
        { client_id: jwt.client_id },
        authenticate(jwt.credentials.secret),
        {},
        loopback,
      );
      const other = await oauth.processClientCredentialsResponse(server, { client_id: jwt.client_id }, await foreign);
      const refused = await oauth.revocationRequest(server, client, auth, other.access_token, loopback);
      const error = await oauth.processRevocationResponse(refused).catch((thrown) => thrown);
      expect(error).toBeInstanceOf(oauth.ResponseBodyError);
      expect([error.status, error.error]).toEqual([400, 'unauthorized_client']);
      expect(await companies(other.access_token)).toBe(200);
    });
  }

  it('takes a JWT for the RFC 9068 access token that it is', async () => {
    const server = await discover('oauth2');
    const client: oauth.Client = { client_id: jwt.client_id };
    const auth = oauth.ClientSecretBasic(jwt.credentials.secret);
    const response = await oauth.clientCredentialsGrantRequest(server, client, auth, {}, loopback);
    const { access_token } = await oauth.processClientCredentialsResponse(server, client, response);
    const request = new Request(`${issuer}/companies`, { headers: bearer(access_token) });
    const claims = await oauth.validateJwtAccessToken(server, request, issuer, loopback);
    expect(claims).toMatchObject({ iss: issuer, aud: issuer, sub: jwt.id, client_id: jwt.client_id, scope: SCOPE });
    expect(claims.exp - claims.iat).toBe(900);
  });

  it('reads what is wrong from the challenge of a 401, and from the body of a 400', async () => {
    const server = await discover('oauth2');
    const client: oauth.Client = { client_id: opaque.client_id };
    const ask = async (secret: string, parameters: Record<string, string>) => {
      const auth = oauth.ClientSecretBasic(secret);
      const response = await oauth.clientCredentialsGrantRequest(server, client, auth, parameters, loopback);
      return oauth.processClientCredentialsResponse(server, client, response).catch((error) => error);
    };
    const refused = await ask(jwt.credentials.secret, {});
    expect(refused).toBeInstanceOf(oauth.WWWAuthenticateChallengeError);
    expect(refused.cause).toMatchObject([
      { scheme: 'basic', parameters: { realm: 'gatehouse', charset: 'UTF-8', error: 'invalid_client' } },
    ]);
    const beyond = await ask(opaque.credentials.secret, { scope: 'admin:access' });
    expect(beyond).toBeInstanceOf(oauth.ResponseBodyError);
    expect([beyond.status, beyond.error]).toEqual([400, 'invalid_scope']);
  });
});

describe('Y11 openid-client', () => {
  for (const algorithm of ['oauth2', 'oidc'] as const) {
    for (const authenticate of [openid.ClientSecretBasic, openid.ClientSecretPost]) {
      it(`discovers by ${algorithm} and authenticates by ${authenticate.name}`, async () => {
        const config = await openid.discovery(
          new URL(issuer),
          jwt.client_id,
          undefined,
          authenticate(jwt.credentials.secret),
          { algorithm, execute: [openid.allowInsecureRequests] },
        );
        const tokens = await openid.clientCredentialsGrant(config, { scope: SCOPE });
        expect(tokens).toMatchObject({ token_type: 'bearer', expires_in: 900, scope: SCOPE });
        expect(tokens.refresh_token ?? tokens.id_token).toBeUndefined();
        const answer = await openid.fetchProtectedResource(
          config,
          tokens.access_token,
          new URL(`${issuer}/companies`),
          'GET',
        );
        expect(answer.status).toBe(200);
      });
    }
  }

  for (const authenticate of [openid.ClientSecretBasic, openid.ClientSecretPost]) {
    it(`introspects and revokes by ${authenticate.name}`, async () => {
      const config = await openid.discovery(
        new URL(issuer),
        jwt.client_id,
        undefined,
        authenticate(jwt.credentials.secret),
        { execute: [openid.allowInsecureRequests] },
      );
      const { access_token } = await openid.clientCredentialsGrant(config, { scope: SCOPE });
      const told = await openid.tokenIntrospection(config, access_token, { token_type_hint: 'access_token' });
      expect(told).toMatchObject({ active: true, sub: jwt.id, aud: issuer, scope: SCOPE, token_type: 'Bearer' });
      await openid.tokenRevocation(config, access_token);
      expect(await openid.tokenIntrospection(config, access_token)).toEqual({ active: false });
      expect(await companies(access_token)).toBe(401);
      await openid.tokenRevocation(config, 'unknown');
    });
  }
});

/** Their own signers, with keys of WebCrypto: openid-client and oauth4webapi say `Ed25519`, give `aud` as the issuer, and send nbf. */
describe('Y11 private_key_jwt', () => {
  const PARAMETERS = {
    Ed25519: { name: 'Ed25519' },
    ES256: { name: 'ECDSA', namedCurve: 'P-256' },
    PS256: { name: 'RSA-PSS', hash: 'SHA-256', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]) },
    RS256: {
      name: 'RSASSA-PKCS1-v1_5',
      hash: 'SHA-256',
      modulusLength: 2048,
      publicExponent: new Uint8Array([1, 0, 1]),
    },
  };

  for (const alg of Object.keys(PARAMETERS) as (keyof typeof PARAMETERS)[]) {
    it(`oauth4webapi and openid-client sign with ${alg}, with a kid and without`, async () => {
      const pair = (await crypto.subtle.generateKey(PARAMETERS[alg], true, [
        'sign',
        'verify',
      ])) as webcrypto.CryptoKeyPair;
      const jwk = await crypto.subtle.exportKey('jwk', pair.publicKey); // key_ops, ext, alg and all
      const made = await admin.post(`/service-accounts/${jwt.id}/keys`, { jwk });
      expect([made.status, made.json.alg]).toEqual([201, alg === 'Ed25519' ? 'EdDSA' : alg]);
      for (const key of [pair.privateKey, { key: pair.privateKey, kid: made.json.kid }]) {
        const url = new URL(issuer);
        const loopback = { [oauth.allowInsecureRequests]: true };
        const server = await oauth.processDiscoveryResponse(
          url,
          await oauth.discoveryRequest(url, { algorithm: 'oauth2', ...loopback }),
        );
        const client: oauth.Client = { client_id: jwt.client_id };
        const response = await oauth.clientCredentialsGrantRequest(
          server,
          client,
          oauth.PrivateKeyJwt(key),
          {},
          loopback,
        );
        const result = await oauth.processClientCredentialsResponse(server, client, response);
        expect(await companies(result.access_token)).toBe(200);

        const execute = [openid.allowInsecureRequests];
        const config = await openid.discovery(url, jwt.client_id, undefined, openid.PrivateKeyJwt(key), { execute });
        const tokens = await openid.clientCredentialsGrant(config, { scope: SCOPE });
        expect(tokens).toMatchObject({ expires_in: 900, scope: SCOPE });

        // Each request has an assertion of its own, at every endpoint (CA-19).
        expect(await openid.tokenIntrospection(config, tokens.access_token)).toMatchObject({
          active: true,
          sub: jwt.id,
        });
        await openid.tokenRevocation(config, tokens.access_token);
        expect(await openid.tokenIntrospection(config, tokens.access_token)).toEqual({ active: false });
        expect(await companies(tokens.access_token)).toBe(401);
        const auth = oauth.PrivateKeyJwt(key);
        const revoked = await oauth.revocationRequest(server, client, auth, result.access_token, loopback);
        expect(await oauth.processRevocationResponse(revoked)).toBeUndefined();
        const told = await oauth.introspectionRequest(server, client, auth, result.access_token, loopback);
        expect(await oauth.processIntrospectionResponse(server, client, told)).toEqual({ active: false });
      }
    });
  }
});

describe('Y11 simple-oauth2', () => {
  it('revokes, and parses the answer', async () => {
    const client = new ClientCredentials({
      client: opaque.credentials,
      auth: { tokenHost: issuer, tokenPath: '/oauth/token', revokePath: '/oauth/revoke' },
    });
    const granted = await client.getToken({ scope: SCOPE });
    expect(await companies(granted.token.access_token as string)).toBe(200);
    await granted.revoke('access_token');
    expect(await companies(granted.token.access_token as string)).toBe(401);
  });

  for (const authorizationMethod of ['header', 'body'] as const) {
    for (const bodyFormat of ['form', 'json'] as const) {
      it(`authenticates in the ${authorizationMethod} with a ${bodyFormat} body`, async () => {
        const client = new ClientCredentials({
          client: opaque.credentials,
          auth: { tokenHost: issuer, tokenPath: '/oauth/token' },
          options: { authorizationMethod, bodyFormat },
        });
        const { token } = await client.getToken({ scope: SCOPE });
        expect(token).toMatchObject({ token_type: 'Bearer', expires_in: 3600, scope: SCOPE });
        expect(await companies(token.access_token as string)).toBe(200);
      });
    }
  }
});
