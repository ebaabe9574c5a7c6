import { createHmac } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { DataSource, IsNull } from 'typeorm';
import { AuditLog } from '../audit/audit-log.js';
import { type Change, Changes, type Outcome } from '../changes/changes.js';
import { Config } from '../config/config.js';
import type { Actor, Caller } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { isUuid, uuidv7 } from '../kernel/ids.js';
import { problem } from '../kernel/problem.js';
import { hintOf, mintSecret } from '../kernel/secret-value.js';
import { Keyring } from '../keyring/keyring.js';
import { type Barrier, Revocations } from '../revocation/revocations.js';
import { CredentialQuota } from './credential-quota.js';
import { Secret } from './secret.entity.js';
import type { ServiceAccount } from './service-account.entity.js';
import { ServiceAccounts } from './service-accounts.service.js';

export interface SecretSettings {
  label?: string;
  expiresAt?: Date | null;
}

/** A secret as the API shows it. `secret` is there in the answer that made it, and never again. */
export interface SecretView {
  id: string;
  label: string;
  hint: string;
  created_by: { type: string; id: string | null; name: string };
  created_at: Date;
  expires_at: Date | null;
  revoked_at: Date | null;
  last_token_issued_at: Date | null;
  secret?: string;
}

/** What a revocation did (CONTRACT §7). */
export interface Receipt extends Barrier {
  revocation_id: string;
  revoked_at: Date;
  credential_id: string;
  tokens_expire_by: Date;
}

export const ONE_TIME = ['secret'] as const;

/** The secrets of service accounts: made, listed, rotated by overlap, revoked with every token issued on them. */
@Injectable()
export class Secrets {
  constructor(
    private readonly database: DataSource,
    private readonly accounts: ServiceAccounts,
    private readonly changes: Changes,
    private readonly revocations: Revocations,
    private readonly audit: AuditLog,
    private readonly keyring: Keyring,
    private readonly clock: Clock,
    private readonly config: Config,
    private readonly quota: CredentialQuota,
  ) {}

  /** Throws limit_reached, and scope_not_held: who holds a secret holds the account's scopes. */
  create(caller: Caller, accountId: string, settings: SecretSettings): Promise<Outcome<SecretView>> {
    this.assertFuture(settings.expiresAt);
    return this.changes.run(
      caller,
      async (change) => {
        const account = await this.accounts.lock(change.tx, caller.organizationId, accountId);
        this.accounts.assertHolds(caller, account);
        return this.add(change, account, caller.actor, settings);
      },
      ONE_TIME,
    );
  }

