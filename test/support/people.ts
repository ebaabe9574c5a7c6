import { Clock } from '../../src/kernel/clock.js';
import { type Session, TestService } from './service.js';

export const PASSWORD = 'an ordinary long password';

/** A service that a busy machine does not make blind: how it fails closed is proven elsewhere. */
export const startPatient = (settings: Record<string, string> = {}) =>
  TestService.start({ REVOCATION_BOUND_MS: '10000', ...settings });

/** A member of the organization that `admin` is turned to, signed in. */
export async function join(
  admin: Session,
  email: string,
  role: 'admin' | 'auditor' | 'platform_admin' = 'admin',
): Promise<Session & { userId: string }> {
  const made = await admin.post('/users', { email, name: email.split('@')[0], password: PASSWORD, role });
  if (made.status !== 201) throw new Error(`user: ${made.status} ${made.text}`);
  return Object.assign(await admin.service.signIn({ email, password: PASSWORD }), { userId: made.json.id as string });
}

/** An access token for credentials. */
export async function tokenOf(service: TestService, credentials: { id: string; secret: string }): Promise<string> {
  const answer = await service.token({ grant_type: 'client_credentials' }, credentials);
  if (answer.status !== 200) throw new Error(`token: ${answer.status} ${answer.text}`);
  return answer.json.access_token;
}

/** Moves the clock that decides — the database's, as the service sees it — for the length of `work`. */
export async function at<T>(service: TestService, ahead: number, work: () => Promise<T>): Promise<T> {
  const clock = service.app.get(Clock);
  clock.now = () => Clock.prototype.now.call(clock) + ahead;
  try {
    return await work();
  } finally {
    Reflect.deleteProperty(clock, 'now');
  }
}

export const MINUTE = 60_000;
