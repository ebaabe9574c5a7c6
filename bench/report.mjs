/** `candidates`: `{ label, ours, results }`, the results of one measurement a round, in the order of the rounds. */
export function report(title, candidates) {
  print('', title);
  table(
    ['', 'requests/s [min–max]', 'p50 ms', 'p99 ms', 'CPU µs', 'database µs', 'load'],
    candidates.map(({ label, results }) => {
      const middle = (field) => median(results.map((result) => result[field]));
      const micros = (field) => (results[0][field] ? middle(field).toFixed(0) : '');
      return [
        label,
        spread(results, ({ rate }) => rate, 0),
        middle('p50').toFixed(2),
        middle('p99').toFixed(2),
        micros('cpu'),
        micros('databaseCpu'),
        `${(100 * middle('busy')).toFixed(0)} %`,
      ];
    }),
  );
  const [ours, others] = [true, false].map((side) => candidates.filter((candidate) => candidate.ours === side));
  table(
    ['', 'ratio [min–max]', 'by CPU of the process'],
    ours.flatMap((our) =>
      others.map((other) => [
        `${our.label} : ${other.label}`,
        spread(our.results, ({ rate }, round) => rate / other.results[round].rate, 2),
        our.results[0].cpu ? spread(our.results, ({ cpu }, round) => other.results[round].cpu / cpu, 2) : '',
      ]),
    ),
  );
}

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

function spread(results, value, digits) {
  const numbers = results.map(value);
  return `${median(numbers).toFixed(digits)} [${Math.min(...numbers).toFixed(digits)}–${Math.max(...numbers).toFixed(digits)}]`;
}

export const print = (...lines) => process.stdout.write(`${lines.join('\n')}\n`);

/** The first column to the left, the others to the right. */
function table(head, rows) {
  const widths = head.map((_, i) => Math.max(i === 0 ? 44 : 8, ...[head, ...rows].map((row) => row[i].length)));
  for (const row of [head, ...rows]) {
    print(`  ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('  ')}`);
  }
}

export const NOTE = `
What this says: how Gatehouse compares with the others on this machine, now. The ratio of a round compares neighbours in time, so it holds
better than any rate here. Gatehouse commits each issuance with its audit event to PostgreSQL, synchronously, before it answers;
node-oidc-provider keeps the last thousand opaque tokens in memory and nothing of its JWTs; bare Fastify parses the form and says it back.
What it does not say: rates on other hardware, or over a network; the load generator and PostgreSQL share these cores with the servers
("load": how much of a core generating took), so on two of them the rate of what commits is lower than its CPU alone would have it: beside the
ratio of rates stands that of CPU times. "Without NestJS" is the same endpoint on a route of a bare Fastify: what the mechanisms cost. One process, one client with one secret, a few tokens of each format that were presented before:
the first presentation of a JWT costs the check of its signature besides. CPU is of the server's process, per request; "database" that of PostgreSQL.`;
