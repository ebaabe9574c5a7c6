import { type Answer, bearer, type Session, type TestService } from './service.js';

export interface Made {
  id: string;
  token: string;
  hint: string;
  scopes: string[];
}

const DAY = 86_400_000;
export const inDays = (days: number) => new Date(Date.now() + days * DAY).toISOString();

function made(answer: Answer): Made {
  if (answer.status !== 201) throw new Error(`personal access token: ${answer.status} ${answer.text}`);
  return answer.json;
}

/** One of the person's own, in the organization that they are turned to. */
export const makeOwn = async (session: Session, scopes: string[], label = 'mine'): Promise<Made> =>
  made(await session.post('/personal-access-tokens', { label, scopes, expires_at: inDays(30) }));

/** One of a service principal. */
export const makeFor = async (session: Session, accountId: string, scopes: string[], name = 'prod-key-1') =>
  made(await session.post(`/developer/service-principals/${accountId}/tokens`, { name, scopes }));

/** A call by a token. */
export const call = (
  service: TestService,
  { token }: { token: string },
  path = '/companies',
  method = 'GET',
  body?: Record<string, unknown>,
) => service.request(method, path.startsWith('/api') ? path : `/api/v1${path}`, { headers: bearer(token), body });
