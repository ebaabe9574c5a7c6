import { connect } from '../database/migrate.js';
import { StartupError } from '../kernel/startup-error.js';
import type { KeyRecord } from '../keyring/keyring.js';
import { Keys, type Rotating } from '../tokens/keys.service.js';
import { MasterKeyRotation } from '../tokens/master-key-rotation.js';
import { type Context, type Input, withModules } from './context.js';

/** Never material; with `all` also those whose material is destroyed. */
export function listKeys(context: Context, { all }: Input): Promise<string> {
  return withModules(context, async (app) => {
    const keys: KeyRecord[] = [];
    for (let after: string | undefined; ; after = keys.at(-1)!.kid) {
      const page = await app.get(Keys).list(200, after);
      keys.push(...page);
      if (page.length < 200) break;
    }
    const shown = keys.filter(({ masterKeyId }) => all || masterKeyId !== null);
    const time = (date: Date | null) => date?.toISOString().replace(/\.\d+/, '') ?? '-';
    const rows = shown.map((key) => [
      key.purpose,
      key.state,
      key.algorithm,
      key.kid,
      time(key.createdAt),
      time(key.activatedAt ?? key.activatesAt),
      time(key.revokedAt ?? key.retiredAt ?? key.retiringAt),
      key.masterKeyId ?? '-',
    ]);
    return table([['PURPOSE', 'STATE', 'ALG', 'KID', 'CREATED', 'ACTIVE FROM', 'UNTIL', 'MASTER KEY'], ...rows]);
  });
}

function table(rows: string[][]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

export const rotateKeys =
  (purpose: Rotating) =>
  (context: Context): Promise<string> =>
    withModules(context, async (app) => {
      const keys = app.get(Keys);
      await keys.open();
      const { state, activatesAt } = await keys.rotate(purpose);
      return state === 'pending'
        ? `The next signing key is published, and signs from ${activatesAt.toISOString()} on. The service takes that step by itself.`
        : 'The next key is in use.';
    });

export function revokeKey(context: Context, { kid, reason }: Input): Promise<string> {
  return withModules(context, async (app) => {
    const keys = app.get(Keys);
    await keys.open();
    const receipt = await keys.revoke(kid as string, undefined, reason as string | undefined);
    const { live, confirmed } = receipt.instances;
    const lines = [
      `Revoked. Every token made with ${kid} is dead on every instance: ${confirmed} of ${live} said so${confirmed < live ? ', the others were waited out' : ''}. In use now: ${receipt.active_kid}.`,
    ];
    if (receipt.jwks_cached_until)
      lines.push(
        `Whoever verifies tokens with a copy of the key set accepts that key until ${receipt.jwks_cached_until.toISOString()}, and does not know the next one: have them fetch ${context.config.ISSUER_URL}/.well-known/jwks.json now.`,
      );
    return lines.join('\n');
  });
}

/** One at a time: two that each made a master key of their own would lose what one of them wrapped. */
export async function rotateMasterKey(context: Context): Promise<string> {
  const lock = await connect(context.application);
  try {
    const { rows } = await lock.query('SELECT pg_try_advisory_lock(7315, 11) AS held');
    if (!rows[0].held) throw new StartupError('Another rotation of the master key is under way: wait until it ends.');
    return await withModules(context, async (app) => {
      const { masterKeys } = context.config;
      const { wrapped, kept } = await app
        .get(MasterKeyRotation)
        .run((done, total) => console.log(`${done} of ${total}`));
      const summary = `${wrapped === 0 ? 'Nothing was left to do: every' : 'Every'} key is wrapped by the master key with the id ${masterKeys.currentId}.`;
      return kept
        ? `${summary} It is in ${masterKeys.file}: back it up. The one before is kept in ${kept}: backups of the database made before need it, in the place of master.key.`
        : `${summary} MASTER_KEY_PREVIOUS is needed no more, but for backups of the database made before.`;
    });
  } finally {
    await lock.end().catch(() => undefined);
  }
}
