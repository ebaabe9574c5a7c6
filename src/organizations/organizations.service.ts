import { Injectable } from '@nestjs/common';
import { DataSource, type EntityManager } from 'typeorm';
import { brokenConstraint, type Change, Changes, type Outcome } from '../changes/changes.js';
import { Config } from '../config/config.js';
import { type Caller, PLATFORM_ORGANIZATION } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { isUuid, uuidv7 } from '../kernel/ids.js';
import { MAX_ORGANIZATION_DEPTH } from '../kernel/limits.js';
import { problem } from '../kernel/problem.js';
import type { RateLimit } from '../kernel/rate-limit.js';
import { allowedScopes, type Bounds, isPlatformScope } from '../kernel/scope.js';
import { containing } from '../kernel/text.js';
import { Directory } from '../revocation/directory.js';
import { RevocationFeed } from '../revocation/revocation-feed.js';
import { assertBeneath, beneath, boundsOf, type Line, lineOf, readLine, standsBeneath } from './lineage.js';
import { Organization } from './organization.entity.js';
import { Scopes } from './scopes.service.js';
import { Sessions } from './sessions.service.js';

/** What decisions about tokens need to know of an organization; the same on every instance once a change has returned. */
export interface OrganizationFacts extends Bounds {
  id: string;
  name: string;
  /** All that stand above it; a change of one of them changes the bounds. */
  above: readonly string[];
  disabled: boolean;
  /** Null: the default. */
  rateLimit: RateLimit | null;
  /** Of the same snapshot as the rest: what is issued on these facts carries it. */
  epoch: number;
}

export interface NewOrganization {
  name: string;
  /** Null or left out: none of its own. */
  scopeCeiling?: string[] | null;
  parentId?: string | null;
  /** Null or left out: the default. */
  rateLimit?: RateLimit | null;
}

export interface OrganizationSettings {
  name: string;
  /** Null: none of its own. */
  scopeCeiling: string[] | null;
  /** Null: the default. */
  rateLimit: RateLimit | null;
  disabled: boolean;
}

/**
 * Client accounts. `by` is the organization that administers one at the moment: the platform, or a partner's, which stands above it.
 * The event stands in its log, since its auditors are the ones who ask what their people and accounts did.
 */
@Injectable()
export class Organizations {
  private readonly directory: Directory<OrganizationFacts>;

  constructor(
    private readonly database: DataSource,
    private readonly changes: Changes,
    private readonly scopes: Scopes,
    private readonly sessions: Sessions,
    private readonly clock: Clock,
    private readonly config: Config,
    feed: RevocationFeed,
  ) {
    this.directory = new Directory((id) => this.load(id), 50_000);
    feed.onEntries((entries, blind) => {
      if (blind) this.directory.clear();
      const changed = entries.filter(({ kind }) => kind === 'organization').map(({ subject_id }) => subject_id);
      if (changed.length === 0) return;
      for (const id of changed) this.directory.forget(id);
      this.directory.forgetWhere(({ above }) => above.some((id) => changed.includes(id)));
    });
  }

  /** From memory, else from the database; undefined when there is none with this id. */
  facts(id: string): OrganizationFacts | undefined | Promise<OrganizationFacts | undefined> {
    return this.directory.get(id);
  }

  /** Oldest first, after the id `after`: every organization for the platform's admins, for a partner those beneath its own. */
  list(
    limit: number,
    after: string = '00000000-0000-0000-0000-000000000000',
    { partner, search }: { partner?: Caller; search?: string } = {},
  ): Promise<Organization[]> {
    const query = this.database.manager
      .createQueryBuilder(Organization, 'organization')
      .where('organization.id > :after', { after })
      .orderBy('organization.id')
      .limit(limit);
    const above = partner?.organizationId;
    if (above === PLATFORM_ORGANIZATION) query.andWhere('NOT organization.platform');
    else if (above) query.andWhere(`organization.id IN (${beneath(':above')})`, { above });
    if (search) query.andWhere("organization.name ILIKE :pattern ESCAPE '\\'", { pattern: containing(search) });
    return query.getMany();
  }

