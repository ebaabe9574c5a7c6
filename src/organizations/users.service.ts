import { Injectable } from '@nestjs/common';
import { DataSource, type EntityManager, In, MoreThan } from 'typeorm';
import { type Change, Changes, type Outcome } from '../changes/changes.js';
import { type Caller, PLATFORM_ORGANIZATION, type Target } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { isUuid, uuidv7 } from '../kernel/ids.js';
import { problem } from '../kernel/problem.js';
import type { Role } from '../kernel/scope.js';
import { assertAnotherAdmin, assertMayGrant, whosePeople } from './appointing.js';
import { Membership, type MembershipStatus } from './membership.entity.js';
import { Organization } from './organization.entity.js';
import { Passwords } from './passwords.js';
import { Scopes } from './scopes.service.js';
import { type SessionCaller, Sessions } from './sessions.service.js';
import { normalizeEmail, User } from './user.entity.js';

/** A person as one organization sees them; `id` is the person's, the same in every organization. */
export interface Member {
  id: string;
  email: string;
  /** Null until they accept: the name of somebody else's user is not told to whoever invites them. */
  name: string | null;
  role: Role;
  status: MembershipStatus;
  createdAt: Date;
}

export interface NewPerson {
  email: string;
  name: string;
  /** Undefined: they cannot sign in by password. */
  password?: string;
}

/**
 * The people of the caller's own organization or, for a partner, of `child`, an organization that must stand beneath it.
 * Who may appoint and dismiss whom stands in appointing.ts.
 */
@Injectable()
export class Users {
  constructor(
    private readonly database: DataSource,
    private readonly changes: Changes,
    private readonly scopes: Scopes,
    private readonly sessions: Sessions,
    private readonly passwords: Passwords,
    private readonly clock: Clock,
  ) {}

  /** Members and those invited, in the order of their ids, after the id `after`. */
  async list(caller: Caller, limit: number, after?: string, child?: string): Promise<Member[]> {
    const organizationId = await whosePeople(this.database.manager, caller, child);
    const memberships = await this.database.manager.find(Membership, {
      where: { organizationId, ...(after && { userId: MoreThan(after) }) },
      order: { userId: 'ASC' },
      take: limit,
    });
    const users = await this.database.manager.findBy(User, { id: In(memberships.map(({ userId }) => userId)) });
    const byId = new Map(users.map((user) => [user.id, user]));
    return memberships.map((membership) => memberOf(membership, byId.get(membership.userId)!));
  }

  /** Throws not_found. */
  async get(caller: Caller, id: string, child?: string): Promise<Member> {
    const organizationId = await whosePeople(this.database.manager, caller, child);
    const membership =
      isUuid(id) && (await this.database.manager.findOneBy(Membership, { organizationId, userId: id }));
    if (!membership) throw problem('not_found');
    return memberOf(membership, await this.database.manager.findOneByOrFail(User, { id }));
  }

  /**
   * Makes a person a member. Somebody whom the platform knows already is invited: neither their name nor their password is touched,
   * and they accept by turning to the organization. Throws not_found, already_member, scope_not_held.
   */
  async create(caller: Caller, person: NewPerson & { role: Role }, child?: string): Promise<Outcome<Member>> {
    const granting = async (tx: EntityManager) => {
      const organizationId = await whosePeople(tx, caller, child);
      await assertMayGrant(tx, caller, organizationId, [person.role], await this.scopes.names());
      return organizationId;
    };
    // Before the hash too, which takes one of a few places that everybody's sign-in waits for.
    if (person.password !== undefined) await granting(this.database.manager);
    const passwordHash = await this.hashOf(person.password);
    return this.changes.run(caller, async (change) => {
      const organizationId = await granting(change.tx);
      const { user, known } = await this.insertUser(change, { ...person, passwordHash, mustChangePassword: false });
      const membership = await this.insertMembership(change, organizationId, user.id, person.role, !known);
      const member = memberOf(membership, user);
      change.record({
        action: known ? 'user.invited' : 'user.created',
        organizationId,
        targets: [targetOf(member)],
        changes: { email: { to: member.email }, role: { to: member.role } },
      });
      return member;
    });
  }

