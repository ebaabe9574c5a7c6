import { Injectable } from '@nestjs/common';
import type { EntityManager } from 'typeorm';
import { Changes, type Outcome } from '../changes/changes.js';
import { Config } from '../config/config.js';
import type { Caller } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { problem } from '../kernel/problem.js';
import { type MemberFacts, Members } from '../organizations/members.js';
import { Organizations } from '../organizations/organizations.service.js';
import { Scopes } from '../organizations/scopes.service.js';
import { RevocationView } from '../revocation/revocation-view.js';
import { Revocations } from '../revocation/revocations.js';
import type { Credential } from '../service-accounts/credentials/credential.entity.js';
import { Credentials, type Owner, type Receipt, viewOf } from '../service-accounts/credentials/credentials.service.js';
import {
  PersonalAccessTokenKind,
  type PersonalAccessTokenView,
} from '../service-accounts/credentials/personal-access-token.js';
import { ServiceAccounts } from '../service-accounts/service-accounts.service.js';
import { PersonalAccessTokenFormat } from './formats/personal-access-token.js';
import { TokenRejected, Tokens } from './tokens.service.js';

const DAY_MS = 86_400_000;
const DEFAULT_DAYS = 90;

export interface NewPersonalAccessToken {
  label: string;
  scopes: string[];
  expiresAt: Date;
}

/** `revoked`: by itself, or with its owner or organization, who may be back: what ended with them does not come back. */
export type PersonalAccessTokenStatus = 'active' | 'expired' | 'revoked';
export type ListedPersonalAccessToken = PersonalAccessTokenView & { status: PersonalAccessTokenStatus };

/**
 * Personal access tokens of people and of service accounts: who may make them, for what, for how long. An admin has no part in those
 * of people: disabling or ending a membership ends them.
 */
@Injectable()
export class PersonalAccessTokens {
  constructor(
    private readonly kind: PersonalAccessTokenKind,
    private readonly format: PersonalAccessTokenFormat,
    private readonly tokens: Tokens,
    private readonly credentials: Credentials,
    private readonly accounts: ServiceAccounts,
    private readonly members: Members,
    private readonly organizations: Organizations,
    private readonly scopes: Scopes,
    private readonly changes: Changes,
    private readonly revocations: Revocations,
    private readonly view: RevocationView,
    private readonly clock: Clock,
    private readonly config: Config,
  ) {}

  /**
   * A person's own, good in the organization that they are turned to. Throws scope_unknown, scope_not_held, limit_reached;
   * invalid_parameter for platform admins where they are no member, since there would be nothing for it to end with.
   */
  async createOwn(
    caller: Caller,
    { label, scopes, expiresAt }: NewPersonalAccessToken,
  ): Promise<Outcome<PersonalAccessTokenView>> {
    this.assertLifetime(expiresAt);
    await this.scopes.assertExist(scopes);
    const { era } = this.view;
    return this.changes.run(
      caller,
      async (change) => {
        const member = await this.members.find(caller.organizationId, caller.actor.id!, change.tx);
        const organization = await this.organizations.facts(caller.organizationId);
        if (!member || member.disabled || !organization)
          throw problem('invalid_parameter', 'Turn to an organization that you are a member of first');
        const allowed = await this.members.scopesOf(member, organization);
        assertHeld(scopes, (scope) => caller.scopes.has(scope) && allowed.includes(scope));
        const epochs = [await this.epochOf(caller.organizationId, change.tx), member.presentEpoch] as const;
        const settings = { label, scopes: sorted(scopes), expiresAt, era, epochs };
        return this.credentials.addTo(change, this.kind, ownerOf(member), caller.actor, settings);
      },
      this.kind.oneTime,
    );
  }

