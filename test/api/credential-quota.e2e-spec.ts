import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { join, startPatient } from '../support/people.js';
import { makeFor, makeOwn } from '../support/personal-access-tokens.js';
import type { Answer, Session, TestAccount, TestService } from '../support/service.js';

const MOST = 12;

let service: TestService;
let platform: Session;

beforeAll(async () => {
  service = await startPatient({ MAX_CREDENTIALS_PER_ORGANIZATION: String(MOST) });
  platform = await service.signIn();
});
afterAll(() => service.stop());

const codes = (answers: Answer[]) => answers.map(({ status, json }) => json.code ?? status).sort();

it('RL-08 one organization’s secrets are bounded over all its accounts, also when many are made at once', async () => {
  await platform.createOrganization('Collector');
  const accounts: TestAccount[] = [];
  for (let i = 0; i < 4; i++) accounts.push(await platform.createAccount(`Account ${i}`)); // with a secret each
  const all = (count: number) =>
    Promise.all(
      Array.from({ length: count }, (_, i) => platform.post(`/service-accounts/${accounts[i % 4].id}/secrets`)),
    );
  const answers = await all(MOST);
  expect(codes(answers)).toEqual([...Array(MOST - 4).fill(201), ...Array(4).fill('limit_reached')]);
  const refused = answers.find(({ status }) => status !== 201)!;
  expect([refused.status, refused.json.detail]).toEqual([
    422,
    `An organization has at most ${MOST} credentials that are not revoked`,
  ]);
  const path = `/service-accounts/${accounts[0].id}/secrets/${accounts[0].secret.id}`;
  expect(codes([await platform.post(`${path}/rotate`)])).toEqual(['limit_reached']);

  // What is revoked, or went with its account, makes room; and only that much.
  expect((await platform.post(`${path}/revoke`)).status).toBe(200);
  expect(codes(await all(2))).toEqual([201, 'limit_reached']);
  expect((await platform.delete(`/service-accounts/${accounts[3].id}`)).status).toBe(204);
  const room = await Promise.all(
    Array.from({ length: MOST }, () => platform.post(`/service-accounts/${accounts[0].id}/secrets`)),
  );
  const [{ living }] = await service.database.query<{ living: number }>(
    `SELECT count(*)::int AS living FROM credential JOIN service_account AS a ON a.id = service_account_id
      WHERE a.name LIKE 'Account %' AND revoked_at IS NULL AND deleted_at IS NULL`,
  );
  expect(living).toBe(MOST);
  expect(codes(room)).toContain(201);

  // The next organization is none the wiser.
  await platform.createOrganization('Bystander');
  await platform.createAccount('Mine');
});

it('RL-08 personal access tokens count as well, until they are revoked, have expired, or their member left', async () => {
  await platform.createOrganization('Tokens');
  const admin = await join(platform, 'admin@tokens.example');
  const leaver = await join(admin, 'leaver@tokens.example');
  const bot = await admin.createAccount('Bot', ['companies:read']); // with a secret
  for (let i = 0; i < 4; i++) await makeOwn(leaver, ['companies:read']);
  for (let i = 1; i < MOST - 4; i++) await makeFor(admin, bot.id, ['companies:read']);
  const another = () => admin.post(`/service-accounts/${bot.id}/secrets`);
  expect(codes([await another()])).toEqual(['limit_reached']);
  await service.database.query(
    `UPDATE credential SET expires_at = now() WHERE id IN (SELECT id FROM credential WHERE service_account_id = $1 AND kind = 'personal_access_token' LIMIT 2)`,
    [bot.id],
  );
  expect(codes([await another(), await another(), await another()])).toEqual([201, 201, 'limit_reached']);
  expect((await admin.delete(`/users/${leaver.userId}`)).status).toBe(204);
  const room = await Promise.all([1, 2, 3, 4, 5].map(another));
  expect(codes(room)).toEqual([201, 201, 201, 201, 'limit_reached']);
});