  /**
   * Changes a member's role, disables or enables the membership. Disabling ends their sessions here.
   * Throws not_found, scope_not_held, last_admin.
   */
  async update(
    caller: Caller,
    id: string,
    { role, disabled }: { role?: Role; disabled?: boolean },
    child?: string,
  ): Promise<Member> {
    const { result } = await this.changes.run(caller, async (change) => {
      const organizationId = await whosePeople(change.tx, caller, child);
      const { membership, user } = await this.lock(change.tx, organizationId, id);
      const { role: before, administers } = membership;
      await assertMayGrant(change.tx, caller, organizationId, [before, role ?? before], await this.scopes.names());
      const wasDisabled = membership.disabledAt !== null;
      membership.role = role ?? before;
      if (disabled !== undefined && disabled !== wasDisabled)
        membership.disabledAt = disabled ? new Date(this.clock.now()) : null;
      if (administers && !membership.administers) await assertAnotherAdmin(change.tx, membership);
      const member = memberOf(membership, user);
      if (membership.role !== before) {
        change.record({
          action: 'user.updated',
          organizationId,
          targets: [targetOf(member)],
          changes: { role: { from: before, to: membership.role } },
        });
      }
      const isDisabled = membership.disabledAt !== null;
      if (isDisabled !== wasDisabled) {
        const action = isDisabled ? 'user.disabled' : 'user.enabled';
        change.record({ action, organizationId, targets: [targetOf(member)] });
      }
      if (change.events.length === 0) return member;
      await change.tx.update(
        Membership,
        { organizationId, id: membership.id },
        { role: membership.role, disabledAt: membership.disabledAt },
      );
      if (isDisabled && !wasDisabled) await this.shutOut(change, membership, member, before);
      else {
        // What they have under way was judged by the old role.
        if (membership.role !== before) await change.end(membership.id);
        change.forget('membership', membershipTarget(membership, member), membership.organizationId);
      }
      return member;
    });
    return result;
  }

  /** Ends a membership; the person stays, and so do their others. Throws not_found, scope_not_held, last_admin. */
  async remove(caller: Caller, id: string, child?: string): Promise<void> {
    await this.changes.run(caller, async (change) => {
      const organizationId = await whosePeople(change.tx, caller, child);
      const { membership, user } = await this.lock(change.tx, organizationId, id);
      await assertMayGrant(change.tx, caller, organizationId, [membership.role], await this.scopes.names());
      if (membership.administers) await assertAnotherAdmin(change.tx, membership);
      const member = memberOf(membership, user);
      change.record({
        action: 'user.deleted',
        organizationId,
        targets: [targetOf(member)],
        changes: { role: { from: member.role } },
      });
      // Before the row goes: what they have under way may refer to it, and would wait for this as this waits for it.
      await this.shutOut(change, membership, member, membership.role);
      await change.tx.delete(Membership, { organizationId, id: membership.id });
      return undefined;
    });
  }

  /** The caller as a person. */
  me(caller: SessionCaller): Promise<User> {
    return this.database.manager.findOneByOrFail(User, { id: caller.actor.id });
  }

  /**
   * What people may change of themselves. A new password ends their other sessions everywhere and gives this one a new cookie,
   * which is returned. Throws validation_failed.
   */
  async updateMe(
    caller: SessionCaller,
    { name, password }: { name?: string; password?: string },
  ): Promise<string | undefined> {
    const { id } = caller.actor;
    if (password !== undefined && caller.mustChangePassword) {
      const [row] = await this.database.query('SELECT password_hash FROM "user" WHERE id = $1', [id]);
      if (await this.passwords.verify(password, row.password_hash)) throw badPassword('password must be another one');
    }
    const passwordHash = await this.hashOf(password);
    const { result } = await this.changes.run(caller, async (change) => {
      const user = await change.tx.findOneOrFail(User, { where: { id }, lock: { mode: 'for_no_key_update' } });
      const target = { type: 'user', id, name: name ?? user.name };
      if (name !== undefined && name !== user.name) {
        await change.tx.update(User, { id }, { name });
        change.record({ action: 'user.updated', targets: [target], changes: { name: { from: user.name, to: name } } });
        change.forget('user', target, PLATFORM_ORGANIZATION);
      }
      if (passwordHash === null) return undefined;
      await change.tx.update(
        User,
        { id },
        { passwordHash, passwordChangedAt: new Date(this.clock.now()), mustChangePassword: false },
      );
      change.record({ action: 'user.password.changed', targets: [target] });
      await this.sessions.endAllOf(change, id, { except: caller.credential.id });
      return { cookie: await this.sessions.rotate(change, caller.credential.id) };
    });
    return result?.cookie;
  }