  /**
   * One of a service account, made by whoever manages it: for nothing that the account does not hold, nor the caller. Without
   * `expiresAt` it lives for 90 days. Throws not_found, scope_unknown, scope_not_held, limit_reached.
   */
  async createFor(
    caller: Caller,
    accountId: string,
    { label, scopes, expiresAt = this.defaultEnd() }: Omit<NewPersonalAccessToken, 'expiresAt'> & { expiresAt?: Date },
  ): Promise<Outcome<PersonalAccessTokenView>> {
    this.assertLifetime(expiresAt);
    await this.scopes.assertExist(scopes);
    const { era } = this.view;
    return this.changes.run(
      caller,
      async (change) => {
        const account = await this.accounts.lock(change.tx, caller.organizationId, accountId);
        assertHeld(scopes, (scope) => caller.scopes.has(scope) && account.scopes.includes(scope));
        const epochs = [
          await this.epochOf(account.organizationId, change.tx),
          await this.epochOf(account.id, change.tx),
        ] as const;
        const settings = { label, scopes: sorted(scopes), expiresAt, era, epochs };
        return this.credentials.addTo(change, this.kind, account, caller.actor, settings);
      },
      this.kind.oneTime,
    );
  }

  /** In the order in which they were made, after the id `after`. */
  async listOwn(caller: Caller, limit: number, after?: string): Promise<ListedPersonalAccessToken[]> {
    const member = await this.members.find(caller.organizationId, caller.actor.id!);
    return member ? this.list(ownerOf(member), limit, after) : [];
  }

  async listOf(
    organizationId: string,
    accountId: string,
    limit: number,
    after?: string,
  ): Promise<ListedPersonalAccessToken[]> {
    return this.list(await this.accounts.get(organizationId, accountId), limit, after);
  }

  async revokeOwn(caller: Caller, id: string, reason?: string): Promise<Receipt> {
    const member = await this.members.find(caller.organizationId, caller.actor.id!);
    if (!member) throw problem('not_found');
    return this.credentials.revoke(caller, this.kind, ownerOf(member), id, reason);
  }

  revokeOf(caller: Caller, accountId: string, id: string, reason?: string): Promise<Receipt> {
    return this.credentials.revoke(caller, this.kind, accountId, id, reason);
  }

  private async list(owner: Owner, limit: number, after?: string): Promise<ListedPersonalAccessToken[]> {
    const rows = await this.credentials.rowsOf(this.kind, owner, limit, after);
    return Promise.all(
      rows.map(async (row) => ({ ...viewOf(this.kind, row, null), status: await this.statusOf(row) })),
    );
  }

  /** The same judge as at its use. */
  private async statusOf(credential: Credential): Promise<PersonalAccessTokenStatus> {
    try {
      await this.tokens.verify(this.format.tokenOf(credential));
      return 'active';
    } catch (error) {
      if (!(error instanceof TokenRejected)) throw error;
      return error.reason === 'expired' ? 'expired' : 'revoked';
    }
  }

  private async epochOf(id: string, tx: EntityManager): Promise<number> {
    const epoch = (await this.revocations.epochs([id], tx)).get(id);
    if (epoch === undefined) throw problem('not_found');
    return epoch;
  }

  private defaultEnd(): Date {
    return new Date(this.clock.now() + Math.min(DEFAULT_DAYS, this.config.MAX_PAT_LIFETIME_DAYS) * DAY_MS);
  }

  private assertLifetime(expiresAt: Date): void {
    const left = expiresAt.getTime() - this.clock.now();
    const most = this.config.MAX_PAT_LIFETIME_DAYS;
    const fault =
      left <= 0 ? 'must lie in the future' : left > most * DAY_MS && `must be at most ${most} days from now`;
    if (fault) throw problem('validation_failed', { errors: [{ field: 'expires_at', message: fault }] });
  }
}

const ownerOf = ({ organizationId, userId, name, id }: MemberFacts): Owner => ({
  organizationId,
  id: userId,
  target: { type: 'user', id: userId, name },
  membershipId: id,
});

/** SC-07: nobody makes a token that can do more than they can, nor more than its owner can. */
function assertHeld(scopes: readonly string[], held: (scope: string) => boolean): void {
  if (!scopes.every(held)) throw problem('scope_not_held');
}

const sorted = (scopes: readonly string[]) => [...new Set(scopes)].sort();