  /** Throws not_found. */
  async get(id: string): Promise<Organization> {
    const organization = isUuid(id) && (await this.database.manager.findOneBy(Organization, { id }));
    if (!organization) throw problem('not_found');
    return organization;
  }

  /** One that stands beneath the caller's own. Throws not_found. */
  async getBeneath(caller: Caller, id: string): Promise<Organization> {
    await assertBeneath(this.database.manager, caller, id);
    return this.get(id);
  }

  /** Throws name_taken, scope_unknown, scope_beyond_ceiling, limit_reached; not_found for a parent that does not exist. */
  async create(
    caller: Caller,
    { name, scopeCeiling = null, parentId = null, rateLimit = null }: NewOrganization,
  ): Promise<Outcome<Organization>> {
    return this.changes
      .run(caller, async (change) => {
        const parents = parentId === null ? [] : await readLine(change.tx, parentId);
        if (parentId !== null && parents.length === 0)
          throw problem('not_found', 'There is no such parent organization');
        return this.insertBeneath(change, parents, { name, scopeCeiling, rateLimit }, PLATFORM_ORGANIZATION);
      })
      .catch(nameTaken);
  }

  /**
   * Makes one beneath the caller's own, or beneath one that stands there already. Throws name_taken, scope_unknown,
   * scope_beyond_ceiling, limit_reached; not_found for a parent that stands elsewhere.
   */
  async createBeneath(
    caller: Caller,
    { name, scopeCeiling = null, parentId }: NewOrganization,
  ): Promise<Outcome<Organization>> {
    const own = caller.organizationId;
    return this.changes
      .run(caller, async (change) => {
        const parents =
          parentId && parentId !== own
            ? await assertBeneath(change.tx, caller, parentId)
            : await readLine(change.tx, own);
        await this.assertRoomBeneath(change.tx, own);
        return this.insertBeneath(change, parents, { name, scopeCeiling }, own);
      })
      .catch(nameTaken);
  }

