import { Injectable } from '@nestjs/common';
import { DataSource, type EntityManager } from 'typeorm';
import type { Changes as FieldChanges } from '../audit/audit-event.js';
import { brokenConstraint, type Change, Changes, type Outcome } from '../changes/changes.js';
import { Config } from '../config/config.js';
import type { Caller } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { isUuid, uuidv7 } from '../kernel/ids.js';
import { DEFAULT_TOKEN_TTL_SECONDS } from '../kernel/limits.js';
import { problem } from '../kernel/problem.js';
import { allowedScopes } from '../kernel/scope.js';
import { containing } from '../kernel/text.js';
import { Organizations } from '../organizations/organizations.service.js';
import { Scopes } from '../organizations/scopes.service.js';
import { ServiceAccount } from './service-account.entity.js';

export interface AccountSettings {
  name: string;
  description: string;
  scopes: string[];
  tokenFormat: string;
  tokenTtlSeconds: number;
  clientAuthMethods: string[] | null;
  resources: string[];
}

export const ACCOUNT_SORTS = ['name', '-name', 'created_at', '-created_at'] as const;
export type AccountSort = (typeof ACCOUNT_SORTS)[number];

/** The fields that an event tells of, under their names on the wire. */
const AUDITED: [keyof AccountSettings, string][] = [
  ['name', 'name'],
  ['description', 'description'],
  ['scopes', 'scopes'],
  ['tokenFormat', 'token_format'],
  ['tokenTtlSeconds', 'token_ttl_seconds'],
  ['clientAuthMethods', 'client_auth_methods'],
  ['resources', 'resources'],
];

/** Service accounts of an organization: who may make them and grant them what. */
@Injectable()
export class ServiceAccounts {
  private choices = { tokenFormats: [] as readonly string[], clientAuthMethods: [] as readonly string[] };

  constructor(
    private readonly database: DataSource,
    private readonly changes: Changes,
    private readonly organizations: Organizations,
    private readonly scopes: Scopes,
    private readonly clock: Clock,
    private readonly config: Config,
  ) {}

  /** What an account may be set to: named by the level that speaks it. Until then, nothing. */
  support(tokenFormats: readonly string[], clientAuthMethods: readonly string[]): void {
    this.choices = { tokenFormats, clientAuthMethods };
  }

  /** Throws name_taken, scope_unknown, scope_beyond_ceiling, scope_not_held. */
  create(
    caller: Caller,
    settings: Partial<AccountSettings> & Pick<AccountSettings, 'name' | 'scopes'>,
  ): Promise<Outcome<ServiceAccount>> {
    this.assertChoices(settings);
    return this.changes.run(caller, async (change) => {
      await this.assertMayGrant(caller, settings.scopes);
      return this.addTo(change, caller.organizationId, settings);
    });
  }

  /** Makes an account within a change of whoever may: a caller that was asked, or the service itself at its first start. */
  async addTo(
    change: Change,
    organizationId: string,
    settings: Partial<AccountSettings> & Pick<AccountSettings, 'name' | 'scopes'>,
  ): Promise<ServiceAccount> {
    const now = this.clock.now();
    const account = change.tx.create(ServiceAccount, {
      organizationId,
      id: uuidv7(now),
      name: settings.name,
      description: settings.description ?? '',
      scopes: sorted(settings.scopes),
      tokenFormat: settings.tokenFormat ?? this.choices.tokenFormats[0],
      tokenTtlSeconds: settings.tokenTtlSeconds ?? DEFAULT_TOKEN_TTL_SECONDS,
      clientAuthMethods: settings.clientAuthMethods ?? null,
      resources: sorted(settings.resources ?? []),
      // In whole milliseconds, as a cursor carries it: the database's own microseconds would lie behind every cursor.
      createdAt: new Date(now),
      updatedAt: new Date(now),
    });
    await orNameTaken(change.tx.insert(ServiceAccount, account));
    await change.register('service_account', account.id, organizationId);
    const changes = Object.fromEntries(AUDITED.map(([field, name]) => [name, { to: account[field] }]));
    change.record({ action: 'service_account.created', targets: [account.target], changes });
    return change.tx.findOneByOrFail(ServiceAccount, { organizationId, id: account.id });
  }

