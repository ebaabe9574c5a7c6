import { Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { type Change, Changes } from '../changes/changes.js';
import { Recorder } from '../changes/recorder.js';
import { PLATFORM_ORGANIZATION, type RequestInfo } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { problem } from '../kernel/problem.js';
import { Passwords } from './passwords.js';
import { Session } from './session.entity.js';
import { type SessionCaller, Sessions, type SignedIn } from './sessions.service.js';
import { SignInAttempts } from './sign-in-attempts.js';
import { normalizeEmail } from './user.entity.js';

/** Proving who one is by password. Attempts are counted before they are verified, and every outcome is recorded. */
@Injectable()
export class SignIn {
  constructor(
    private readonly database: DataSource,
    private readonly changes: Changes,
    private readonly recorder: Recorder,
    private readonly sessions: Sessions,
    private readonly passwords: Passwords,
    private readonly attempts: SignInAttempts,
    private readonly clock: Clock,
  ) {}

  /**
   * Throws invalid_credentials, one text whatever the reason, and too_many_attempts. The session is turned to the person's first
   * client organization; the platform's people who belong to none, to the platform.
   */
  async signIn({ email, password }: { email: string; password: string }, request: RequestInfo): Promise<SignedIn> {
    const giveBack = this.attempts.take(request.address, normalizeEmail(email));
    const [person]: (Person | undefined)[] = await this.database.query(FIND_PERSON, [normalizeEmail(email)]);
    const right = await this.verify(password, person?.password_hash, giveBack);
    let reason = 'no_membership';
    if (!person) reason = 'unknown_user';
    else if (!right) reason = person.password_hash === null ? 'no_password' : 'wrong_password';
    else if (isMember(person)) {
      const cookie = await this.begin(person, request);
      if (cookie) {
        giveBack();
        return this.sessions.signedIn(cookie, request);
      }
      reason = 'wrong_password';
    }
    const organizationId = (person?.accepted && person.organization_id) || PLATFORM_ORGANIZATION;
    // What is no e-mail address is not repeated: people type passwords into the wrong field.
    const name = /^[^\s@]+@[^\s@]+$/.test(email) ? email.slice(0, 254).toWellFormed() : '';
    await this.recorder.record({
      action: 'session.created',
      outcome: 'failure',
      reason,
      actor: { type: 'anonymous', id: null, name, organizationId },
      targets: person && [{ type: 'user', id: person.id, name: person.name }],
      request,
    });
    throw problem('invalid_credentials');
  }

  /** Step-up: the person proves again who they are. Throws invalid_credentials, too_many_attempts. */
  async reauthenticate(caller: SessionCaller, password: string): Promise<SignedIn> {
    const giveBack = this.attempts.take(caller.request.address, caller.email);
    const [person] = await this.database.query('SELECT password_hash FROM "user" WHERE id = $1', [caller.actor.id]);
    if (!(await this.verify(password, person?.password_hash, giveBack))) {
      await this.recorder.record({
        action: 'session.reauthenticated',
        outcome: 'failure',
        reason: 'wrong_password',
        actor: caller.actor,
        organizationId: caller.organizationId,
        credentialId: caller.credential.id,
        request: caller.request,
      });
      throw problem('invalid_credentials');
    }
    giveBack();
    const { result, replayed } = await this.changes.run(
      caller,
      async (change) => {
        if (!(await stillThePassword(change, caller.actor.id, person.password_hash)))
          throw problem('invalid_credentials');
        await change.tx.update(Session, { id: caller.credential.id }, { authenticatedAt: new Date(this.clock.now()) });
        change.record({ action: 'session.reauthenticated' });
        return { cookie: await this.sessions.rotate(change, caller.credential.id) };
      },
      ['cookie'],
    );
    if (replayed) return { cookie: undefined, session: await this.sessions.describe(caller) };
    return this.sessions.signedIn(result.cookie, caller.request);
  }

  /** What was not checked, since too many wait, tells nobody anything: it was no attempt. */
  private async verify(password: string, hash: string | null | undefined, giveBack: () => void): Promise<boolean> {
    return this.passwords.verify(password, hash).catch((error) => {
      giveBack();
      throw error;
    });
  }

  /** Undefined when the password was changed while it was checked. */
  private async begin(person: Member, request: RequestInfo): Promise<string | undefined> {
    const { id, name, organization_id: organizationId } = person;
    const { result } = await this.changes.run(
      { actor: { type: 'user', id, name, organizationId }, request },
      async (change) => {
        if (!(await stillThePassword(change, id, person.password_hash))) return undefined;
        // This accepts an invitation: whoever is a member nowhere else could otherwise never get in to do so.
        return {
          cookie: await this.sessions.open(change, person, { organizationId, id: person.membership_id }, request),
        };
      },
    );
    return result?.cookie;
  }
}

/** Locked until commit: a change of password, which ends all other sessions, comes before this or after, never in between. */
async function stillThePassword(change: Change, userId: string, hash: string | null): Promise<boolean> {
  const rows = await change.tx.query('SELECT FROM "user" WHERE id = $1 AND password_hash = $2 FOR SHARE', [
    userId,
    hash,
  ]);
  return rows.length > 0;
}

/** Somebody who may be signing in, with the membership that the session would be for; null when they have none. */
interface Person {
  id: string;
  name: string;
  password_hash: string | null;
  organization_id: string | null;
  membership_id: string | null;
  /** False for an invitation. */
  accepted: boolean | null;
}
type Member = Person & { organization_id: string; membership_id: string };
const isMember = (person: Person): person is Member => person.membership_id !== null;

/** What they accepted before what they are invited to, client organizations before the platform, the oldest first. */
const FIND_PERSON = `
  SELECT u.id, u.name, u.password_hash, m.organization_id, m.id AS membership_id, m.accepted_at IS NOT NULL AS accepted
    FROM "user" u LEFT JOIN LATERAL (
      SELECT m.organization_id, m.id, m.accepted_at FROM membership m JOIN organization o ON o.id = m.organization_id
       WHERE m.user_id = u.id AND m.disabled_at IS NULL AND o.disabled_at IS NULL
       ORDER BY m.accepted_at IS NULL, o.platform, m.accepted_at, m.id LIMIT 1) m ON true
   WHERE u.email = $1`;
