import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { join, PASSWORD, startPatient, tokenOf } from '../support/people.js';
import { type Answer, bearer, type Session, type TestService } from '../support/service.js';

let service: TestService;
let platform: Session;

beforeAll(async () => {
  service = await startPatient();
  platform = await service.signIn();
});
afterAll(() => service.stop());

const code = ({ status, json }: Answer) => [status, json?.code];
const use = (token: string, path = '/companies') => service.request('GET', path, { headers: bearer(token) });
const signInStatus = async (email: string) =>
  (await service.request('POST', '/api/v1/session', { body: { email, password: PASSWORD } })).status;

describe('client accounts', () => {
  it('CONTRACT §8: made, listed, read, renamed by the platform’s admins', async () => {
    const made = await platform.post('/organizations', {
      name: 'Made',
      scope_ceiling: ['companies:read', 'companies:read'],
    });
    expect(made.status).toBe(201);
    expect(made.json).toEqual({
      id: expect.any(String),
      name: 'Made',
      parent_id: null,
      scope_ceiling: ['companies:read'],
      rate_limit: null,
      platform: false,
      disabled: false,
      disabled_at: null,
      created_at: expect.any(String),
    });
    expect((await platform.get(`/organizations/${made.json.id}`)).json).toEqual(made.json);
    expect((await platform.get('/organizations')).json.data).toContainEqual(made.json);
    const child = await platform.post('/organizations', { name: 'Child', parent_id: made.json.id });
    expect(child.json.parent_id).toBe(made.json.id);
    expect(code(await platform.post('/organizations', { name: 'Made' }))).toEqual([409, 'name_taken']);
    expect((await platform.patch(`/organizations/${made.json.id}`, { name: 'Renamed' })).json.name).toBe('Renamed');
    expect(code(await platform.patch(`/organizations/${randomUUID()}`, { name: 'x' }))).toEqual([404, 'not_found']);
  });

  it('CONTRACT §8: platform:* is never inside a ceiling, nor a scope that does not exist', async () => {
    const make = (scope_ceiling: unknown) =>
      platform.post('/organizations', { name: `Bad ${randomUUID()}`, scope_ceiling });
    expect(code(await make(['platform:admin']))).toEqual([422, 'scope_beyond_ceiling']);
    expect(code(await make(['platform:anything']))).toEqual([422, 'scope_beyond_ceiling']);
    expect(code(await make(['no:such']))).toEqual([422, 'scope_unknown']);
    expect(code(await make('companies:read'))).toEqual([400, 'validation_failed']);
    expect(code(await make([1]))).toEqual([400, 'validation_failed']);
  });

  it('CONTRACT §8: the platform’s own organization is never disabled and has no ceiling', async () => {
    const { id } = (await platform.get('/organizations')).json.data.find((o: { platform: boolean }) => o.platform);
    for (const body of [{ disabled: true }, { scope_ceiling: [] }])
      expect(code(await platform.patch(`/organizations/${id}`, body))).toEqual([400, 'invalid_parameter']);
    expect((await platform.get('/session')).status).toBe(200);
  });

  it('E5 an organization’s own admin reaches none of it', async () => {
    const here = await service.signIn();
    const { id } = await here.createOrganization('Ordinary');
    const admin = await join(here, 'admin@ordinary.example');
    for (const [method, path] of [
      ['GET', ''],
      ['POST', ''],
      ['GET', `/${id}`],
      ['PATCH', `/${id}`],
    ])
      expect(
        code(await admin.call(method, `/organizations${path}`, method === 'GET' ? undefined : { name: 'Mine' })),
      ).toEqual([403, 'insufficient_scope']);
    expect(code(await admin.post('/scopes', { name: 'own.scope', description: 'x' }))).toEqual([
      403,
      'insufficient_scope',
    ]);
    expect((await admin.get('/scopes')).status).toBe(200);
  });

  it('D10 a scope of the platform’s own: in the three spellings, at once usable', async () => {
    const here = await service.signIn();
    await here.createOrganization('Speller');
    for (const name of ['pockets.read', 'pockets:read:all', 'pockets-read']) {
      expect((await platform.post('/scopes', { name, description: `Read ${name}` })).status).toBe(201);
      expect(code(await platform.post('/scopes', { name, description: 'again' }))).toEqual([409, 'name_taken']);
    }
    const account = await here.createAccount('Speller', ['pockets.read', 'pockets:read:all', 'pockets-read']);
    const answer = await service.token({ grant_type: 'client_credentials' }, account.credentials);
    expect(answer.json.scope.split(' ').sort()).toEqual(['pockets-read', 'pockets.read', 'pockets:read:all']);
    for (const name of ['openid', 'platform:mine', 'two words', 'quo"te', 'back\\slash', '', 'ä', 'x'.repeat(129)])
      expect([name, (await platform.post('/scopes', { name, description: 'x' })).status]).toEqual([name, 400]);
  });
});

