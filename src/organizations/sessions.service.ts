import { createHmac } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { DataSource, In } from 'typeorm';
import { type Change, Changes } from '../changes/changes.js';
import { type Caller, type Held, type Holds, PLATFORM_ORGANIZATION, type RequestInfo } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { base62, isUuid, randomOctets, uuidv7 } from '../kernel/ids.js';
import { problem } from '../kernel/problem.js';
import { allowedInRole, type Role } from '../kernel/scope.js';
import { type Key, Keyring } from '../keyring/keyring.js';
import { boundsOf, type Line, lineOf } from './lineage.js';
import { Membership, type MembershipStatus } from './membership.entity.js';
import { Organization } from './organization.entity.js';
import { Scopes } from './scopes.service.js';
import { ABSOLUTE_MS, IDLE_MS, isSessionAlive, SEEN_EVERY_MS, Session } from './session.entity.js';

/** A signed-in person. While they must change their password they hold no scope at all. */
export interface SessionCaller extends Caller {
  actor: Caller['actor'] & { id: string };
  email: string;
  organizationName: string;
  role: Role;
  /** Milliseconds since the Unix epoch. */
  expiresAt: number;
  mustChangePassword: boolean;
}

/** Who one is, and for which organization. */
export interface SessionView {
  user: { id: string; email: string; name: string };
  organization: { id: string; name: string };
  role: Role;
  scopes: string[];
  organizations: { id: string; name: string; role: Role; status: MembershipStatus }[];
  authenticatedAt: Date;
  expiresAt: Date;
  mustChangePassword: boolean;
}

/** `cookie` undefined: as it was (a repeated request, which must not learn a newer value). */
export interface SignedIn {
  cookie: string | undefined;
  session: SessionView;
}

/** 256 random bits in letters and digits. */
const COOKIE = /^[0-9A-Za-z]{43}$/;

/** Whether one person at one browser is signed in, as whom, and turned to which organization. */
@Injectable()
export class Sessions {
  constructor(
    private readonly database: DataSource,
    private readonly changes: Changes,
    private readonly keyring: Keyring,
    private readonly scopes: Scopes,
    private readonly clock: Clock,
  ) {}

  /** A new session of a person, turned to an organization that they are a member of or invited to. Returns the cookie's value. */
  async open(
    change: Change,
    person: { id: string; name: string },
    membership: { organizationId: string; id: string },
    request: RequestInfo,
  ): Promise<string> {
    const { organizationId } = membership;
    await this.accept(change, organizationId, membership.id, person);
    const now = this.clock.now();
    const { cookie, ...hash } = this.mint();
    const id = uuidv7(now);
    await change.tx.insert(Session, {
      id,
      ...hash,
      userId: person.id,
      organizationId,
      address: request.address,
      userAgent: request.userAgent?.slice(0, 512).toWellFormed() ?? null,
      createdAt: new Date(now),
      authenticatedAt: new Date(now),
      lastSeenAt: new Date(now),
      expiresAt: new Date(now + ABSOLUTE_MS),
    });
    await change.register('session', id, organizationId);
    change.record({ action: 'session.created', credentialId: id });
    return cookie;
  }

  /** The caller that a cookie's value stands for; undefined when it is nobody's, or not any more. One query, no cache. */
  async authenticate(cookie: string, request: RequestInfo): Promise<SessionCaller | undefined> {
    if (!COOKIE.test(cookie)) return undefined;
    const hashes = this.keyring.all('credential-hash').map((key) => hashOf(cookie, key));
    const [row]: (Judged | undefined)[] = await this.database.query(JUDGE, [hashes, PLATFORM_ORGANIZATION]);
    const now = this.clock.now();
    if (!row || !isSessionAlive(row, now)) return undefined;
    // The platform's admins are not the organization's own people: its disabling does not concern them (D19).
    const membershipId = row.platform_membership_id ?? (row.disabled_at ? null : row.own_membership_id);
    if (membershipId === null) return undefined;
    const held = (id: string): Held => ({ id, epoch: row.epochs[id] });
    const holds: Holds = {
      session: held(row.id),
      user: held(row.user_id),
      membership: held(membershipId),
      organization: held(row.organization_id),
    };
    if (row.epochs[row.id] !== 0 || Object.values(holds).some(({ epoch }) => epoch === undefined)) return undefined;
    if (now - row.last_seen_at.getTime() >= SEEN_EVERY_MS) {
      await this.database.query('UPDATE session SET last_seen_at = $2 WHERE id = $1 AND last_seen_at < $2', [
        row.id,
        new Date(now),
      ]);
    }
    const role = row.platform_membership_id ? 'platform_admin' : row.own_role!;
    return {
      actor: {
        type: 'user',
        id: row.user_id,
        name: row.name,
        organizationId: row.own_membership_id ? row.organization_id : PLATFORM_ORGANIZATION,
      },
      organizationId: row.organization_id,
      scopes: new Set(row.must_change_password ? [] : await this.scopesOf(role, row)),
      credential: { type: 'session', id: row.id },
      tokenId: null,
      holds,
      authenticatedAt: row.authenticated_at.getTime(),
      request,
      email: row.email,
      organizationName: row.organization_name,
      role,
      expiresAt: row.expires_at.getTime(),
      mustChangePassword: row.must_change_password,
    };
  }

