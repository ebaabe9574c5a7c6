import { Injectable } from '@nestjs/common';
import { DataSource, IsNull, MoreThan } from 'typeorm';
import { AuditLog } from '../../audit/audit-log.js';
import { brokenConstraint, type Change, Changes, type Outcome } from '../../changes/changes.js';
import type { Actor, Caller, Target } from '../../kernel/actor.js';
import { Clock } from '../../kernel/clock.js';
import { isUuid, uuidv7 } from '../../kernel/ids.js';
import { problem } from '../../kernel/problem.js';
import { type Barrier, Revocations } from '../../revocation/revocations.js';
import type { ServiceAccount } from '../service-account.entity.js';
import { ServiceAccounts } from '../service-accounts.service.js';
import { Credential } from './credential.entity.js';
import type { CredentialKind, CredentialSettings, CredentialView } from './credential-kind.js';
import { CredentialQuota } from './credential-quota.js';

/** What a revocation did (CONTRACT §7). */
export interface Receipt extends Barrier {
  revocation_id: string;
  revoked_at: Date;
  credential_id: string;
  tokens_expire_by: Date;
}

/** Whose credentials they are: an account, or a person as what they are in one organization. */
export type Owner = Pick<ServiceAccount, 'organizationId' | 'id' | 'target'> & { membershipId?: string };

/** The credentials of service accounts, of every kind: made, listed, rotated by overlap, revoked with every token issued on them. */
@Injectable()
export class Credentials {
  constructor(
    private readonly database: DataSource,
    private readonly accounts: ServiceAccounts,
    private readonly changes: Changes,
    private readonly revocations: Revocations,
    private readonly audit: AuditLog,
    private readonly quota: CredentialQuota,
    private readonly clock: Clock,
  ) {}

  /** Throws limit_reached, key_exists, and scope_not_held: who holds a credential holds the account's scopes. */
  create<Settings extends CredentialSettings, View extends CredentialView>(
    caller: Caller,
    kind: CredentialKind<Settings, View>,
    accountId: string,
    settings: Settings,
  ): Promise<Outcome<View>> {
    this.assertFuture(settings.expiresAt);
    return this.changes.run(
      caller,
      async (change) => {
        const account = await this.accounts.lock(change.tx, caller.organizationId, accountId);
        this.accounts.assertHolds(caller, account);
        return this.addTo(change, kind, account, caller.actor, settings);
      },
      kind.oneTime,
    );
  }

  /** Adds the successor of a credential. The old one goes on until it is revoked or, with `overlapSeconds`, expires. */
  rotate<Settings extends CredentialSettings, View extends CredentialView>(
    caller: Caller,
    kind: CredentialKind<Settings, View>,
    accountId: string,
    id: string,
    { overlapSeconds, ...settings }: Settings & { overlapSeconds?: number },
  ): Promise<Outcome<View>> {
    this.assertFuture(settings.expiresAt);
    return this.changes.run(
      caller,
      async (change) => {
        const account = await this.accounts.lock(change.tx, caller.organizationId, accountId);
        this.accounts.assertHolds(caller, account);
        const old = await find(change, kind, account, id);
        if (old.revokedAt) throw problem('not_found');
        if (overlapSeconds !== undefined) {
          // A token never outlives its credential; one that was issued a moment ago has this long to go.
          if (overlapSeconds < account.tokenTtlSeconds) {
            throw problem('validation_failed', {
              errors: [{ field: 'overlap_seconds', message: "must not be less than the account's token_ttl_seconds" }],
            });
          }
          const end = new Date(this.clock.now() + overlapSeconds * 1000);
          if (!old.expiresAt || old.expiresAt > end) {
            old.expiresAt = end;
            await change.tx.update(Credential, { organizationId: old.organizationId, id }, { expiresAt: end });
          }
        }
        const successor = { label: old.label, ...settings } as unknown as Settings;
        return this.addTo(change, kind, account, caller.actor, successor, old);
      },
      kind.oneTime,
    );
  }

  async list<View extends CredentialView>(
    organizationId: string,
    kind: CredentialKind<never, View>,
    accountId: string,
    limit: number,
    after?: string,
  ): Promise<View[]> {
    const credentials = await this.rowsOf(kind, await this.accounts.get(organizationId, accountId), limit, after);
    const used = await this.audit.lastIssued(
      organizationId,
      credentials.map(({ id }) => id),
    );
    return credentials.map((credential) => viewOf(kind, credential, used.get(credential.id) ?? null));
  }

  /** In the order in which they were made, after the id `after`. */
  rowsOf(kind: CredentialKind<never>, owner: Owner, limit: number, after?: string): Promise<Credential[]> {
    return this.database.manager.find(Credential, {
      where: { ...ownedBy(owner), kind: kind.name, ...(after && { id: MoreThan(after) }) },
      order: { id: 'ASC' },
      take: limit,
    });
  }

