import { Injectable } from '@nestjs/common';
import { DataSource, type EntityManager } from 'typeorm';
import { brokenConstraint, type Change, Changes, type Outcome } from '../changes/changes.js';
import { type Caller, PLATFORM_ORGANIZATION } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { isUuid, uuidv7 } from '../kernel/ids.js';
import { problem } from '../kernel/problem.js';
import type { RateLimit } from '../kernel/rate-limit.js';
import { isPlatformScope } from '../kernel/scope.js';
import { Directory } from '../revocation/directory.js';
import { RevocationFeed } from '../revocation/revocation-feed.js';
import { Organization } from './organization.entity.js';
import { Scopes } from './scopes.service.js';
import { Sessions } from './sessions.service.js';

/** What decisions about tokens need to know of an organization; the same on every instance once a change has returned. */
export interface OrganizationFacts {
  id: string;
  name: string;
  /** Null: no ceiling of its own. For `allowedScopes`. */
  ceiling: string[] | null;
  platform: boolean;
  disabled: boolean;
  /** Null: the default. */
  rateLimit: RateLimit | null;
  /** Of the same snapshot as the rest: what is issued on these facts carries it. */
  epoch: number;
}

export interface OrganizationSettings {
  name: string;
  /** Null: everything but `platform:*`. */
  scopeCeiling: string[] | null;
  /** Null: the default. */
  rateLimit: RateLimit | null;
  disabled: boolean;
}

/** Client accounts. Their events stand in the platform's log: it is the platform that administers them. */
@Injectable()
export class Organizations {
  private readonly directory: Directory<OrganizationFacts>;

  constructor(
    private readonly database: DataSource,
    private readonly changes: Changes,
    private readonly scopes: Scopes,
    private readonly sessions: Sessions,
    private readonly clock: Clock,
    feed: RevocationFeed,
  ) {
    this.directory = new Directory((id) => this.load(id), 50_000);
    feed.onEntries((entries, blind) => {
      if (blind) this.directory.clear();
      for (const { kind, subject_id } of entries) if (kind === 'organization') this.directory.forget(subject_id);
    });
  }

  /** From memory, else from the database; undefined when there is none with this id. */
  facts(id: string): OrganizationFacts | undefined | Promise<OrganizationFacts | undefined> {
    return this.directory.get(id);
  }

  /** Every organization, oldest first, after the id `after`. For the platform's admins. */
  list(limit: number, after: string = '00000000-0000-0000-0000-000000000000'): Promise<Organization[]> {
    return this.database.manager
      .createQueryBuilder(Organization, 'organization')
      .where('organization.id > :after', { after })
      .orderBy('organization.id')
      .limit(limit)
      .getMany();
  }

  /** Throws not_found. */
  async get(id: string): Promise<Organization> {
    const organization = isUuid(id) && (await this.database.manager.findOneBy(Organization, { id }));
    if (!organization) throw problem('not_found');
    return organization;
  }

  /** Throws name_taken, scope_unknown, scope_beyond_ceiling; not_found for a parent that does not exist. */
  async create(
    caller: Caller,
    {
      name,
      scopeCeiling = null,
      parentId = null,
      rateLimit = null,
    }: Pick<OrganizationSettings, 'name'> & Partial<OrganizationSettings> & { parentId?: string | null },
  ): Promise<Outcome<Organization>> {
    await this.assertCeiling(scopeCeiling);
    return this.changes
      .run(caller, async (change) => {
        if (parentId !== null && !(isUuid(parentId) && (await change.tx.existsBy(Organization, { id: parentId })))) {
          throw problem('not_found', 'There is no such parent organization');
        }
        return this.insert(change, { name, scopeCeiling, parentId, rateLimit });
      })
      .catch(nameTaken);
  }

  /** Within a change of the caller's: the first start makes one as well. */
  async insert(
    change: Change,
    settings: Pick<OrganizationSettings, 'name'> & Partial<OrganizationSettings> & { parentId?: string | null },
  ): Promise<Organization> {
    const now = this.clock.now();
    const organization = change.tx.create(Organization, {
      id: uuidv7(now),
      name: settings.name,
      parentId: settings.parentId ?? null,
      scopeCeiling: sorted(settings.scopeCeiling ?? null),
      ...columnsOf(settings.rateLimit ?? null),
      platform: false,
      createdAt: new Date(now),
      disabledAt: null,
    });
    await change.tx.insert(Organization, organization);
    await change.register('organization', organization.id, organization.id);
    change.record({
      action: 'organization.created',
      organizationId: PLATFORM_ORGANIZATION,
      targets: [organization.target],
      changes: {
        scope_ceiling: { to: organization.scopeCeiling },
        parent_id: { to: organization.parentId },
        rate_limit: { to: rateLimitOf(organization) },
      },
    });
    // An id that was asked for before it existed is remembered as nobody's.
    change.forget('organization', organization.target, organization.id);
    return organization;
  }

