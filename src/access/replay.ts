import type { FastifyReply } from 'fastify';
import type { Outcome } from '../changes/changes.js';

/** The result of a change that creates; says in a header when an earlier request with this Idempotency-Key made it. */
export function created<T>(reply: FastifyReply, { result, replayed }: Outcome<T>): T {
  if (replayed) reply.header('idempotent-replayed', 'true');
  return result;
}
