import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { claimsOf, jwt, makeKey, present, register } from '../support/assertions.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { GRANT, PATIENT } from '../support/oauth.js';
import { join } from '../support/people.js';
import { makeFor, makeOwn } from '../support/personal-access-tokens.js';
import { type Answer, basic, bearer, type Session, TestService } from '../support/service.js';

/** Two of a kind and a token of each: one is revoked, its sibling lives on. */
interface Pair {
  tokens: [doomed: string, sibling: string];
  /** Ends the first. */
  revoke(): Promise<Answer>;
}

const INSTANCES = 3;
const SCOPES = ['companies:read'];
const tokenIn = ({ json }: Answer): string => json.access_token;

let database: TestDatabase;
let services: TestService[];
let admin: Session;

beforeAll(async () => {
  database = await createDatabase();
  services = [];
  while (services.length < INSTANCES) services.push(await TestService.start(PATIENT, database));
  const platform = await services[0].signIn();
  await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
}, 60_000);
afterAll(async () => {
  await Promise.all(services.map((service) => service.stop()));
  await database.drop();
});

const KINDS: Record<string, () => Promise<Pair>> = {
  async secret() {
    const account = await admin.createAccount('By secret', SCOPES);
    const other = await admin.createSecret(account.id);
    const issue = async (secret: string) => tokenIn(await services[1].token(GRANT, { id: account.client_id, secret }));
    return {
      tokens: [await issue(account.secret.secret), await issue(other.secret)],
      revoke: () => admin.post(`/service-accounts/${account.id}/secrets/${account.secret.id}/revoke`),
    };
  },
  async 'public key'() {
    const account = await admin.createAccount('By key', SCOPES, { token_format: 'jwt' });
    const keys = [makeKey('EdDSA'), makeKey('ES256')];
    const [doomed] = [await register(admin, account, keys[0]), await register(admin, account, keys[1])];
    const issue = async (i: number) => tokenIn(await present(services[i], jwt(keys[i], {}, claimsOf(account))));
    return {
      tokens: [await issue(0), await issue(1)],
      revoke: () => admin.post(`/service-accounts/${account.id}/keys/${doomed.id}/revoke`),
    };
  },
  async "principal's token"() {
    const { id } = await admin.createAccount('Principal', SCOPES);
    const [doomed, sibling] = [await makeFor(admin, id, SCOPES), await makeFor(admin, id, SCOPES)];
    return {
      tokens: [doomed.token, sibling.token],
      revoke: () => admin.post(`/developer/service-principals/${id}/tokens/${doomed.id}/revoke`),
    };
  },
  async "person's token"() {
    const [doomed, sibling] = [await makeOwn(admin, SCOPES), await makeOwn(admin, SCOPES)];
    return {
      tokens: [doomed.token, sibling.token],
      revoke: () => admin.post(`/personal-access-tokens/${doomed.id}/revoke`),
    };
  },
  async 'single access token'() {
    const account = await admin.createAccount('Single', SCOPES);
    const issue = async () => tokenIn(await services[2].token(GRANT, account.credentials));
    const [doomed, sibling] = [await issue(), await issue()];
    const headers = { 'content-type': 'application/x-www-form-urlencoded', authorization: basic(account.credentials) };
    return {
      tokens: [doomed, sibling],
      revoke: () => services[0].request('POST', '/oauth/revoke', { headers, body: `token=${doomed}` }),
    };
  },
};

describe('one revocation of each kind of credential, on three instances, under load', () => {
  it.each(Object.keys(KINDS))(
    'P1 I3 %s: dead everywhere when the call returns, and its sibling lives',
    async (kind) => {
      const { tokens, revoke } = await KINDS[kind]();
      let revokedAt = Number.POSITIVE_INFINITY;
      let over = false;
      const seen: { doomed: boolean; instance: number; invoked: number; status: number }[] = [];
      const load = services.flatMap((service, instance) =>
        tokens.map(async (token, i) => {
          while (!over) {
            const invoked = performance.now();
            const { status } = await service.request('GET', '/companies', { headers: bearer(token) });
            seen.push({ doomed: i === 0, instance, invoked, status });
            await new Promise(setImmediate); // a refusal does no I/O, and nobody else would have a turn
          }
        }),
      );
      try {
        await new Promise((resolve) => setTimeout(resolve, 200));
        expect((await revoke()).status).toBe(200);
        revokedAt = performance.now();
        await new Promise((resolve) => setTimeout(resolve, 300));
      } finally {
        over = true;
        await Promise.all(load);
      }

      const late = seen.filter(({ invoked }) => invoked > revokedAt);
      for (const [instance] of services.entries()) {
        const of = (doomed: boolean) => late.filter((one) => one.instance === instance && one.doomed === doomed);
        expect(of(true).length).toBeGreaterThan(0);
        expect(new Set(of(true).map(({ status }) => status))).toEqual(new Set([401]));
        expect(new Set(of(false).map(({ status }) => status))).toEqual(new Set([200]));
      }
      // It was good until then, or its death would prove nothing.
      const before = seen.filter(({ invoked, doomed }) => doomed && invoked < revokedAt - 150);
      expect(before.some(({ status }) => status === 200)).toBe(true);
      expect(seen.filter(({ doomed }) => !doomed).every(({ status }) => status === 200)).toBe(true);
    },
  );
});
