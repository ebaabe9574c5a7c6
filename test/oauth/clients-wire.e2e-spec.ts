import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
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
});
