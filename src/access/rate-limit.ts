import type { FastifyReply } from 'fastify';
import { problem } from '../kernel/problem.js';
import type { Charged, RateLimits } from '../rate-limits/rate-limits.js';

/**
 * Charges an authenticated request to its organization, and says in the headers (E9) how it stands, whatever comes of the request.
 * Throws rate_limited (429), which OAuth paths say in their own form, unless it `mayPass` all the same: then it says whether it was
 * within the limit.
 */
export async function charge(
  limits: RateLimits,
  organization: Charged,
  reply: FastifyReply,
  mayPass = false,
): Promise<boolean> {
  const outcome = limits.charge(organization);
  const { admitted, limit, remaining, reset } = outcome instanceof Promise ? await outcome : outcome;
  reply.headers({
    'x-ratelimit-limit': String(limit),
    'x-ratelimit-remaining': String(remaining),
    'x-ratelimit-reset': String(reset),
  });
  if (!admitted && !mayPass) throw problem('rate_limited', { headers: { 'Retry-After': String(reset) } });
  return admitted;
}