  async describe(caller: SessionCaller): Promise<SessionView> {
    const memberships = await this.database.manager.find(Membership, {
      where: { userId: caller.actor.id },
      order: { id: 'ASC' },
    });
    const ids = memberships.map(({ organizationId }) => organizationId);
    const organizations = await this.database.manager.findBy(Organization, { id: In(ids) });
    const byId = new Map(organizations.map((organization) => [organization.id, organization]));
    return {
      user: { id: caller.actor.id, email: caller.email, name: caller.actor.name },
      organization: { id: caller.organizationId, name: caller.organizationName },
      role: caller.role,
      scopes: [...caller.scopes].sort(),
      organizations: memberships.map(({ organizationId: id, role, status }) => {
        const { name, disabledAt } = byId.get(id)!;
        return { id, name, role, status: disabledAt ? 'disabled' : status };
      }),
      authenticatedAt: new Date(caller.authenticatedAt!),
      expiresAt: new Date(caller.expiresAt),
      mustChangePassword: caller.mustChangePassword,
    };
  }

  /** What the answer to a sign-in, a switch or a step-up holds. */
  async signedIn(cookie: string, request: RequestInfo): Promise<SignedIn> {
    const caller = await this.authenticate(cookie, request);
    if (!caller) throw problem('unauthenticated'); // ended by somebody within these milliseconds
    return { cookie, session: await this.describe(caller) };
  }

  /**
   * Turns the session to another organization of the person's; to any, for the platform's admins. Turning to one for the first
   * time accepts its invitation. Throws not_found.
   */
  async switchOrganization(caller: SessionCaller, organizationId: string): Promise<SignedIn> {
    if (!isUuid(organizationId)) throw problem('not_found');
    const anywhere = caller.role === 'platform_admin';
    const { result } = await this.changes.run(caller, async (change) => {
      const [found]: { name: string; membership_id: string | null }[] = await change.tx.query(
        `SELECT o.name, m.id AS membership_id FROM organization o
           LEFT JOIN membership m ON m.organization_id = o.id AND m.user_id = $2 AND m.disabled_at IS NULL
          WHERE o.id = $1 AND (o.disabled_at IS NULL OR $3)`,
        [organizationId, caller.actor.id, anywhere],
      );
      if (!found || (found.membership_id === null && !anywhere)) throw problem('not_found');
      if (found.membership_id) await this.accept(change, organizationId, found.membership_id, caller.actor);
      await change.tx.update(Session, { id: caller.credential.id }, { organizationId });
      change.record({
        action: 'session.switched',
        organizationId,
        // Where they came from is none of this organization's business, and its auditors read this.
        changes: { organization_id: { to: organizationId } },
      });
      return { cookie: await this.rotate(change, caller.credential.id) };
    });
    return this.signedIn(result.cookie, caller.request);
  }

  /** A person's own live sessions, newest first, from before the id `before`. */
  list(caller: Caller, limit: number, before?: string): Promise<Session[]> {
    const now = this.clock.now();
    return this.database.manager
      .createQueryBuilder(Session, 'session')
      .where('session.userId = :userId AND session.endedAt IS NULL', { userId: caller.actor.id })
      .andWhere('session.expiresAt > :now AND session.lastSeenAt > :seen', {
        now: new Date(now),
        seen: new Date(now - IDLE_MS),
      })
      .andWhere(before ? 'session.id < :before' : 'true', { before })
      .orderBy('session.id', 'DESC')
      .limit(limit)
      .getMany();
  }

  /** Ends one of the caller's own sessions: signing out, or another browser. Throws not_found. */
  async end(caller: Caller, id: string): Promise<void> {
    if (!isUuid(id)) throw problem('not_found');
    await this.changes.run(caller, async (change) => {
      const [ended]: [{ id: string }[], number] = await change.tx.query(
        'UPDATE session SET ended_at = $3 WHERE id = $1 AND user_id = $2 AND ended_at IS NULL RETURNING id',
        [id, caller.actor.id, new Date(this.clock.now())],
      );
      if (ended.length === 0) throw problem('not_found');
      await change.end(id);
      change.record({ action: 'session.ended', targets: [{ type: 'session', id, name: caller.actor.name }] });
      return undefined;
    });
  }

  /** Ends every session there is. Unlike the others it raises no epoch: the era that is raised with it has ended what they hold. */
  async endAll(change: Change): Promise<void> {
    await change.tx.query('UPDATE session SET ended_at = $1 WHERE ended_at IS NULL', [new Date(this.clock.now())]);
  }

