import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Clock } from '../../src/kernel/clock.js';
import { GRANT, portOf } from '../support/oauth.js';
import { bearer, type Session, type TestAccount, TestService } from '../support/service.js';

describe('the clock and slow clients', () => {
  let service: TestService;
  let admin: Session;
  let account: TestAccount;

  beforeAll(async () => {
    service = await TestService.start({ REVOCATION_BOUND_MS: '2000' });
    admin = await service.signIn();
    await admin.createOrganization('Clocks');
    account = await admin.createAccount('Clockwork', undefined, { token_format: 'jwt' });
  });
  afterAll(() => service.stop());

  const companies = async (token: string) =>
    (await service.request('GET', '/companies', { headers: bearer(token) })).status;
  const until = async (condition: () => Promise<boolean>) => {
    while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 50));
  };

  it('CK-02 a wall clock that jumps back an hour revives no token and does not date a new one back', async () => {
    const clock = service.app.get(Clock);
    const { wall } = clock;
    const secret = await admin.createSecret(account.id, { expires_at: new Date(clock.now() + 2500).toISOString() });
    const short = await service.token(GRANT, { id: account.client_id, secret: secret.secret });
    expect(short.status).toBe(200);
    await until(async () => (await companies(short.json.access_token)) === 401);
    try {
      clock.wall = () => Date.now() - 3_600_000;
      // A jump is first taken for a machine that slept: the view is stale until the next news, and what expired stays expired.
      expect([401, 503]).toContain(await companies(short.json.access_token));
      await until(async () => (await service.token(GRANT, account.credentials)).status === 200);
      expect(await companies(short.json.access_token)).toBe(401);
      const fresh = await service.token(GRANT, account.credentials);
      const { iat } = JSON.parse(Buffer.from(fresh.json.access_token.split('.')[1], 'base64url').toString());
      expect(Math.abs(iat - Date.now() / 1000)).toBeLessThan(60);
    } finally {
      clock.wall = wall;
    }
  });

  it('DS-02 connections that send a byte now and then are closed, and others are served meanwhile', async () => {
    const slow = Array.from({ length: 300 }, () => {
      const socket = connect(portOf(service), '127.0.0.1');
      socket.on('error', () => undefined);
      socket.write('POST /oauth/token HTTP/1.1\r\nHost: x\r\nX-Slow: ');
      const drip = setInterval(() => socket.write('a'), 1000);
      return new Promise<void>((resolve) =>
        socket.on('close', () => {
          clearInterval(drip);
          resolve();
        }),
      );
    });
    expect((await fetch(`http://127.0.0.1:${portOf(service)}/health/live`)).status).toBe(200);
    await Promise.all(slow);
    const answer = await service.token(GRANT, account.credentials);
    expect(answer.status).toBe(200);
  });
});