  /** Within a change of the caller's: a person, or the one whom the e-mail address belongs to already, untouched. */
  async insertUser(
    change: Change,
    person: Pick<User, 'email' | 'name' | 'passwordHash' | 'mustChangePassword'>,
  ): Promise<{ user: User; known: boolean }> {
    const now = this.clock.now();
    const user = change.tx.create(User, {
      id: uuidv7(now),
      email: normalizeEmail(person.email),
      name: person.name,
      passwordHash: person.passwordHash,
      passwordChangedAt: person.passwordHash === null ? null : new Date(now),
      mustChangePassword: person.mustChangePassword,
      createdAt: new Date(now),
    });
    const { raw } = await change.tx
      .createQueryBuilder()
      .insert()
      .into(User)
      .values(user)
      .orIgnore()
      .returning('id')
      .execute();
    if (raw.length === 0) return { user: await change.tx.findOneByOrFail(User, { email: user.email }), known: true };
    await change.register('user', user.id, PLATFORM_ORGANIZATION);
    return { user, known: false };
  }

  /** Within a change of the caller's. Throws already_member. */
  async insertMembership(
    change: Change,
    organizationId: string,
    userId: string,
    role: Role,
    accepted: boolean,
  ): Promise<Membership> {
    const now = new Date(this.clock.now());
    const membership = change.tx.create(Membership, {
      organizationId,
      id: uuidv7(now.getTime()),
      userId,
      role,
      createdAt: now,
      acceptedAt: accepted ? now : null,
      disabledAt: null,
    });
    const { raw } = await change.tx
      .createQueryBuilder()
      .insert()
      .into(Membership)
      .values(membership)
      .orIgnore()
      .returning('id')
      .execute();
    if (raw.length === 0) throw problem('already_member');
    await change.register('membership', membership.id, organizationId);
    return membership;
  }

  /** Throws validation_failed for what is no password. */
  private async hashOf(password: string | undefined): Promise<string | null> {
    if (password === undefined) return null;
    if (!this.passwords.acceptable(password)) throw badPassword('password must be 8 to 128 characters');
    return this.passwords.hash(password);
  }

  /** The organization's row is locked first, so that of two admins who end one another only the first does. */
  private async lock(tx: EntityManager, organizationId: string, userId: string) {
    if (!isUuid(userId)) throw problem('not_found');
    await tx.findOneOrFail(Organization, { where: { id: organizationId }, lock: { mode: 'for_no_key_update' } });
    const membership = await tx.findOne(Membership, {
      where: { organizationId, userId },
      lock: { mode: 'for_no_key_update' },
    });
    if (!membership) throw problem('not_found');
    return { membership, user: await tx.findOneByOrFail(User, { id: userId }) };
  }

  /** A platform admin's sessions may be turned anywhere, so all of them end. */
  private async shutOut(change: Change, membership: Membership, member: Member, role: Role): Promise<void> {
    const organizationId = role === 'platform_admin' ? undefined : membership.organizationId;
    await this.sessions.endAllOf(change, membership.userId, { organizationId });
    await change.revoke('membership', membershipTarget(membership, member), membership.organizationId);
  }
}

const memberOf = (membership: Membership, user: User): Member => ({
  id: user.id,
  email: user.email,
  name: membership.acceptedAt ? user.name : null,
  role: membership.role,
  status: membership.status,
  createdAt: membership.createdAt,
});

const targetOf = (member: Member): Target => ({ type: 'user', id: member.id, name: member.name ?? member.email });

const membershipTarget = ({ id }: Membership, member: Member): Target => ({
  ...targetOf(member),
  id,
  type: 'membership',
});

const badPassword = (message: string) => problem('validation_failed', { errors: [{ field: 'password', message }] });