  /** Adds the successor of a secret. The old one goes on until it is revoked or, with `overlapSeconds`, expires. */
  rotate(
    caller: Caller,
    accountId: string,
    secretId: string,
    { overlapSeconds, ...settings }: SecretSettings & { overlapSeconds?: number },
  ): Promise<Outcome<SecretView>> {
    this.assertFuture(settings.expiresAt);
    return this.changes.run(
      caller,
      async (change) => {
        const account = await this.accounts.lock(change.tx, caller.organizationId, accountId);
        this.accounts.assertHolds(caller, account);
        const old = await find(change, account, secretId);
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
            await change.tx.update(Secret, { organizationId: old.organizationId, id: old.id }, { expiresAt: end });
          }
        }
        return this.add(change, account, caller.actor, { label: old.label, ...settings }, old);
      },
      ONE_TIME,
    );
  }

  /** The first secret of an account that the service itself makes, at its first start. */
  addTo(change: Change, account: ServiceAccount, creator: Actor, settings: SecretSettings): Promise<SecretView> {
    return this.add(change, account, creator, settings);
  }

  async list(organizationId: string, accountId: string, limit: number, after?: string): Promise<SecretView[]> {
    await this.accounts.get(organizationId, accountId);
    const query = this.database
      .getRepository(Secret)
      .createQueryBuilder('s')
      .where('s.organizationId = :organizationId AND s.serviceAccountId = :accountId', { organizationId, accountId })
      .orderBy('s.id')
      .limit(limit);
    if (after) query.andWhere('s.id > :after', { after });
    const secrets = await query.getMany();
    const used = await this.audit.lastIssued(
      organizationId,
      secrets.map(({ id }) => id),
    );
    return secrets.map((secret) => view(secret, used.get(secret.id) ?? null));
  }

  /**
   * Kills every token issued on the secret, everywhere, before it returns (P1); its siblings' tokens live.
   * Revoking again waits on the first and answers with its receipt. The last one may be revoked too.
   */
  async revoke(caller: Caller, accountId: string, secretId: string, reason?: string): Promise<Receipt> {
    const { barrier } = await this.changes.run(caller, async (change) => {
      const account = await this.accounts.lock(change.tx, caller.organizationId, accountId);
      const secret = await find(change, account, secretId);
      if (secret.revokedAt) return undefined;
      await change.tx.update(
        Secret,
        { organizationId: secret.organizationId, id: secret.id },
        { revokedAt: new Date(this.clock.now()) },
      );
      await change.revoke('secret', secret.target, secret.organizationId, reason);
      change.record({ action: 'service_account.secret.revoked', targets: [account.target, secret.target], reason });
      return undefined;
    });
    const revocation = await this.revocations.find(secretId);
    if (!revocation) throw problem('not_found');
    return {
      revocation_id: String(revocation.id),
      revoked_at: revocation.revokedAt,
      credential_id: secretId,
      tokens_expire_by: revocation.mattersUntil,
      ...(barrier ?? (await this.revocations.barrier(revocation.id))),
    };
  }

  private async add(
    change: Change,
    account: ServiceAccount,
    creator: Actor,
    settings: SecretSettings,
    replaces?: Secret,
  ): Promise<SecretView> {
    const living = await change.tx.countBy(Secret, {
      organizationId: account.organizationId,
      serviceAccountId: account.id,
      revokedAt: IsNull(),
    });
    if (living >= this.config.MAX_SECRETS_PER_ACCOUNT) {
      throw problem(
        'limit_reached',
        `An account has at most ${this.config.MAX_SECRETS_PER_ACCOUNT} secrets that are not revoked`,
      );
    }
    await this.quota.assertRoom(change.tx, account.organizationId);
    const id = uuidv7(this.clock.now());
    const value = mintSecret('sec', { word: this.config.CREDENTIAL_PREFIX, environment: this.config.ENVIRONMENT }, id);
    const key = this.keyring.active('credential-hash');
    const secret = change.tx.create(Secret, {
      organizationId: account.organizationId,
      id,
      serviceAccountId: account.id,
      label: settings.label ?? '',
      hint: hintOf(value),
      hash: createHmac('sha256', key.secret).update(value).digest(),
      hashKeyId: key.id,
      createdByType: creator.type,
      createdById: creator.id,
      createdByName: creator.name,
      createdAt: new Date(this.clock.now()),
      expiresAt: settings.expiresAt ?? null,
      revokedAt: null,
    });
    await change.tx.insert(Secret, secret);
    await change.register('secret', id, account.organizationId);
    change.record({
      action: 'service_account.secret.created',
      targets: [account.target, secret.target, ...(replaces ? [replaces.target] : [])],
      changes: {
        label: { to: secret.label },
        expires_at: { to: secret.expiresAt },
        ...(replaces && { replaces: { to: replaces.id }, replaced_expires_at: { to: replaces.expiresAt } }),
      },
    });
    change.forget('service_account', account.target, account.organizationId);
    return { ...view(secret, null), secret: value };
  }

  private assertFuture(expiresAt: Date | null | undefined): void {
    if (expiresAt && expiresAt.getTime() <= this.clock.now()) {
      throw problem('validation_failed', { errors: [{ field: 'expires_at', message: 'must lie in the future' }] });
    }
  }
}

async function find(change: Change, account: ServiceAccount, id: string): Promise<Secret> {
  const secret =
    isUuid(id) &&
    (await change.tx.findOneBy(Secret, { organizationId: account.organizationId, serviceAccountId: account.id, id }));
  if (!secret) throw problem('not_found');
  return secret;
}

const view = (secret: Secret, lastIssued: Date | null): SecretView => ({
  id: secret.id,
  label: secret.label,
  hint: secret.hint,
  created_by: { type: secret.createdByType, id: secret.createdById, name: secret.createdByName },
  created_at: secret.createdAt,
  expires_at: secret.expiresAt,
  revoked_at: secret.revokedAt,
  last_token_issued_at: lastIssued,
});
