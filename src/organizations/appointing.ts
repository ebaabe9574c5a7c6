import type { EntityManager } from 'typeorm';
import type { Caller } from '../kernel/actor.js';
import { problem } from '../kernel/problem.js';
import { allowedInRole, type Role } from '../kernel/scope.js';
import { assertBeneath, boundsOf, readLine } from './lineage.js';
import { adminRoleOf, type Membership } from './membership.entity.js';

/** The organization whose people are meant: the caller's own, or `child`, which must stand beneath it. Throws not_found. */
export async function whosePeople(tx: EntityManager, caller: Caller, child: string | undefined): Promise<string> {
  if (child === undefined) return caller.organizationId;
  await assertBeneath(tx, caller, child);
  return child;
}

/**
 * Who may appoint and dismiss whom. In the caller's own organization nobody grants, changes or ends what they do not hold themselves.
 * In one beneath it, whose first admin nobody there could appoint, `partner:users:write` is the right to: what a member gets lies
 * within the child's bounds, and those lie within the bounds of the caller's own. No platform_admin is made or ended that way: that
 * role stands in the platform's own organization, which is beneath none. Throws not_found, validation_failed, scope_not_held.
 */
export async function assertMayGrant(
  tx: EntityManager,
  caller: Caller,
  organizationId: string,
  roles: readonly Role[],
  existing: readonly string[],
): Promise<void> {
  const own = organizationId === caller.organizationId;
  const bounds = boundsOf(own ? await readLine(tx, organizationId) : await assertBeneath(tx, caller, organizationId));
  if (roles.includes('platform_admin') && !bounds.platform) {
    throw problem('validation_failed', { errors: [{ field: 'role', message: 'role must be admin or auditor' }] });
  }
  const needed = own ? roles.flatMap((role) => allowedInRole(role, existing, bounds)) : ['partner:users:write'];
  if (!needed.every((scope) => caller.scopes.has(scope))) throw problem('scope_not_held');
}

/** Somebody else who could still sign in and administer. The organization's row is locked: nobody else takes one away meanwhile. */
export async function assertAnotherAdmin(
  tx: EntityManager,
  { organizationId, userId }: Pick<Membership, 'organizationId' | 'userId'>,
): Promise<void> {
  const [{ another }] = await tx.query(
    `SELECT EXISTS (SELECT FROM membership m JOIN "user" u ON u.id = m.user_id
       WHERE m.organization_id = $1 AND m.user_id <> $2 AND m.role = $3 AND m.accepted_at IS NOT NULL
         AND m.disabled_at IS NULL AND u.password_hash IS NOT NULL) AS another`,
    [organizationId, userId, adminRoleOf(organizationId)],
  );
  if (!another) throw problem('last_admin');
}
