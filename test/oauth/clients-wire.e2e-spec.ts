import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { postForm } from '../support/oauth.js';
import { TestService } from '../support/service.js';

/** Bytes that clients which no one here wrote sent, replayed where they found a fault. */
describe('clients on the wire', () => {
  let service: TestService;

  beforeAll(async () => {
    service = await TestService.start();
  });

  afterAll(() => service.stop());

  it('python-keycloak 7.1 at a path that is none: 404, and not the advice to send another media type', async () => {
    const form = 'client_id=sa_none&client_secret=none&token=none';
    const answer = await service.request('POST', '/realms/gatehouse/protocol/openid-connect/no/such/path', {
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: form,
    });
    expect([answer.status, answer.json.code]).toEqual([404, 'not_found']);
    const known = await service.request('POST', '/api/v1/session', {
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: form,
    });
    expect([known.status, known.json.code]).toEqual([415, 'unsupported_media_type']);
  });

  it('python-keycloak 7.1 introspects and revokes beneath its realm, credentials in the body (D9)', async () => {
    const admin = await service.signIn();
    await admin.createOrganization('Keycloak');
    const { credentials } = await admin.createAccount('Python', ['companies:read']);
    const base = '/realms/gatehouse/protocol/openid-connect';
    const { id: client_id, secret: client_secret } = credentials;
    const grant = { grant_type: 'client_credentials', scope: 'openid', username: '', password: '' };
    const granted = await postForm(service, `${base}/token`, { client_id, client_secret, ...grant });
    const token = granted.json.access_token;
    const ask = { client_id, token, client_secret };
    expect((await postForm(service, `${base}/token/introspect`, ask)).json.active).toBe(true);
    const revoked = await postForm(service, `${base}/revoke`, ask);
    expect([revoked.status, revoked.json]).toEqual([200, {}]);
    expect((await postForm(service, `${base}/token/introspect`, ask)).json).toEqual({ active: false });
  });
});
