import { connect } from 'node:net';

/**
 * The load generator, a process of its own that takes one job after another: every connection has one request under way, and sends
 * the next when its answer is whole. Raw keep-alive sockets and prebuilt requests, because an HTTP client library would cost more
 * than the servers that are measured.
 *
 * A job: `{ port, requests, connections, seconds }`. Its result: `{ rate, completed, errors, p50, p99, busy }`, in requests a second
 * within the time, requests in all, answers other than 200, milliseconds, and the share of one core that generating took.
 */
process.on('message', (job) => {
  measure(job).then(
    (result) => process.send({ result }),
    (error) => process.send({ failure: error.message }),
  );
});
process.once('disconnect', () => process.exit());

/** Past the end of the time, an answer that is still under way. */
const PATIENCE_MS = 10_000;
const HEAD_END = '\r\n\r\n';

async function measure({ port, requests, connections, seconds }) {
  const sockets = await Promise.all(Array.from({ length: connections }, () => open(port)));
  const latencies = [];
  const tally = { completed: 0, inTime: 0, errors: 0 };
  const cpu = process.cpuUsage();
  const start = performance.now();
  const end = start + seconds * 1000;
  let timer;
  const impatience = new Promise((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`no answer on port ${port} for ${PATIENCE_MS / 1000} s`)),
      seconds * 1000 + PATIENCE_MS,
    );
  });
  const runs = sockets.map((socket, i) => {
    // Each connection begins elsewhere in the requests, so that all are used at once.
    let next = i;
    let sent = 0;
    const send = () => {
      sent = performance.now();
      socket.write(requests[next++ % requests.length]);
    };
    return converse(socket, send, (status) => {
      const now = performance.now();
      tally.completed++;
      if (status !== 200) tally.errors++;
      if (now > end) return false;
      tally.inTime++;
      latencies.push(now - sent);
      send();
      return true;
    });
  });
  try {
    await Promise.race([Promise.all(runs), impatience]);
  } finally {
    clearTimeout(timer);
    for (const socket of sockets) socket.destroy();
  }
  const { user, system } = process.cpuUsage(cpu);
  latencies.sort((a, b) => a - b);
  const quantile = (q) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * q))] ?? Number.NaN;
  return {
    rate: tally.inTime / seconds,
    completed: tally.completed,
    errors: tally.errors,
    p50: quantile(0.5),
    p99: quantile(0.99),
    busy: (user + system) / 1000 / (performance.now() - start),
  };
}

function open(port) {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true }, () => resolve(socket));
    socket.once('error', reject);
  });
}

/** Sends and reads answers until `answered(status)` says that it was the last. An answer needs a Content-Length. */
function converse(socket, send, answered) {
  return new Promise((resolve, reject) => {
    let kept;
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('the server closed a connection')));
    socket.on('data', (chunk) => {
      const octets = kept ? Buffer.concat([kept, chunk]) : chunk;
      const headLength = octets.indexOf(HEAD_END);
      if (headLength !== -1) {
        const head = octets.latin1Slice(0, headLength);
        const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
        if (length === undefined) return reject(new Error(`an answer without Content-Length: ${head}`));
        const whole = headLength + HEAD_END.length + Number(length);
        if (octets.length > whole) return reject(new Error('an answer that is longer than it says'));
        if (octets.length === whole) {
          kept = undefined;
          if (!answered(Number(head.slice(9, 12)))) resolve();
          return;
        }
      }
      kept = octets;
    });
    send();
  });
}
