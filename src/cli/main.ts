import { type ParseArgsOptionsConfig, parseArgs } from 'node:util';
import { AuditLog } from '../audit/audit-log.js';
import { Changes } from '../changes/changes.js';
import { loadConfig } from '../config/config.js';
import { MIGRATIONS } from '../database/database.module.js';
import { connect, migrate, revertLast } from '../database/migrate.js';
import { PLATFORM_ORGANIZATION } from '../kernel/actor.js';
import { Problem, Unavailable } from '../kernel/problem.js';
import { StartupError } from '../kernel/startup-error.js';
import { Sessions } from '../organizations/sessions.service.js';
import { FloorFile } from '../revocation/floor.js';
import { SYSTEM } from '../tokens/keys.service.js';
import { type Context, type Input, withDatabase, withModules } from './context.js';
import { listKeys, revokeKey, rotateKeys, rotateMasterKey } from './keys.js';

interface Command {
  summary: string;
  /** Names of what stands behind its words, each of them required. */
  operands?: string[];
  options?: ParseArgsOptionsConfig;
  /** Loses what a live service relies on: refused unless NODE_ENV says that this is none. */
  development?: boolean;
  /** Resolves with what is printed last. */
  run(context: Context, input: Input): Promise<string>;
}

/** Every command of the operator: its words, what it does. They run beside the service or without it. */
const COMMANDS: Record<string, Command> = {
  'migration run': { summary: 'Bring the schema to this version', run: migrationRun },
  'migration revert': {
    summary: 'Take back the newest migration, with what it holds (NODE_ENV=development or test only)',
    development: true,
    run: migrationRevert,
  },
  'migration show': { summary: 'Which migrations have run', run: migrationShow },
  'keys list': {
    summary: 'Every key in use: purpose, state, kid; --all: also those whose material is destroyed',
    options: { all: { type: 'boolean' } },
    run: listKeys,
  },
  'keys rotate signing': {
    summary: 'Publish the next signing key; it signs once verifiers have had time to see it',
    run: rotateKeys('token-sign'),
  },
  'keys rotate sealing': {
    summary: 'Change the key that seals opaque tokens (it changes daily by itself)',
    run: rotateKeys('token-seal'),
  },
  'keys rotate credential-hash': {
    summary: 'Hash new secrets and sessions with a new key; the present ones keep theirs',
    run: rotateKeys('credential-hash'),
  },
  'keys revoke': {
    summary: 'Emergency: end every token made with a key that leaked, at once',
    operands: ['kid'],
    options: { reason: { type: 'string' } },
    run: revokeKey,
  },
  'master-key rotate': {
    summary: 'Wrap every key with the new MASTER_KEY; run it again when it was cut short',
    run: rotateMasterKey,
  },
  'era raise': {
    summary: 'End every token issued so far, personal access tokens too; the step after a restored backup',
    run: eraRaise,
  },
};

const HELP = { help: { type: 'boolean', short: 'h' } } as const satisfies ParseArgsOptionsConfig;

const EX_USAGE = 64; // sysexits

process.exit(await main(process.argv.slice(2)));

async function main(given: string[]): Promise<number> {
  const args = given[0] === 'help' ? [...given.slice(1), '--help'] : given;
  const name = Object.keys(COMMANDS).find((words) => words.split(' ').every((word, i) => args[i] === word));
  if (!name) {
    const words = args.filter((arg) => !arg.startsWith('-'));
    const group = words.join(' ');
    const isGroup = Object.keys(COMMANDS).some((other) => other.startsWith(`${group} `));
    if (group && !isGroup) return misused(`Unknown command: ${JSON.stringify(group)}`, usage());
    if (group && !args.some((arg) => /^(--help|-h)$/.test(arg)))
      return misused(`Incomplete command: ${JSON.stringify(group)}`, usage(group));
    console.log(usage(group));
    return 0;
  }
  const { operands = [], options, development, run } = COMMANDS[name];
  let input: Input;
  try {
    const rest = args.slice(name.split(' ').length);
    // A kid may begin with a dash, and is no option then.
    const first = rest.findIndex((arg) => /^--|^-h$/.test(arg));
    const given = rest.splice(0, Math.min(operands.length, first < 0 ? rest.length : first));
    const { values, positionals } = parseArgs({ args: rest, options: { ...HELP, ...options }, allowPositionals: true });
    positionals.unshift(...given);
    if (values.help) {
      console.log(usage(name));
      return 0;
    }
    if (positionals.length < operands.length) return misused(`${operands[positionals.length]} is missing`, usage(name));
    if (positionals.length > operands.length)
      return misused(`Unknown argument: ${JSON.stringify(positionals[operands.length])}`, usage(name));
    input = { ...(values as Input), ...Object.fromEntries(operands.map((operand, i) => [operand, positionals[i]])) };
  } catch (error) {
    return misused((error as Error).message, usage(name)); // an option that is none
  }
  try {
    if (development) refuseInProduction(name);
    console.log(await withDatabase((context) => run(context, input)));
    return 0;
  } catch (error) {
    if (error instanceof StartupError) return failed(error, error.exitCode);
    if (error instanceof Unavailable) return failed(error, 75); // EX_TEMPFAIL: what was not done can be done by running it again
    if (error instanceof Problem) return failed(error, 1);
    throw error;
  }
}