describe('ceilings', () => {
  it('D8 lowering a ceiling bounds tokens that are out, people, and what is granted anew', async () => {
    const here = await service.signIn();
    const { id } = await here.createOrganization('Ceiling');
    const admin = await join(here, 'admin@ceiling.example');
    const account = await admin.createAccount('Worker');
    const token = await tokenOf(service, account.credentials);
    expect((await use(token)).status).toBe(200);

    await platform.patch(`/organizations/${id}`, { scope_ceiling: ['companies:write'] });
    expect((await use(token)).status).toBe(403);
    const write = await service.request('POST', '/companies', { body: { name: 'Still' }, headers: bearer(token) });
    expect(write.status).toBe(201);
    expect((await service.token({ grant_type: 'client_credentials' }, account.credentials)).json.scope).toBe(
      'companies:write',
    );
    const beyond = await service.token(
      { grant_type: 'client_credentials', scope: 'companies:read' },
      account.credentials,
    );
    expect([beyond.status, beyond.json.error]).toEqual([400, 'invalid_scope']);
    expect(code(await admin.get('/companies'))).toEqual([403, 'insufficient_scope']);
    // Whoever looks after the organization goes on doing so.
    expect((await admin.get('/session')).json.scopes).toEqual(['admin:access', 'audit:read', 'companies:write']);
    expect((await admin.get('/service-accounts')).status).toBe(200);

    await platform.patch(`/organizations/${id}`, { scope_ceiling: null });
    expect((await use(token)).status).toBe(200);
  });
});

describe('disabling', () => {
  it('D19 ends its people’s sessions and its accounts’ tokens, not those beneath it; enabling revives none', async () => {
    const here = await service.signIn();
    const parent = await here.createOrganization('Parent');
    const admin = await join(here, 'admin@parent.example');
    const account = await admin.createAccount('Upper');
    const token = await tokenOf(service, account.credentials);
    const jwt = await admin.createAccount('Upper JWT', undefined, { token_format: 'jwt' });
    const jwtToken = await tokenOf(service, jwt.credentials);
    await here.createOrganization('Beneath', { parent_id: parent.id });
    const lower = await join(here, 'admin@beneath.example');
    const lowerAccount = await lower.createAccount('Lower');
    const lowerToken = await tokenOf(service, lowerAccount.credentials);
    await here.patch('/session', { organization_id: parent.id });

    const disabled = await platform.patch(`/organizations/${parent.id}`, { disabled: true });
    expect([disabled.status, disabled.json.disabled]).toEqual([200, true]);
    for (const dead of [token, jwtToken]) {
      const answer = await use(dead);
      expect([answer.status, answer.headers['www-authenticate']]).toEqual([
        401,
        expect.stringContaining('was revoked'),
      ]);
    }
    expect((await service.token({ grant_type: 'client_credentials' }, account.credentials)).json.error).toBe(
      'invalid_client',
    );
    expect((await admin.get('/session')).status).toBe(401);
    expect(await signInStatus('admin@parent.example')).toBe(401);
    expect((await use(lowerToken)).status).toBe(200);
    expect((await lower.get('/session')).status).toBe(200);
    // The platform's admin is none of its people, and looks after it meanwhile.
    expect((await here.get('/service-accounts')).json.data).toHaveLength(2);

    expect((await platform.patch(`/organizations/${parent.id}`, { disabled: false })).json.disabled_at).toBeNull();
    for (const dead of [token, jwtToken]) expect((await use(dead)).status).toBe(401);
    expect((await admin.get('/session')).status).toBe(401);
    expect(await signInStatus('admin@parent.example')).toBe(201);
    expect((await use(await tokenOf(service, account.credentials))).status).toBe(200);
    const root = await service.signIn();
    const events = (await root.get(`/audit-events?target_id=${parent.id}`)).json.data;
    expect(events.map(({ action }: { action: string }) => action)).toEqual([
      'organization.enabled',
      'organization.disabled',
      'organization.created',
    ]);
  });

  it('D19 a person of two organizations is out of the disabled one alone', async () => {
    const here = await service.signIn();
    const first = await here.createOrganization('First');
    const both = await join(here, 'both@first.example');
    const second = await here.createOrganization('Second');
    await here.post('/users', { email: 'both@first.example', name: 'x', role: 'auditor' });
    await both.patch('/session', { organization_id: second.id });
    await platform.patch(`/organizations/${first.id}`, { disabled: true });
    expect((await both.get('/session')).json).toMatchObject({
      organization: { id: second.id },
      organizations: [
        { name: 'First', status: 'disabled' },
        { name: 'Second', status: 'active' },
      ],
    });
    expect(code(await both.patch('/session', { organization_id: first.id }))).toEqual([404, 'not_found']);
  });
});
