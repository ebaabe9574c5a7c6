import { createServer, type Server, Socket } from 'node:net';

/** What a connection of the service to its database is for, as its start-up packet says. */
export type ConnectionKind = 'feed' | 'listener' | 'rest';
export type Direction = 'up' | 'down';
/**
 * `hold`: nothing passes, and nobody is told — the silent partition. What was sent meanwhile comes through when the link heals, as
 * TCP's retransmissions would. A number: each packet is late by so many milliseconds.
 */
export type Mode = 'pass' | 'hold' | number;

const KINDS: readonly ConnectionKind[] = ['feed', 'listener', 'rest'];

/** One direction of one connection: bytes in order, an end of stream among them. */
class Pipe {
  private readonly queue: { chunk: Buffer | undefined; at: number }[] = [];
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly to: Socket,
    public mode: () => Mode,
  ) {}

  /** Undefined ends the stream. */
  push(chunk: Buffer | undefined): void {
    this.queue.push({ chunk, at: performance.now() });
    this.pump();
  }

  pump(): void {
    clearTimeout(this.timer);
    while (this.queue.length > 0) {
      const mode = this.mode();
      if (mode === 'hold') return;
      const early = mode === 'pass' ? 0 : this.queue[0].at + mode - performance.now();
      if (early > 0) {
        this.timer = setTimeout(() => this.pump(), early);
        return;
      }
      const { chunk } = this.queue.shift()!;
      if (chunk) this.to.write(chunk);
      else this.to.destroy();
    }
  }
}

interface Connection {
  kind: ConnectionKind;
  client: Socket;
  upstream: Socket;
  pipes: Record<Direction, Pipe>;
}

/** Between one instance and its database: on a loopback port, to PostgreSQL's unix socket. */
export class DatabaseProxy {
  private readonly modes: Record<ConnectionKind, Record<Direction, Mode>> = {
    feed: { up: 'pass', down: 'pass' },
    listener: { up: 'pass', down: 'pass' },
    rest: { up: 'pass', down: 'pass' },
  };
  private refusing = false;
  private readonly sockets = new Set<Socket>();
  private connections: Connection[] = [];
  private waiting: { kind: ConnectionKind; direction: Direction; resolve: () => void }[] = [];
  /** How many connections of each kind there have been. */
  readonly opened: Record<ConnectionKind, number> = { feed: 0, listener: 0, rest: 0 };

  private constructor(
    private readonly server: Server,
    private readonly socketPath: () => string,
  ) {}

  /** `socketPath` is asked for each new connection: a restarted server may have its socket elsewhere. */
  static async start(socketPath: () => string): Promise<DatabaseProxy> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const proxy = new DatabaseProxy(server, socketPath);
    server.on('connection', (socket) => proxy.accept(socket));
    return proxy;
  }

  get port(): number {
    return (this.server.address() as { port: number }).port;
  }

  /** From now on, for connections there are and new ones. Returns when, on the monotonic clock. */
  set(
    mode: Mode | Partial<Record<Direction, Mode>>,
    { kinds = KINDS }: { kinds?: readonly ConnectionKind[] } = {},
  ): number {
    const both = typeof mode === 'object' ? mode : { up: mode, down: mode };
    for (const kind of kinds) Object.assign(this.modes[kind], both);
    const now = performance.now();
    for (const { pipes } of this.connections) for (const pipe of Object.values(pipes)) pipe.pump();
    return now;
  }

  /** Holds the connections of a kind that are open now; those that replace them pass. */
  holdOpen(kind: ConnectionKind): void {
    for (const connection of this.connections.filter((one) => one.kind === kind))
      for (const pipe of Object.values(connection.pipes)) pipe.mode = () => 'hold';
  }

  /** Resets every connection, and each new one until `refuse(false)`. */
  refuse(refusing: boolean): void {
    this.refusing = refusing;
    if (refusing) for (const { client } of this.connections) client.resetAndDestroy();
  }

  /** Resolves at the next packet of this kind that arrives here, whether it passes or not. */
  seen(kind: ConnectionKind, direction: Direction): Promise<void> {
    return new Promise((resolve) => this.waiting.push({ kind, direction, resolve }));
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.server.close(resolve));
    for (const socket of this.sockets) socket.destroy();
    await closed;
  }

  private accept(client: Socket): void {
    this.track(client);
    if (this.refusing) {
      client.resetAndDestroy();
      return;
    }
    client.once('data', (first) => this.connect(client, first as Buffer));
  }

  private connect(client: Socket, first: Buffer): void {
    const kind = kindOf(first);
    this.opened[kind]++;
    const upstream = new Socket();
    this.track(upstream);
    const pipes = {
      up: new Pipe(upstream, () => this.modes[kind].up),
      down: new Pipe(client, () => this.modes[kind].down),
    };
    const connection = { kind, client, upstream, pipes };
    this.connections.push(connection);
    const forward = (direction: Direction) => (chunk: Buffer) => {
      pipes[direction].push(chunk);
      for (const one of this.waiting.filter((waiter) => waiter.kind === kind && waiter.direction === direction)) {
        this.waiting.splice(this.waiting.indexOf(one), 1);
        one.resolve();
      }
    };
    upstream.connect(this.socketPath());
    forward('up')(first);
    client.on('data', forward('up'));
    upstream.on('data', forward('down'));
    // What is held outlives the end that sent it: the connection is forgotten only when both ends are gone.
    const forget = () => {
      if (client.destroyed && upstream.destroyed)
        this.connections = this.connections.filter((one) => one !== connection);
    };
    client.on('close', () => {
      pipes.up.push(undefined);
      forget();
    });
    upstream.on('close', () => {
      pipes.down.push(undefined);
      forget();
    });
  }

  private track(socket: Socket): void {
    socket.setNoDelay(true);
    this.sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => this.sockets.delete(socket));
  }
}

/** The start-up packet: length, protocol version, then names and values, each ended by NUL. */
function kindOf(packet: Buffer): ConnectionKind {
  const parameters = packet.toString('utf8', 8).split('\0');
  const name = parameters[parameters.indexOf('application_name') + 1];
  if (name === 'gatehouse feed') return 'feed';
  return name === 'gatehouse listener' ? 'listener' : 'rest';
}
