import http from 'node:http';

export interface HttpAnswer {
  status: number;
  headers: http.IncomingHttpHeaders;
  // biome-ignore lint/suspicious/noExplicitAny: whatever the server says; the test asserts on it
  json: any;
}

/** Loopback requests with kept connections. An answer that does not come is undefined: nobody knows what became of the request. */
export class HttpClient {
  private readonly agent = new http.Agent({ keepAlive: true });

  constructor(
    readonly name: string,
    private readonly port: number,
  ) {}

  request(
    method: string,
    path: string,
    headers: Record<string, string> = {},
    body?: string | object,
  ): Promise<HttpAnswer | undefined> {
    const payload = typeof body === 'object' ? JSON.stringify(body) : body;
    return new Promise((resolve) => {
      const request = http.request(
        {
          host: '127.0.0.1',
          port: this.port,
          agent: this.agent,
          method,
          path,
          headers: {
            ...headers,
            ...(typeof body === 'object' && { 'content-type': 'application/json' }),
            ...(payload !== undefined && { 'content-length': Buffer.byteLength(payload) }),
          },
        },
        (answer) => {
          let text = '';
          answer.setEncoding('utf8');
          answer.on('data', (chunk: string) => {
            text += chunk;
          });
          answer.on('error', () => resolve(undefined));
          answer.on('end', () => resolve({ status: answer.statusCode!, headers: answer.headers, json: parse(text) }));
        },
      );
      request.on('error', () => resolve(undefined));
      request.setTimeout(20_000, () => request.destroy());
      request.end(payload);
    });
  }

  close(): void {
    this.agent.destroy();
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