/** Before anything is touched, the embedded database included. */
function refuseInProduction(name: string): void {
  const { NODE_ENV } = loadConfig();
  if (NODE_ENV === 'production')
    throw new StartupError(
      `"${name}" drops tables and columns with all that is in them, and NODE_ENV is ${NODE_ENV}: set NODE_ENV=development if this database is no live service's. Nothing was changed.`,
      EX_USAGE,
    );
}

function failed({ message }: Error, exitCode: number): number {
  console.error(message);
  return exitCode;
}

function misused(fault: string, help: string): number {
  console.error(`${fault}\n\n${help}`);
  return EX_USAGE;
}

/** Of one command, or the list of those that begin with these words. */
function usage(only = ''): string {
  const written = Object.entries(COMMANDS).map(([name, { operands = [], options = {}, summary }]) => {
    const optional = Object.entries(options).map(
      ([key, { type }]) => `[--${key}${type === 'string' ? ' <text>' : ''}]`,
    );
    return { name, summary, line: [name, ...operands.map((operand) => `<${operand}>`), ...optional].join(' ') };
  });
  const one = written.find(({ name }) => name === only);
  if (one) return `Usage: npm run gatehouse -- ${one.line}\n\n${one.summary}.`;
  const listed = written.filter(({ name }) => !only || name.startsWith(`${only} `));
  const width = Math.max(...listed.map(({ line }) => line.length));
  return [
    'Usage: npm run gatehouse -- <command>',
    '',
    ...listed.map(({ line, summary }) => `  ${line.padEnd(width)}  ${summary}`),
  ].join('\n');
}

async function migrationRun({ owner, application }: Context): Promise<string> {
  const { ran } = await migrate(owner, application);
  return ran.length > 0 ? `Ran ${ran.join(', ')}.` : 'The schema is up to date.';
}

async function migrationRevert({ owner }: Context): Promise<string> {
  await revertLast(owner);
  return 'Took back the newest migration.';
}

async function migrationShow({ owner }: Context): Promise<string> {
  const client = await connect(owner);
  try {
    const { rows } = await client
      .query<{ name: string }>('SELECT name FROM schema_migration')
      .catch(() => ({ rows: [] as { name: string }[] }));
    const landed = new Set(rows.map(({ name }) => name));
    return MIGRATIONS.map(({ name }) => `${landed.has(name) ? '[x]' : '[ ]'} ${name}`).join('\n');
  } finally {
    await client.end();
  }
}

/** Above both what the database says and what this DATA_DIR has seen, so that it is news to every instance. */
function eraRaise(context: Context): Promise<string> {
  return withModules(context, async (app) => {
    const floor = await FloorFile.in(context.config.dataDir).read();
    await app.get(AuditLog).makePartitions(); // a backup has none for a month that came after it
    const { result } = await app.get(Changes).run(SYSTEM, async (change) => {
      const [before] = await change.tx.query('SELECT era FROM era FOR UPDATE');
      const era = Math.max(before.era, floor?.era ?? 0) + 1;
      await change.tx.query('UPDATE era SET era = $1, raised_at = clock_timestamp()', [era]);
      const target = { type: 'era', id: PLATFORM_ORGANIZATION, name: String(era) };
      change.record({ action: 'era.raised', targets: [target], changes: { era: { from: before.era, to: era } } });
      // A restored backup has sessions that were ended since.
      await app.get(Sessions).endAll(change);
      change.forget('era', target, PLATFORM_ORGANIZATION);
      return { era };
    });
    return `The era is ${result.era}: every token issued before is dead, personal access tokens too, and everybody is signed out. After a restored backup, revoke again what was revoked since it was made: those secrets and keys are alive again.`;
  });
}