  /** Ends a person's sessions: all, those turned to one organization, all but one. What they have under way fails too. */
  async endAllOf(
    change: Change,
    userId: string,
    { organizationId, except }: { organizationId?: string; except?: string } = {},
  ): Promise<void> {
    const [ended]: [{ id: string }[], number] = await change.tx.query(
      `UPDATE session SET ended_at = $2 WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2
          AND ($3::uuid IS NULL OR organization_id = $3) AND ($4::uuid IS NULL OR id <> $4) RETURNING id`,
      [userId, new Date(this.clock.now()), organizationId ?? null, except ?? null],
    );
    for (const id of ended.map((session) => session.id).sort()) await change.end(id);
  }

  /** Ends the sessions of a disabled organization's own people, so that enabling revives none. What they have under way fails by the organization's epoch. */
  async endAllTurnedTo(change: Change, organizationId: string): Promise<void> {
    await change.tx.query(
      `UPDATE session AS s SET ended_at = $2 WHERE organization_id = $1 AND ended_at IS NULL AND NOT EXISTS (
         SELECT FROM membership m WHERE m.organization_id = $3 AND m.user_id = s.user_id AND m.role = 'platform_admin')`,
      [organizationId, new Date(this.clock.now()), PLATFORM_ORGANIZATION],
    );
  }

  /** A new value for the cookie, after which the old one is nobody's: whoever had seen it gains nothing from the new privilege. */
  async rotate(change: Change, id: string): Promise<string> {
    const { cookie, ...hash } = this.mint();
    await change.tx.update(Session, { id }, hash);
    return cookie;
  }

  /** Drops sessions that ended by themselves a week ago. */
  async prune(): Promise<void> {
    await this.database.query(
      `WITH ended AS (DELETE FROM session WHERE expires_at < $1 RETURNING id) DELETE FROM revocable USING ended WHERE revocable.id = ended.id`,
      [new Date(this.clock.now() - 7 * 86_400_000)],
    );
  }

  private async accept(
    change: Change,
    organizationId: string,
    membershipId: string,
    actor: { id: string; name: string },
  ): Promise<void> {
    const [accepted]: [unknown[], number] = await change.tx.query(
      'UPDATE membership SET accepted_at = $3 WHERE organization_id = $1 AND id = $2 AND accepted_at IS NULL AND disabled_at IS NULL RETURNING id',
      [organizationId, membershipId, new Date(this.clock.now())],
    );
    if (accepted.length === 0) return;
    change.record({
      action: 'user.joined',
      organizationId,
      targets: [{ type: 'user', id: actor.id, name: actor.name }],
    });
  }

  private async scopesOf(role: Role, { line }: { line: Line }): Promise<readonly string[]> {
    const existing = await this.scopes.names();
    return role === 'platform_admin' ? existing : allowedInRole(role, existing, boundsOf(line));
  }

  private mint(): { cookie: string; tokenHash: Buffer; hashKeyId: string } {
    const key = this.keyring.active('credential-hash');
    const cookie = base62(randomOctets(32));
    return { cookie, tokenHash: hashOf(cookie, key), hashKeyId: key.id };
  }
}

const hashOf = (cookie: string, key: Key) => createHmac('sha256', key.secret).update(`session|${cookie}`).digest();

interface Judged {
  id: string;
  user_id: string;
  organization_id: string;
  authenticated_at: Date;
  last_seen_at: Date;
  expires_at: Date;
  ended_at: Date | null;
  email: string;
  name: string;
  must_change_password: boolean;
  organization_name: string;
  line: Line;
  disabled_at: Date | null;
  own_membership_id: string | null;
  own_role: Role | null;
  platform_membership_id: string | null;
  epochs: Record<string, number>;
}

/** All that a session hangs on, of one snapshot. $1: the cookie under every key it may have been hashed with; $2: the platform. */
const JUDGE = `
  SELECT s.id, s.user_id, s.organization_id, s.authenticated_at, s.last_seen_at, s.expires_at, s.ended_at,
         u.email, u.name, u.must_change_password, o.name AS organization_name, o.disabled_at, ${lineOf('o.id')} AS line,
         own.id AS own_membership_id, own.role AS own_role, platform.id AS platform_membership_id,
         (SELECT json_object_agg(r.id, r.epoch) FROM revocable r
           WHERE r.id IN (s.id, s.user_id, s.organization_id, own.id, platform.id)) AS epochs
    FROM session s JOIN "user" u ON u.id = s.user_id JOIN organization o ON o.id = s.organization_id
    LEFT JOIN membership own ON own.organization_id = s.organization_id AND own.user_id = s.user_id
          AND own.accepted_at IS NOT NULL AND own.disabled_at IS NULL
    LEFT JOIN membership platform ON platform.organization_id = $2 AND platform.user_id = s.user_id
          AND platform.role = 'platform_admin' AND platform.accepted_at IS NOT NULL AND platform.disabled_at IS NULL
   WHERE s.token_hash = ANY($1)`;