  /**
   * Kills every token issued on it, everywhere, before it returns (P1); its siblings' tokens live.
   * Revoking again waits on the first and answers with its receipt. The last one may be revoked too.
   */
  async revoke(
    caller: Caller,
    kind: CredentialKind<never>,
    /** An account by its id, or a person. */
    of: string | Owner,
    id: string,
    reason?: string,
  ): Promise<Receipt> {
    const { barrier } = await this.changes.run(caller, async (change) => {
      const owner = typeof of === 'string' ? await this.accounts.lock(change.tx, caller.organizationId, of) : of;
      const credential = await find(change, kind, owner, id);
      if (credential.revokedAt) return undefined;
      const { organizationId } = credential;
      await change.tx.update(Credential, { organizationId, id }, { revokedAt: new Date(this.clock.now()) });
      const target = targetOf(kind, credential);
      await change.revoke(kind.name, target, organizationId, reason);
      change.record({ action: kind.revoked, targets: [owner.target, target], reason });
      return undefined;
    });
    return this.receipt(id, barrier);
  }

  /** Makes a credential within a change of whoever may: a caller that was asked, or the service itself at its first start. */
  async addTo<Settings extends CredentialSettings, View extends CredentialView>(
    change: Change,
    kind: CredentialKind<Settings, View>,
    owner: Owner,
    creator: Actor,
    settings: Settings,
    replaces?: Credential,
  ): Promise<View> {
    const { organizationId, membershipId } = owner;
    // From here on those who add one to the organization take turns: the second counts what the first made.
    await this.quota.assertRoom(change.tx, organizationId);
    const now = this.clock.now();
    const unexpired = kind.facts ? {} : { expiresAt: MoreThan(new Date(now)) };
    const living = { ...ownedBy(owner), kind: kind.name, revokedAt: IsNull(), ...unexpired };
    if ((await change.tx.countBy(Credential, living)) >= kind.limit)
      throw problem('limit_reached', `An owner has at most ${kind.limit} of these that are not revoked`);
    const id = uuidv7(now);
    const { columns, shown } = kind.mint(id, settings);
    const credential = change.tx.create(Credential, {
      ...ownedBy(owner),
      userId: membershipId ? owner.id : null,
      id,
      kind: kind.name,
      label: settings.label ?? '',
      createdByType: creator.type,
      createdById: creator.id,
      createdByName: creator.name,
      createdAt: new Date(now),
      expiresAt: settings.expiresAt ?? null,
      revokedAt: null,
      ...columns,
    });
    await orKeyExists(change.tx.insert(Credential, credential));
    await change.register(kind.name, id, organizationId);
    change.record({
      action: kind.created,
      targets: [owner.target, targetOf(kind, credential), ...(replaces ? [targetOf(kind, replaces)] : [])],
      changes: {
        label: { to: credential.label },
        expires_at: { to: credential.expiresAt },
        ...(credential.scopes && { scopes: { to: credential.scopes } }),
        ...(replaces && { replaces: { to: replaces.id }, replaced_expires_at: { to: replaces.expiresAt } }),
      },
    });
    if (kind.facts) change.forget('service_account', owner.target, organizationId);
    return { ...viewOf(kind, credential, null), ...shown };
  }

  private async receipt(id: string, barrier: Barrier | undefined): Promise<Receipt> {
    const revocation = await this.revocations.find(id);
    if (!revocation) throw problem('not_found');
    return {
      revocation_id: String(revocation.id),
      revoked_at: revocation.revokedAt,
      credential_id: id,
      tokens_expire_by: revocation.mattersUntil,
      ...(barrier ?? (await this.revocations.barrier(revocation.id))),
    };
  }

  private assertFuture(expiresAt: Date | null | undefined): void {
    if (expiresAt && expiresAt.getTime() <= this.clock.now()) {
      throw problem('validation_failed', { errors: [{ field: 'expires_at', message: 'must lie in the future' }] });
    }
  }
}

const ownedBy = ({ organizationId, id, membershipId }: Owner) =>
  membershipId ? { organizationId, membershipId } : { organizationId, serviceAccountId: id };

/** Locked until commit, as a person has no account's lock that would hold up a second call. */
async function find(
  change: Change,
  { name: kind }: CredentialKind<never>,
  owner: Owner,
  id: string,
): Promise<Credential> {
  const query = { where: { ...ownedBy(owner), kind, id }, lock: { mode: 'for_no_key_update' as const } };
  const credential = isUuid(id) && (await change.tx.findOne(Credential, query));
  if (!credential) throw problem('not_found');
  return credential;
}

async function orKeyExists(write: Promise<unknown>): Promise<void> {
  try {
    await write;
  } catch (error) {
    if (brokenConstraint(error) === 'credential_kid_key') throw problem('key_exists', { cause: error });
    throw error;
  }
}

function targetOf(kind: CredentialKind<never>, credential: Credential): Target {
  const { id, label } = credential;
  const hint = kind.hintOf(credential);
  return { type: kind.name, id, name: label ? `${label} (${hint})` : hint };
}

export const viewOf = <View extends CredentialView>(
  kind: CredentialKind<never, View>,
  credential: Credential,
  lastIssued: Date | null,
): View =>
  ({
    id: credential.id,
    label: credential.label,
    ...kind.view(credential),
    created_by: { type: credential.createdByType, id: credential.createdById, name: credential.createdByName },
    created_at: credential.createdAt,
    expires_at: credential.expiresAt,
    revoked_at: credential.revokedAt,
    last_token_issued_at: lastIssued,
  }) as unknown as View;