  /** A page in `sort` order from behind `after`, the [sort value, id] of the last row seen. `search` finds within names, in any case. */
  async list(
    organizationId: string,
    { search, sort, limit, after }: { search?: string; sort: AccountSort; limit: number; after?: readonly string[] },
  ): Promise<ServiceAccount[]> {
    const descending = sort.startsWith('-');
    const column = sort.endsWith('name') ? 'name' : 'createdAt';
    const query = this.database
      .getRepository(ServiceAccount)
      .createQueryBuilder('a')
      .where('a.organizationId = :organizationId AND a.deletedAt IS NULL', { organizationId })
      .orderBy(`a.${column}`, descending ? 'DESC' : 'ASC')
      .addOrderBy('a.id', descending ? 'DESC' : 'ASC')
      .limit(limit);
    if (search) query.andWhere("a.name ILIKE :pattern ESCAPE '\\'", { pattern: containing(search) });
    if (after)
      query.andWhere(`(a.${column}, a.id) ${descending ? '<' : '>'} (:value, :id)`, { value: after[0], id: after[1] });
    return query.getMany();
  }

  /** Throws not_found, also for a foreign or deleted one. */
  get(organizationId: string, id: string): Promise<ServiceAccount> {
    return this.find(this.database.manager, organizationId, id);
  }

  /**
   * What is granted anew must be held by the caller; what the account has already may stay or go. A further way to authenticate, or
   * a further audience, opens all that the account holds: so the caller must hold that.
   */
  update(caller: Caller, id: string, settings: Partial<AccountSettings>): Promise<Outcome<ServiceAccount>> {
    this.assertChoices(settings);
    return this.changes.run(caller, async (change) => {
      const account = await this.lock(change.tx, caller.organizationId, id);
      if (settings.scopes) {
        settings.scopes = sorted(settings.scopes);
        await this.assertMayGrant(
          caller,
          settings.scopes.filter((scope) => !account.scopes.includes(scope)),
        );
      }
      if (settings.resources) settings.resources = sorted(settings.resources);
      if (opens(account, settings)) this.assertHolds(caller, account);
      const before = { ...account, target: account.target };
      const changes: FieldChanges = {};
      for (const [field, name] of AUDITED) {
        const value = settings[field];
        if (value === undefined || JSON.stringify(value) === JSON.stringify(account[field])) continue;
        changes[name] = { from: account[field], to: value };
        Object.assign(account, { [field]: value });
      }
      if (Object.keys(changes).length === 0) return account;
      await orNameTaken(change.tx.save(account));
      change.record({ action: 'service_account.updated', targets: [before.target], changes });
      change.forget('service_account', account.target, account.organizationId);
      return account;
    });
  }

  /** Ends every token of the account; none is issued until it is enabled again, and those do not come back. */
  disable(caller: Caller, id: string, reason?: string): Promise<Outcome<ServiceAccount>> {
    return this.changes.run(caller, async (change) => {
      const account = await this.lock(change.tx, caller.organizationId, id);
      if (account.disabledAt) return account;
      account.disabledAt = new Date(this.clock.now());
      await this.end(change, account, 'service_account.disabled', reason);
      return account;
    });
  }

  enable(caller: Caller, id: string): Promise<Outcome<ServiceAccount>> {
    return this.changes.run(caller, async (change) => {
      const account = await this.lock(change.tx, caller.organizationId, id);
      if (!account.disabledAt) return account;
      account.disabledAt = null;
      await change.tx.save(account);
      change.record({ action: 'service_account.enabled', targets: [account.target] });
      change.forget('service_account', account.target, account.organizationId);
      return account;
    });
  }

  /** Leaves a tombstone (D20): tokens are dead, the client id is never used again, the name may be, events keep it. */
  async delete(caller: Caller, id: string): Promise<void> {
    await this.changes.run(caller, async (change) => {
      const account = await this.lock(change.tx, caller.organizationId, id);
      account.deletedAt = new Date(this.clock.now());
      await this.end(change, account, 'service_account.deleted');
      return undefined;
    });
  }

