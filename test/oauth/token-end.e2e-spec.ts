import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { Clock } from '../../src/kernel/clock.js';
import { accessToken, expectInvalidToken, PATIENT } from '../support/oauth.js';
import { bearer, type Session, type TestAccount, TestService } from '../support/service.js';

let service: TestService;
let admin: Session;
let account: TestAccount;

beforeAll(async () => {
  service = await TestService.start(PATIENT);
  admin = await service.signIn();
  await admin.createOrganization('The end of a token');
  account = await admin.createAccount('Concierge', ['companies:read']);
});
afterAll(() => service?.stop());
afterEach(() => {
  jest.restoreAllMocks();
});

const call = (headers: Record<string, string>) => service.request('GET', '/companies', { headers });

describe('Y9 what a holder is told', () => {
  it('an expired token is told that it expired, at its second, in both formats', async () => {
    const clock = service.app.get(Clock);
    const now = clock.now.bind(clock);
    const short = [
      await admin.createAccount('Short', ['companies:read'], { token_ttl_seconds: 60 }),
      await admin.createAccount('Short JWT', ['companies:read'], { token_ttl_seconds: 60, token_format: 'jwt' }),
    ];
    const tokens = [await accessToken(service, short[0]), await accessToken(service, short[1])];
    for (const good of tokens) {
      expect((await call(bearer(good))).status).toBe(200);
      jest.spyOn(clock, 'now').mockImplementation(() => now() + 60_000);
      expectInvalidToken(await call(bearer(good)), 'The access token expired');
      jest.restoreAllMocks();
      expect((await call(bearer(good))).status).toBe(200);
    }
  });

  it('a token lives no longer than its secret', async () => {
    const clock = service.app.get(Clock);
    const now = clock.now.bind(clock);
    const secret = await admin.createSecret(account.id, { expires_at: new Date(now() + 30_000).toISOString() });
    const answer = await service.token(
      { grant_type: 'client_credentials' },
      { id: account.client_id, secret: secret.secret },
    );
    expect(answer.status).toBe(200);
    expect(answer.json.expires_in).toBeLessThanOrEqual(30);
    expect(answer.json.expires_in).toBeGreaterThan(0);
    jest.spyOn(clock, 'now').mockImplementation(() => now() + 30_000);
    expectInvalidToken(await call(bearer(answer.json.access_token)), 'The access token expired');
    const late = await service.token(
      { grant_type: 'client_credentials' },
      { id: account.client_id, secret: secret.secret },
    );
    expect([late.status, late.json.error]).toEqual([401, 'invalid_client']);
  });

  it('a revoked token is told that it was revoked, in both formats, and stays so when it is expired no more', async () => {
    for (const settings of [{}, { token_format: 'jwt' }]) {
      const ended = await admin.createAccount(`Ended ${JSON.stringify(settings).length}`, ['companies:read'], settings);
      const good = await accessToken(service, ended);
      expect((await call(bearer(good))).status).toBe(200);
      expect((await admin.post(`/service-accounts/${ended.id}/disable`)).status).toBe(200);
      expectInvalidToken(await call(bearer(good)), 'The access token was revoked');
      expect((await admin.post(`/service-accounts/${ended.id}/enable`)).status).toBe(200);
      expectInvalidToken(await call(bearer(good)), 'The access token was revoked');
    }
  });
});