  /** Within a change of the caller's: the first start makes one as well. */
  async insert(change: Change, settings: NewOrganization, by: string = PLATFORM_ORGANIZATION): Promise<Organization> {
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
      disabledBy: null,
    });
    await change.tx.insert(Organization, organization);
    await change.register('organization', organization.id, organization.id);
    change.record({
      action: 'organization.created',
      organizationId: by,
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
  update(caller: Caller, id: string, settings: Partial<OrganizationSettings>): Promise<Organization> {
    return this.apply(caller, id, settings, PLATFORM_ORGANIZATION);
  }

  /** The same for a partner, whose own and all that is not beneath it is not there. Throws disabled_from_above, too. */
  async updateBeneath(caller: Caller, id: string, settings: Partial<OrganizationSettings>): Promise<Organization> {
    await assertBeneath(this.database.manager, caller, id);
    return this.apply(caller, id, settings, caller.organizationId);
  }

  private async apply(
    caller: Caller,
    id: string,
    settings: Partial<OrganizationSettings>,
    by: string,
  ): Promise<Organization> {
    const { result } = await this.changes
      .run(caller, async (change) => {
        const organization = await lock(change.tx, id);
        const [, ...parents] = await readLine(change.tx, id);
        await this.assertCeiling(settings.scopeCeiling ?? null, parents);
        if (organization.platform && (settings.disabled || settings.scopeCeiling)) {
          throw problem('invalid_parameter', 'The platform organization has no ceiling and is never disabled');
        }
        const before = audited(organization);
        const wasDisabled = organization.disabledAt !== null;
        if (settings.name !== undefined) organization.name = settings.name;
        if (settings.scopeCeiling !== undefined) organization.scopeCeiling = sorted(settings.scopeCeiling);
        if (settings.rateLimit !== undefined) Object.assign(organization, columnsOf(settings.rateLimit));
        const changes = difference(before, audited(organization));
        const describe = { organizationId: by, targets: [organization.target] };
        if (Object.keys(changes).length > 0) change.record({ action: 'organization.updated', ...describe, changes });
        const disabled = settings.disabled ?? wasDisabled;
        const outranks =
          settings.disabled === undefined || !wasDisabled || (await mayEnable(change.tx, organization, by));
        if (!disabled && !outranks) throw problem('disabled_from_above');
        // Disabled once more from further up, it is enabled from there alone.
        const takenOver = settings.disabled === true && wasDisabled && outranks && disablerOf(organization) !== by;
        if (disabled !== wasDisabled || takenOver) {
          organization.disabledAt = disabled ? (organization.disabledAt ?? new Date(this.clock.now())) : null;
          organization.disabledBy = disabled ? by : null;
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

  private async insertBeneath(
    change: Change,
    parents: Line,
    { name, scopeCeiling = null, rateLimit = null }: Omit<NewOrganization, 'parentId'>,
    by: string,
  ): Promise<Organization> {
    if (parents.length >= MAX_ORGANIZATION_DEPTH)
      throw problem('limit_reached', `At most ${MAX_ORGANIZATION_DEPTH} organizations stand above one another`);
    await this.assertCeiling(scopeCeiling, parents);
    // The platform is nobody's parent: what it makes for itself stands at the top.
    const parentId = parents.find(({ platform }) => !platform)?.id ?? null;
    return this.insert(change, { name, scopeCeiling, parentId, rateLimit }, by);
  }

  /** Each organization has limits of its own, so nobody multiplies theirs without end. Two who make the last one take turns. */
  private async assertRoomBeneath(tx: EntityManager, id: string): Promise<void> {
    if ((await lock(tx, id)).platform) return;
    const most = this.config.MAX_ORGANIZATIONS_BENEATH;
    const [{ count }] = await tx.query(`SELECT count(*)::integer AS count FROM (${beneath('$1::uuid')}) AS b`, [id]);
    if (count >= most) throw problem('limit_reached', `At most ${most} organizations stand beneath one`);
  }

  /** What is asked for lies within what bounds the parent now; if that is narrowed later, `boundsOf` sees to it. */
  private async assertCeiling(ceiling: readonly string[] | null, parents: Line): Promise<void> {
    if (ceiling === null) return;
    if (ceiling.some(isPlatformScope)) throw problem('scope_beyond_ceiling', 'platform:* is never inside a ceiling');
    await this.scopes.assertExist(ceiling);
    if (parents.length > 0 && allowedScopes(ceiling, boundsOf(parents)).length < ceiling.length)
      throw problem('scope_beyond_ceiling', "A child's ceiling lies within what its parent may have");
  }

  /** One statement, so that facts and epoch are of one snapshot. */
  private async load(id: string): Promise<OrganizationFacts | undefined> {
    const [row] = await this.database.query(
      `SELECT o.id, o.name, o.disabled_at IS NOT NULL AS disabled, r.epoch, ${lineOf('o.id')} AS line,
              CASE WHEN o.rate_limit IS NOT NULL THEN json_build_object('limit', o.rate_limit, 'windowSeconds', o.rate_limit_window_seconds) END AS "rateLimit"
         FROM organization o JOIN revocable r ON r.id = o.id WHERE o.id = $1`,
      [id],
    );
    if (!row) return undefined;
    const { line, ...facts }: Omit<OrganizationFacts, 'above' | keyof Bounds> & { line: Line } = row;
    return { ...facts, ...boundsOf(line), above: line.slice(1).map((one) => one.id) };
  }
}

const disablerOf = ({ disabledBy }: Organization) => disabledBy ?? PLATFORM_ORGANIZATION;

/** Whoever disabled an organization, or stands above whoever did: a partner does not undo what the platform did to its customer. */
async function mayEnable(tx: EntityManager, organization: Organization, by: string): Promise<boolean> {
  const disabler = disablerOf(organization);
  return by === disabler || standsBeneath(await readLine(tx, disabler), by);
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
