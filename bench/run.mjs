import { execFileSync, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statfsSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { NOTE, print, report } from './report.mjs';

/**
 * `npm run bench -- [--seconds 2] [--rounds 5] [--only opaque,jwt,companies,guard] [--connections 1,32] [--pin]`
 *
 * Compares Gatehouse with its peers in one run on this machine. Candidates take turns (A B C, A B C, …), so that whatever else the
 * machine does falls on all of them; each is warmed up, and the first round is thrown away. What counts is the ratio within a round.
 * `--pin` gives the server that is measured one core alone, and the load and PostgreSQL the other.
 */
/** Tokens that a guarded GET is made with in turn. */
const TOKENS = 32;
/** Answers, or seconds if they come first, after which a server counts as warm: its compiler has settled. */
const WARM_UP = { answers: 15_000, seconds: 15 };
const START_MS = 120_000;
const STOP_MS = 20_000;

/** What `npm start` runs the service with; here every peer has it. */
const { scripts } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
const NODE_OPTIONS = scripts.start.split(' ').filter((word) => word.startsWith('--'));

const GATEHOUSE = 'gatehouse';
const UNGUARDED = 'gatehouse without its guard';
const BARE = 'gatehouse without NestJS';
const OIDC_PROVIDER = 'node-oidc-provider';
const FASTIFY = 'bare Fastify';

/** Each bench: the peers that it needs, and what they are asked. Ratios are of Gatehouse to each of the others. */
const BENCHES = {
  opaque: {
    title: 'Issuing opaque tokens',
    peers: [GATEHOUSE, BARE, OIDC_PROVIDER, FASTIFY],
    candidates: (peers) => issuing(peers, 'opaque'),
  },
  jwt: {
    title: 'Issuing JWTs (ES256)',
    peers: [GATEHOUSE, BARE, OIDC_PROVIDER, FASTIFY],
    candidates: (peers) => issuing(peers, 'jwt'),
  },
  companies: {
    title: 'GET /companies (one row from the database)',
    peers: [GATEHOUSE, UNGUARDED],
    candidates: (peers) => getting(peers, '/companies'),
  },
  guard: {
    title: 'GET of a route that does nothing (no database)',
    peers: [GATEHOUSE, UNGUARDED, FASTIFY],
    candidates: (peers) => getting(peers, '/bench/nothing'),
  },
};

const issuing = (peers, format) => peers.map((peer) => ({ peer, requests: [tokenRequest(peer.clients[format])] }));

const getting = (peers, route) =>
  peers.flatMap((peer) =>
    // Without a guard nobody looks at the token.
    (peer.name === GATEHOUSE ? ['opaque', 'jwt'] : ['opaque']).map((format) => ({
      peer,
      format: peer.name === GATEHOUSE ? format : undefined,
      requests: peer.tokens[format].map((token) => ({
        method: 'GET',
        route,
        headers: { authorization: `Bearer ${token}` },
      })),
    })),
  );

const tokenRequest = ({ id, secret, resource }) => ({
  method: 'POST',
  route: '/oauth/token',
  headers: {
    authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`,
    'content-type': 'application/x-www-form-urlencoded',
  },
  body: String(
    new URLSearchParams({
      grant_type: 'client_credentials',
      scope: 'companies:read',
      ...(resource && { resource }),
    }),
  ),
});

/** A request as it stands on the wire; it is ASCII throughout. */
function onTheWire({ method, route, headers, body = '' }) {
  const fields = { host: '127.0.0.1', ...headers, ...(body && { 'content-length': body.length }) };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${route} HTTP/1.1\r\n${lines.join('')}\r\n${body}`;
}

async function ask({ name, port }, { method, route, headers, body }, expected = 200) {
  const answer = await fetch(`http://127.0.0.1:${port}${route}`, { method, headers, body });
  const text = await answer.text();
  if (answer.status !== expected) throw new Error(`${name}: ${method} ${route} → ${answer.status} ${text}`);
  return JSON.parse(text);
}

/** Everything that was started; each is ended in `stopAll`, by its pid, whatever happens. */
const started = [];

function launch(file, args = [], options = {}) {
  const child = fork(path.join(import.meta.dirname, file), args, {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    ...options,
  });
  const launched = { child, stderr: '', ended: new Promise((resolve) => child.once('exit', resolve)) };
  child.stderr.on('data', (chunk) => {
    launched.stderr += chunk;
  });
  started.push(launched);
  return launched;
}

/** What the process says next. Fails when it ends instead, or is silent for so long. */
async function word(launched, milliseconds) {
  const { child } = launched;
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no word from process ${child.pid}`)), milliseconds);
  });
  const end = launched.ended.then(() => {
    throw new Error(`${child.spawnargs.slice(1).join(' ')} ended: ${launched.stderr}`);
  });
  try {
    return await Promise.race([new Promise((resolve) => child.once('message', resolve)), silence, end]);
  } finally {
    clearTimeout(timer);
  }
}

async function startPeer(name, folder) {
  const dataDir = path.join(folder, name.replaceAll(' ', '-'));
  mkdirSync(dataDir);
  const env = {
    PATH: process.env.PATH,
    HOME: process.env.HOME,
    NODE_ENV: 'production',
    LOG_LEVEL: 'warn',
    PORT: '0',
    ISSUER_URL: 'http://localhost',
    DATA_DIR: dataDir,
    RATE_LIMIT: '1000000/1',
    BOOTSTRAP_ADMIN_PASSWORD: randomBytes(16).toString('hex'),
  };
  const launched = launch('peers.mjs', [name], { env, cwd: dataDir, execArgv: NODE_OPTIONS });
  launched.dataDir = dataDir;
  const { port, clients } = await word(launched, START_MS);
  const peer = { name, port, clients, pid: launched.child.pid, dataDir, tokens: { opaque: ['none'] } };
  if (name === GATEHOUSE || name === UNGUARDED) await furnish(peer);
  return peer;
}

/** Each client gets its tokens and one company, which a list by any other does not show. */
async function furnish(peer) {
  for (const [format, client] of Object.entries(peer.clients)) {
    const tokens = [];
    const request = { ...tokenRequest(client), body: 'grant_type=client_credentials' };
    while (tokens.length < TOKENS) tokens.push((await ask(peer, request)).access_token);
    peer.tokens[format] = tokens;
    const headers = { authorization: `Bearer ${tokens[0]}`, 'content-type': 'application/json' };
    await ask(peer, { method: 'POST', route: '/companies', headers, body: '{"name":"Hotel Bench"}' }, 201);
  }
}

async function stopAll() {
  await Promise.all(
    started.map(async ({ child, ended, dataDir }) => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      await ended;
      clearTimeout(timer);
      // Only after a kill: the service takes its database along.
      const postmaster = dataDir && postmasterOf(dataDir);
      if (postmaster) process.kill(postmaster, 'SIGQUIT');
    }),
  );
}

/** The PostgreSQL that the service started under its DATA_DIR, if it runs. */
function postmasterOf(dataDir) {
  const read = (...names) => {
    try {
      return names.length ? readFileSync(path.join(dataDir, ...names), 'utf8') : readdirSync(path.join(dataDir, 'pg'));
    } catch {
      return undefined;
    }
  };
  for (const version of read() ?? []) {
    const pid = Number.parseInt(read('pg', version, 'postmaster.pid') ?? '', 10);
    if (pid > 0) return pid;
  }
  return undefined;
}

const SERVER_CORE = '0';
const OTHER_CORE = '1';

/** Keeps a process, all its threads and its children to come on one core. */
const pin = (pid, core) =>
  execFileSync('taskset', ['-acp', core, String(pid)], { stdio: ['ignore', 'ignore', 'inherit'] });

/** Why processes cannot be pinned on this machine; undefined when they can. */
function pinFault() {
  if (os.availableParallelism() < 2) return 'it has one core';
  try {
    execFileSync('taskset', ['-V'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'taskset (util-linux) is not installed';
  }
}

/** The server on a core of its own; its PostgreSQL, which it starts as a child, on the other. */
function pinPeer({ pid, dataDir }) {
  const postmaster = postmasterOf(dataDir);
  pin(pid, SERVER_CORE);
  if (postmaster === undefined) return;
  const backends = readFileSync(`/proc/${postmaster}/task/${postmaster}/children`, 'utf8').split(' ').filter(Boolean);
  for (const each of [postmaster, ...backends]) pin(each, OTHER_CORE);
}

/** CPU time so far, in seconds, of a peer's process and of its database's; Linux alone tells. */
function cpuTime({ pid, dataDir }) {
  if (process.platform !== 'linux') return undefined;
  const processes = new Map();
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      // The name in parentheses may hold anything; after it stand the state, the parent, and ticks of 10 ms: user and system
      // time of its own, then of its children that ended.
      const fields = readFileSync(`/proc/${name}/stat`, 'utf8').split(') ').at(-1).split(' ').map(Number);
      const [own, ended] = [fields[11] + fields[12], fields[13] + fields[14]];
      processes.set(Number(name), { parent: fields[1], own: own / 100, ended: ended / 100 });
    } catch {} // it ended meanwhile
  }
  const postmaster = postmasterOf(dataDir);
  const backends = [...processes.values()].filter(({ parent }) => parent === postmaster);
  const { own = 0, ended = 0 } = processes.get(postmaster) ?? {};
  return {
    server: processes.get(pid).own,
    database: backends.reduce((sum, backend) => sum + backend.own, own + ended),
  };
}

async function measure(load, { peer, requests }, connections, duration) {
  const before = cpuTime(peer);
  load.child.send({ port: peer.port, requests: requests.map(onTheWire), connections, seconds: duration });
  const { result, failure } = await word(load, duration * 1000 + STOP_MS);
  if (failure) throw new Error(`${peer.name}: ${failure}`);
  if (result.errors > 0) throw new Error(`${peer.name}: ${result.errors} of ${result.completed} answers were not 200`);
  const after = cpuTime(peer);
  const each = (part) => after && ((after[part] - before[part]) * 1e6) / result.completed;
  return { ...result, cpu: each('server'), databaseCpu: each('database') };
}

async function run({ title, candidates }, peers, load) {
  const contenders = candidates(peers);
  for (const { peer, requests } of contenders) for (const request of requests) await ask(peer, request);
  for (const candidate of contenders) {
    for (let answers = 0, second = 0; answers < WARM_UP.answers && second < WARM_UP.seconds; second++)
      answers += (await measure(load, candidate, Math.max(...connectionCounts), 1)).completed;
  }
  for (const connections of connectionCounts) {
    const turns = contenders.map(() => []);
    for (let round = 0; round <= rounds; round++) {
      for (const [i, candidate] of contenders.entries()) {
        const result = await measure(load, candidate, connections, seconds);
        if (round > 0) turns[i].push(result);
      }
    }
    report(
      `${title}, ${connections} connection${connections > 1 ? 's' : ''}`,
      contenders.map(({ peer, format }, i) => ({
        label: format ? `${peer.name}, ${format}` : peer.name,
        ours: [GATEHOUSE, BARE].includes(peer.name),
        results: turns[i],
      })),
    );
  }
}

function within(name, value, low, high) {
  if (value >= low && value <= high) return value;
  process.stderr.write(`--${name} must be ${low} to ${high}\n`);
  process.exit(2);
}

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '5' },
    only: { type: 'string', default: Object.keys(BENCHES).join(',') },
    connections: { type: 'string', default: '1,32' },
    pin: { type: 'boolean', default: false },
  },
});
const seconds = within('seconds', Number(options.seconds), 0.1, 60);
const rounds = within('rounds', Math.trunc(Number(options.rounds)), 1, 50);
const connectionCounts = options.connections.split(',').map((count) => within('connections', Number(count), 1, 256));
const chosen = options.only.split(',').map((name) => {
  if (Object.hasOwn(BENCHES, name)) return BENCHES[name];
  process.stderr.write(`--only takes ${Object.keys(BENCHES).join(', ')}, separated by commas\n`);
  return process.exit(2);
});

const TMPFS = 0x01021994;
const folder = mkdtempSync(path.join(os.tmpdir(), 'gatehouse-bench-'));
chmodSync(folder, 0o755); // started by root, PostgreSQL runs as another user
const interrupted = new Promise((_, reject) => {
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => reject(new Error(signal)));
});

async function main() {
  print(
    `Node ${process.version}, ${os.availableParallelism()} cores (${os.cpus()[0]?.model.trim()}), ${os.platform()} ${os.release()}`,
    `${rounds} rounds of ${seconds} s for each candidate after one that is thrown away; median [min–max]`,
  );
  if (statfsSync(folder).type === TMPFS)
    print(`${folder} is in memory: commits cost no disk here. TMPDIR names another place.`);
  const fault = options.pin && pinFault();
  if (options.pin)
    print(
      fault
        ? `Not pinned: ${fault}.`
        : 'Pinned: the server measured has a core alone; PostgreSQL and the load share the other.',
    );
  const load = launch('load.mjs');
  if (options.pin && !fault) pin(load.child.pid, OTHER_CORE);
  const peers = new Map();
  for (const name of new Set(chosen.flatMap((bench) => bench.peers))) {
    const peer = await startPeer(name, folder);
    if (options.pin && !fault) pinPeer(peer);
    peers.set(name, peer);
  }
  for (const bench of chosen) {
    const taking = bench.peers.map((name) => peers.get(name));
    await run(bench, taking, load);
  }
  print(NOTE);
}

try {
  await Promise.race([main(), interrupted]);
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
} finally {
  await stopAll();
  rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}
process.exit();