  /** Nobody grants what they do not hold, and nothing is granted beyond the organization's ceiling or that does not exist. */
  async assertMayGrant(caller: Caller, scopes: readonly string[]): Promise<void> {
    const existing = await this.scopes.names();
    if (scopes.some((scope) => !existing.includes(scope))) throw problem('scope_unknown');
    const organization = await this.organizations.facts(caller.organizationId);
    if (!organization) throw problem('not_found');
    if (allowedScopes(scopes, organization).length < scopes.length) throw problem('scope_beyond_ceiling');
    if (scopes.some((scope) => !caller.scopes.has(scope))) throw problem('scope_not_held');
  }

  /**
   * Who gets a credential of an account can do what it can: so nobody makes one who does not hold that much. A scope beyond the
   * ceiling counts too, since the ceiling may rise.
   */
  assertHolds(caller: Caller, account: ServiceAccount): void {
    if (account.scopes.some((scope) => !caller.scopes.has(scope))) throw problem('scope_not_held');
  }

  /** The account, locked until commit, so that what a rule reads cannot change under it. */
  async lock(tx: EntityManager, organizationId: string, id: string): Promise<ServiceAccount> {
    return this.find(tx, organizationId, id, true);
  }

  private async find(
    tx: EntityManager,
    organizationId: string,
    id: string,
    forUpdate = false,
  ): Promise<ServiceAccount> {
    const query = tx
      .createQueryBuilder(ServiceAccount, 'a')
      .where('a.organizationId = :organizationId AND a.id = :id AND a.deletedAt IS NULL', { organizationId, id });
    const account = isUuid(id) ? await (forUpdate ? query.setLock('for_no_key_update') : query).getOne() : null;
    if (!account) throw problem('not_found');
    return account;
  }

  private async end(
    change: Change,
    account: ServiceAccount,
    action: 'service_account.disabled' | 'service_account.deleted',
    reason?: string,
  ): Promise<void> {
    await change.tx.save(account);
    await change.revoke('service_account', account.target, account.organizationId, reason);
    change.record({ action, targets: [account.target], reason });
  }

  private assertChoices({ tokenFormat, clientAuthMethods, resources }: Partial<AccountSettings>): void {
    const fault = (field: string, choices: readonly string[], none = '') =>
      problem('validation_failed', {
        errors: [{ field, message: choices.length > 0 ? `must be out of: ${choices.join(', ')}` : none }],
      });
    if (tokenFormat !== undefined && !this.choices.tokenFormats.includes(tokenFormat))
      throw fault('token_format', this.choices.tokenFormats);
    if (clientAuthMethods?.some((method) => !this.choices.clientAuthMethods.includes(method))) {
      throw fault('client_auth_methods', this.choices.clientAuthMethods);
    }
    // Whoever names another API's audience gets tokens which that API accepts: which there are is the platform's to say.
    if (resources?.some((resource) => !this.config.RESOURCES.includes(resource)))
      throw fault('resources', this.config.RESOURCES, 'must be empty: the platform has no other audiences (RESOURCES)');
  }
}

const sorted = (names: readonly string[]) => [...new Set(names)].sort();

/** Whether the account could prove itself, or use its tokens, in a way that it cannot now. */
function opens(account: ServiceAccount, { clientAuthMethods, resources = [] }: Partial<AccountSettings>): boolean {
  const { clientAuthMethods: methods } = account; // null: all of them
  const furtherMethod =
    methods !== null &&
    clientAuthMethods !== undefined &&
    (clientAuthMethods === null || clientAuthMethods.some((method) => !methods.includes(method)));
  return furtherMethod || resources.some((resource) => !account.resources.includes(resource));
}

async function orNameTaken<T>(write: Promise<T>): Promise<T> {
  try {
    return await write;
  } catch (error) {
    if (brokenConstraint(error) === 'service_account_name_key') throw problem('name_taken', { cause: error });
    throw error;
  }
}
