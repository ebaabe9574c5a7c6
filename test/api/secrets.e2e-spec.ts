import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { at, join, MINUTE, startPatient, tokenOf } from '../support/people.js';
import { type Answer, bearer, type Session, type TestAccount, type TestService } from '../support/service.js';

let service: TestService;
let admin: Session & { userId: string };

beforeAll(async () => {
  service = await startPatient({ MAX_SECRETS_PER_ACCOUNT: '3' });
  const platform = await service.signIn();
  await platform.createOrganization('Acme');
  admin = await join(platform, 'admin@acme.example');
});
afterAll(() => service.stop());

const code = ({ status, json }: Answer) => [status, json?.code];
const list = async (account: TestAccount) => (await admin.get(`/service-accounts/${account.id}/secrets`)).json.data;
const path = (account: TestAccount, secretId = '', verb = '') =>
  `/service-accounts/${account.id}/secrets${secretId && `/${secretId}/${verb}`}`;
const issue = (account: TestAccount, secret: string) =>
  service.token({ grant_type: 'client_credentials' }, { id: account.client_id, secret });
const use = (token: string) => service.request('GET', '/companies', { headers: bearer(token) });
/** RFC 3339, so many ms by the database's clock from now. */
const inMs = (ms: number) => new Date(Date.now() + ms).toISOString();

describe('making', () => {
  it('SC-01 the secret is in one answer; afterwards there is label, hint, creator, expiry', async () => {
    const account = await admin.createAccount('Once');
    const expires_at = inMs(86_400_000);
    const made = await admin.post(path(account), { label: 'blue', expires_at });
    expect(made.status).toBe(201);
    const { secret, ...rest } = made.json;
    expect(secret).toMatch(/^client_sec_live_[0-9A-Za-z]{71}$/);
    expect(rest).toEqual({
      id: expect.any(String),
      label: 'blue',
      hint: secret.slice(-4),
      created_by: { type: 'user', id: admin.userId, name: 'admin' },
      created_at: expect.any(String),
      expires_at,
      revoked_at: null,
      last_token_issued_at: null,
    });
    expect((await list(account))[1]).toEqual(rest);
    for (const url of [
      path(account),
      `/service-accounts/${account.id}`,
      '/service-accounts',
      `/audit-events?target_id=${account.id}`,
      '/revocations',
    ]) {
      const { text } = await admin.get(url);
      expect(text).not.toContain(secret);
      expect(text).not.toContain(secret.slice(38, -6));
    }
    expect(service.logs.join('')).not.toContain(secret);
  });

  it('SC-05 a secret that shares the first 72 bytes is another one', async () => {
    const account = await admin.createAccount('Prefix');
    const { secret } = account.secret;
    expect(secret.length).toBeGreaterThan(72);
    const flip = (i: number) => secret.slice(0, i) + (secret[i] === 'A' ? 'B' : 'A') + secret.slice(i + 1);
    for (const wrong of [
      flip(73),
      flip(80),
      flip(secret.length - 1),
      flip(0),
      `${secret}A`,
      secret.slice(0, 72),
      secret.slice(0, -1),
    ])
      expect([(await issue(account, wrong)).status, wrong.length]).toEqual([401, wrong.length]);
    expect((await issue(account, secret)).status).toBe(200);
    const other = await admin.createAccount('Other');
    expect((await issue(account, other.secret.secret)).status).toBe(401);
  });

  it('SC-10 so many secrets an account; a revoked one makes room; many at once do not get past it', async () => {
    const account = await admin.createAccount('Full');
    await admin.createSecret(account.id);
    const answers = await Promise.all([1, 2, 3, 4].map(() => admin.post(path(account), {})));
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 422, 422, 422]);
    expect(code(await admin.post(path(account), {}))).toEqual([422, 'limit_reached']);
    expect(code(await admin.post(path(account, account.secret.id, 'rotate'), {}))).toEqual([422, 'limit_reached']);
    await admin.post(path(account, account.secret.id, 'revoke'));
    expect((await admin.post(path(account), {})).status).toBe(201);
  });

  it('SC-10 fields of a secret', async () => {
    const account = await admin.createAccount('Fields');
    for (const body of [
      { label: 'x'.repeat(129) },
      { label: 7 },
      { label: null },
      { label: 'nul\u0000' },
      { expires_at: inMs(-1000) },
      { expires_at: 'tomorrow' },
      { expires_at: '2031-01-01' },
      { expires_at: null },
      { secret: 'mine' },
    ])
      expect([body, (await admin.post(path(account), body)).status]).toEqual([body, 400]);
    expect(await list(account)).toHaveLength(1);
  });
});

describe('use and expiry', () => {
  it('Y3 each secret says when a token was last issued on it', async () => {
    const account = await admin.createAccount('Used');
    const second = await admin.createSecret(account.id, { label: 'second' });
    await issue(account, second.secret);
    const [first, used] = await list(account);
    expect(first.last_token_issued_at).toBeNull();
    const [event] = (await admin.get(`/audit-events?credential_id=${second.id}&action=token.issued`)).json.data;
    expect(used.last_token_issued_at).toBe(event.occurred_at);
  });

  it.each(['opaque', 'jwt'])('CONTRACT §7: a token (%s) never outlives its secret', async (token_format) => {
    const account = await admin.createAccount(`Short ${token_format}`, undefined, { token_format });
    const made = await admin.createSecret(account.id, { expires_at: inMs(10 * MINUTE) });
    const answer = await issue(account, made.secret);
    expect(answer.json.expires_in).toBeGreaterThan(590);
    expect(answer.json.expires_in).toBeLessThanOrEqual(600);
    const token = answer.json.access_token;
    if (token_format === 'jwt') {
      const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString());
      const [, secret] = await list(account);
      expect(claims.exp * 1000).toBeLessThanOrEqual(Date.parse(secret.expires_at));
      expect(claims.exp - claims.iat).toBe(answer.json.expires_in);
    }
    await at(service, 9 * MINUTE, async () => expect((await use(token)).status).toBe(200));
    await at(service, 10 * MINUTE + 1000, async () => {
      const late = await use(token);
      expect([late.status, late.headers['www-authenticate']]).toEqual([401, expect.stringContaining('expired')]);
      expect((await issue(account, made.secret)).json.error).toBe('invalid_client');
      expect((await issue(account, account.secret.secret)).status).toBe(200);
    });
  });
});

