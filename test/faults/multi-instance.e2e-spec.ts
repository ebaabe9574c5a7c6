import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type Credential, createCompany, issue, type Token, use } from './admin.js';
import { obtain, tryAll } from './load.js';
import { Rig, unique } from './rig.js';

const TOKENS = 2000;

describe.each([2, 3])('%i instances', (count) => {
  let rig: Rig;
  let organizationId: string;

  beforeAll(async () => {
    rig = await Rig.start({ instances: count });
    organizationId = await rig.admin.createOrganization('Acme');
  }, 60_000);
  afterAll(() => rig?.stop());

  const feedHead = async () => (await rig.query<{ head: string }>('SELECT max(id) AS head FROM revocation'))[0].head;
  const everywhere = <T>(ask: (instance: Rig['instances'][number]) => Promise<T>) =>
    Promise.all(rig.instances.map(ask));
  const all = (tokens: readonly Token[], status: number) => ({ [status]: tokens.length * count });

  it('IR-16 one call ends thousands of tokens of a secret, opaque and JWT, on every instance, by one row; those of its sibling live', async () => {
    const opaque = await rig.admin.createAccount('Opaque');
    const jwt = await rig.admin.createAccount('JWT', 'jwt');
    for (const account of [opaque, jwt]) {
      const sibling = await rig.admin.createSecret(account);
      const tokens = await obtain(rig, account, TOKENS);
      const others = await obtain(rig, sibling, 100);
      expect(tokens).toHaveLength(TOKENS);
      // Some were seen before, and are in the caches of opened tokens, others never.
      expect(await tryAll(rig, tokens.slice(0, 100))).toEqual(all(tokens.slice(0, 100), 200));

      const head = await feedHead();
      const receipt = await rig.admin.revoke(account);
      expect(await tryAll(rig, tokens)).toEqual(all(tokens, 401));
      expect(await tryAll(rig, others)).toEqual(all(others, 200));

      const rows = await rig.query('SELECT id, kind, subject_id, epoch FROM revocation WHERE id > $1', [head]);
      expect(rows).toEqual([{ id: receipt.revocation_id, kind: 'secret', subject_id: account.secretId, epoch: 1 }]);
      expect(receipt).toMatchObject({ credential_id: account.secretId, bound_ms: 500 });
      expect(receipt.instances.live).toBe(count);
    }
  }, 60_000);

  it('IR-16 disabling an account or an organization ends its tokens everywhere; enabling revives none', async () => {
    const account = await rig.admin.createAccount('Disabled');
    const bystander = await rig.admin.createAccount('Bystander');
    const tokens = await obtain(rig, account, 100);
    const others = await obtain(rig, bystander, 20);
    await rig.admin.setAccount(account, 'disable');
    expect(await tryAll(rig, tokens)).toEqual(all(tokens, 401));
    expect(await everywhere(async (on) => (await issue(rig.history, on, account)).answer?.status)).toEqual(
      Array(count).fill(401),
    );
    await rig.admin.setAccount(account, 'enable');
    expect(await tryAll(rig, tokens)).toEqual(all(tokens, 401));
    expect(await tryAll(rig, others)).toEqual(all(others, 200));
    const anew = await obtain(rig, account, 20);
    expect(await tryAll(rig, anew)).toEqual(all(anew, 200));

    await rig.admin.setOrganization(organizationId, 'disable');
    expect(await tryAll(rig, [...anew, ...others])).toEqual(all([...anew, ...others], 401));
    await rig.admin.setOrganization(organizationId, 'enable');
    expect(await tryAll(rig, [...anew, ...others])).toEqual(all([...anew, ...others], 401));
    const last = await obtain(rig, bystander, 20);
    expect(await tryAll(rig, last)).toEqual(all(last, 200));
  });

  it('CA-13 two secrets during rotation: both are good everywhere, and the old one nowhere once it is revoked', async () => {
    const old = await rig.admin.createAccount('Rotated');
    const path = `/service-accounts/${old.accountId}/secrets/${old.secretId}/rotate`;
    const made = await rig.admin.perform(
      'secret.create',
      { organizationId, accountId: old.accountId },
      'POST',
      path,
      {},
    );
    const successor: Credential = { ...old, secretId: made.answer!.json.id, secret: made.answer!.json.secret };
    const statuses = (secret: Credential) =>
      everywhere(async (on) => (await issue(rig.history, on, secret)).answer?.status);
    expect(await statuses(old)).toEqual(Array(count).fill(200));
    expect(await statuses(successor)).toEqual(Array(count).fill(200));
    await rig.admin.revoke(old);
    expect(await statuses(old)).toEqual(Array(count).fill(401));
    expect(await statuses(successor)).toEqual(Array(count).fill(200));
  });

  it('a new secret is good on every instance when the call that made it returns', async () => {
    const account = await rig.admin.createAccount('Fresh');
    for (let i = 0; i < 10; i++) {
      // Known on every instance: it is from their memory that the news must drive it out.
      const made = await rig.admin.createSecret(account, rig.instances[i % count]);
      expect(await everywhere(async (on) => (await issue(rig.history, on, made)).answer?.status)).toEqual(
        Array(count).fill(200),
      );
    }
  });

  it('a rename, narrower scopes, a lower ceiling hold on every instance when the PATCH returns', async () => {
    const account = await rig.admin.createAccount('First name');
    const [token] = await obtain(rig, account, 1);
    const patch = `/service-accounts/${account.accountId}`;
    const create = () => everywhere(async (on) => (await createCompany(rig.history, on, token, unique('Company')))!);
    await create();

    await rig.admin.change('PATCH', patch, { name: 'Second name' });
    const ids = (await create()).map((answer) => answer.headers['x-request-id']);
    const names = await rig.query('SELECT actor_name FROM audit_event WHERE request_id = ANY($1)', [ids]);
    expect(names).toEqual(Array(count).fill({ actor_name: 'Second name' }));

    await rig.admin.change('PATCH', patch, { scopes: ['companies:read'] });
    expect((await create()).map(({ status }) => status)).toEqual(Array(count).fill(403));
    expect(
      await everywhere(async (on) => {
        const { answer } = await issue(rig.history, on, account, 'companies:write');
        return [answer?.status, answer?.json.error];
      }),
    ).toEqual(Array(count).fill([400, 'invalid_scope']));
    expect(await everywhere(async (on) => (await use(rig.history, on, token))?.status)).toEqual(Array(count).fill(200));

    await rig.admin.change('PATCH', `/organizations/${organizationId}`, { scope_ceiling: ['companies:write'] });
    expect(await everywhere(async (on) => (await use(rig.history, on, token))?.status)).toEqual(Array(count).fill(403));
    await rig.admin.change('PATCH', `/organizations/${organizationId}`, { scope_ceiling: null });
    expect(await everywhere(async (on) => (await use(rig.history, on, token))?.status)).toEqual(Array(count).fill(200));
  });

  it('I1 I2 I3 I4 I7 I13 hold in all of it', async () => {
    expect(rig.history.operations.length).toBeGreaterThan(2 * TOKENS * count);
    expect(await rig.violations()).toEqual([]);
  });
});