  /**
   * Disabling ends the organization's tokens and its people's sessions, not those of organizations beneath it (D19). Enabling
   * brings none of them back. Throws not_found, name_taken, scope_unknown, scope_beyond_ceiling.
   */
  async update(caller: Caller, id: string, settings: Partial<OrganizationSettings>): Promise<Organization> {
    await this.assertCeiling(settings.scopeCeiling ?? null);
    const { result } = await this.changes
      .run(caller, async (change) => {
        const organization = await lock(change.tx, id);
        if (organization.platform && (settings.disabled || settings.scopeCeiling)) {
          throw problem('invalid_parameter', 'The platform organization has no ceiling and is never disabled');
        }
        const before = audited(organization);
        const wasDisabled = organization.disabledAt !== null;
        if (settings.name !== undefined) organization.name = settings.name;
        if (settings.scopeCeiling !== undefined) organization.scopeCeiling = sorted(settings.scopeCeiling);
        if (settings.rateLimit !== undefined) Object.assign(organization, columnsOf(settings.rateLimit));
        const changes = difference(before, audited(organization));
        const describe = { organizationId: PLATFORM_ORGANIZATION, targets: [organization.target] };
        if (Object.keys(changes).length > 0) change.record({ action: 'organization.updated', ...describe, changes });
        const disabled = settings.disabled ?? wasDisabled;
        if (disabled !== wasDisabled) {
          organization.disabledAt = disabled ? new Date(this.clock.now()) : null;
          change.record({ action: disabled ? 'organization.disabled' : 'organization.enabled', ...describe });
        }
        if (change.events.length === 0) return organization;
        await change.tx.update(Organization, { id }, organization);
        if (disabled && !wasDisabled) {
          await this.sessions.endAllTurnedTo(change, id);
          await change.revoke('organization', organization.target, id);
        } else {
          change.forget('organization', organization.target, id);
        }
        return organization;
      })
      .catch(nameTaken);
    return result;
  }

  private async assertCeiling(ceiling: readonly string[] | null): Promise<void> {
    if (ceiling === null) return;
    if (ceiling.some(isPlatformScope)) throw problem('scope_beyond_ceiling', 'platform:* is never inside a ceiling');
    await this.scopes.assertExist(ceiling);
  }

  /** One statement, so that facts and epoch are of one snapshot. */
  private async load(id: string): Promise<OrganizationFacts | undefined> {
    const [row] = await this.database.query(
      `SELECT o.id, o.name, o.scope_ceiling AS ceiling, o.platform, o.disabled_at IS NOT NULL AS disabled, r.epoch,
              CASE WHEN o.rate_limit IS NOT NULL THEN json_build_object('limit', o.rate_limit, 'windowSeconds', o.rate_limit_window_seconds) END AS "rateLimit"
         FROM organization o JOIN revocable r ON r.id = o.id WHERE o.id = $1`,
      [id],
    );
    return row;
  }
}

/** Two admins who change one organization take turns. Weaker than FOR UPDATE, which would hold up every insert that refers to it. */
async function lock(tx: EntityManager, id: string): Promise<Organization> {
  const organization =
    isUuid(id) && (await tx.findOne(Organization, { where: { id }, lock: { mode: 'for_no_key_update' } }));
  if (!organization) throw problem('not_found');
  return organization;
}

const columnsOf = (rate: RateLimit | null) => ({
  rateLimitRequests: rate?.limit ?? null,
  rateLimitWindowSeconds: rate?.windowSeconds ?? null,
});

/** As the wire and the audit log have it. Of columns: what is repeated under an Idempotency-Key is an entity no more. */
export const rateLimitOf = (of: Pick<Organization, 'rateLimitRequests' | 'rateLimitWindowSeconds'>) =>
  of.rateLimitRequests === null ? null : { limit: of.rateLimitRequests, window_seconds: of.rateLimitWindowSeconds! };

/** The fields that an event tells of, under their names on the wire. */
const audited = (organization: Organization) => ({
  name: organization.name,
  scope_ceiling: organization.scopeCeiling,
  rate_limit: rateLimitOf(organization),
});

const sorted = (scopes: readonly string[] | null) => scopes && [...new Set(scopes)].sort();

/** The members that differ, as an event tells of them. */
function difference<T extends object>(from: T, to: T): Record<string, { from: unknown; to: unknown }> {
  const names = (Object.keys(from) as (keyof T & string)[]).filter(
    (name) => JSON.stringify(from[name]) !== JSON.stringify(to[name]),
  );
  return Object.fromEntries(names.map((name) => [name, { from: from[name], to: to[name] }]));
}

function nameTaken(error: unknown): never {
  throw brokenConstraint(error) === 'organization_name_key' ? problem('name_taken') : error;
}