describe('rotating and revoking', () => {
  it('Y4 by overlap: both work, then the old one is retired with its tokens and the new one lives on', async () => {
    const account = await admin.createAccount('Rolling');
    const rotated = await admin.post(path(account, account.secret.id, 'rotate'), { label: 'next' });
    expect(rotated.status).toBe(201);
    expect(rotated.json).toMatchObject({ label: 'next', secret: expect.any(String) });
    const before = await tokenOf(service, account.credentials);
    const after = (await issue(account, rotated.json.secret)).json.access_token;
    expect((await admin.post(path(account, account.secret.id, 'revoke'))).status).toBe(200);
    expect((await use(before)).status).toBe(401);
    expect((await use(after)).status).toBe(200);
    expect((await issue(account, account.secret.secret)).status).toBe(401);
    const [event] = (await admin.get(`/audit-events?target_id=${rotated.json.id}`)).json.data;
    expect(event.changes.replaces).toEqual({ to: account.secret.id });
    expect(code(await admin.post(path(account, account.secret.id, 'rotate'), {}))).toEqual([404, 'not_found']);
  });

  it('Y4 overlap_seconds: the old one ends by itself, never before a token issued a moment ago', async () => {
    const account = await admin.createAccount('Overlap', undefined, { token_ttl_seconds: 600 });
    const rotate = (overlap_seconds: unknown) =>
      admin.post(path(account, account.secret.id, 'rotate'), { overlap_seconds });
    for (const bad of [59, 599, 1.5, '600', null, 366 * 86_400])
      expect([bad, (await rotate(bad)).status]).toEqual([bad, 400]);
    expect(await list(account)).toHaveLength(1);
    const token = await tokenOf(service, account.credentials);
    expect((await rotate(600)).status).toBe(201);
    const [old, next] = await list(account);
    expect(next.expires_at).toBeNull();
    expect(Math.abs(Date.parse(old.expires_at) - Date.parse(next.created_at) - 600_000)).toBeLessThan(1000);
    expect((await use(token)).status).toBe(200);
    await at(service, 11 * MINUTE, async () => {
      expect((await issue(account, account.secret.secret)).status).toBe(401);
    });
  });

  it('CONTRACT §7: the receipt; revoking again answers with the first’s', async () => {
    const account = await admin.createAccount('Receipt');
    const token = await tokenOf(service, account.credentials);
    const first = await admin.post(path(account, account.secret.id, 'revoke'), { reason: 'leaked' });
    expect(first.status).toBe(200);
    expect(first.json).toEqual({
      revocation_id: expect.stringMatching(/^\d+$/),
      revoked_at: expect.any(String),
      credential_id: account.secret.id,
      tokens_expire_by: expect.any(String),
      instances: { live: 1, confirmed: 1 },
      waited_ms: expect.any(Number),
      bound_ms: 10_000,
    });
    expect(Date.parse(first.json.tokens_expire_by)).toBeGreaterThan(Date.now() + 3_600_000);
    const dead = await use(token);
    expect([dead.status, dead.headers['www-authenticate']]).toEqual([401, expect.stringContaining('was revoked')]);

    const again = await admin.post(path(account, account.secret.id, 'revoke'), { reason: 'another reason' });
    const { waited_ms: _1, ...receipt } = first.json;
    const { waited_ms: _2, ...repeated } = again.json;
    expect([again.status, repeated]).toEqual([200, receipt]);
    const events = (
      await admin.get(`/audit-events?action=service_account.secret.revoked&target_id=${account.secret.id}`)
    ).json.data;
    expect(events).toHaveLength(1);
    expect(events[0]).toMatchObject({ reason: 'leaked', targets: [{ id: account.id }, { id: account.secret.id }] });
    const [published] = (await admin.get('/revocations?limit=1')).json.data;
    expect(published).toMatchObject({
      id: receipt.revocation_id,
      kind: 'secret',
      subject_id: account.secret.id,
      reason: 'leaked',
      revoked_by: { type: 'user', id: admin.userId, name: 'admin' },
      matters_until: receipt.tokens_expire_by,
    });
  });

  it('SC-10 the last one may be revoked, and a new one made', async () => {
    const account = await admin.createAccount('Last');
    expect((await admin.post(path(account, account.secret.id, 'revoke'))).status).toBe(200);
    expect((await issue(account, account.secret.secret)).status).toBe(401);
    const [revoked] = await list(account);
    expect(typeof revoked.revoked_at).toBe('string');
    const next = await admin.createSecret(account.id);
    expect((await issue(account, next.secret)).status).toBe(200);
    expect((await issue(account, account.secret.secret)).status).toBe(401);
  });

  it('Y5 twenty who revoke at once get one revocation, and no token of it lives', async () => {
    const account = await admin.createAccount('Crowd');
    const tokens = await Promise.all(Array.from({ length: 10 }, () => tokenOf(service, account.credentials)));
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => admin.post(path(account, account.secret.id, 'revoke'))),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(new Set(answers.map(({ json }) => json.revocation_id)).size).toBe(1);
    for (const token of tokens) expect((await use(token)).status).toBe(401);
  });
});
