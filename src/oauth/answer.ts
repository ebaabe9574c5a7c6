import type { FastifyReply } from 'fastify';

/** What every answer with or about a token is like (RFC 6749 §5.1): JSON that nobody keeps. */
export function answer(reply: FastifyReply, body: object): void {
  void reply
    .code(200)
    .header('cache-control', 'no-store')
    .header('pragma', 'no-cache')
    .type('application/json')
    .send(body);
}
