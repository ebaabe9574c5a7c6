import { Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { Changes, type Outcome } from '../changes/changes.js';
import { type Caller, PLATFORM_ORGANIZATION } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { problem } from '../kernel/problem.js';
import { isPlatformScope, isScopeToken } from '../kernel/scope.js';
import { Directory } from '../revocation/directory.js';
import { RevocationFeed } from '../revocation/revocation-feed.js';
import { Scope } from './scope.entity.js';

/** The feed speaks of ids and a scope has only a name: whichever changed, all names are read again. */
const ALL = PLATFORM_ORGANIZATION;

/** The scopes that exist: those that ship with Gatehouse and the platform's own. */
@Injectable()
export class Scopes {
  private readonly directory: Directory<readonly string[]>;

  constructor(
    private readonly database: DataSource,
    private readonly changes: Changes,
    private readonly clock: Clock,
    feed: RevocationFeed,
  ) {
    this.directory = new Directory(() => this.load(), 1);
    feed.onEntries((entries, blind) => {
      if (blind || entries.some(({ kind }) => kind === 'scope')) this.directory.forget(ALL);
    });
  }

  /** The name of every scope, from memory. */
  async names(): Promise<readonly string[]> {
    return (await this.directory.get(ALL)) ?? [];
  }

  /** Throws scope_unknown if one of these does not exist. */
  async assertExist(scopes: readonly string[]): Promise<void> {
    const existing = await this.names();
    if (!scopes.every((scope) => existing.includes(scope))) throw problem('scope_unknown');
  }

  /** By name, after the name `after`. */
  list(limit: number, after = ''): Promise<Scope[]> {
    return this.database.manager
      .createQueryBuilder(Scope, 'scope')
      .where('scope.name > :after', { after })
      .orderBy('scope.name')
      .limit(limit)
      .getMany();
  }

  /** Throws validation_failed for a name that cannot be a scope of the platform's own, name_taken. */
  async create(caller: Caller, { name, description }: { name: string; description: string }): Promise<Outcome<Scope>> {
    // `openid` asks for an ID token, which nobody ever gets here (D22).
    if (!isScopeToken(name) || isPlatformScope(name) || name === 'openid') {
      const message = 'name must be 1 to 128 characters of RFC 6749 §3.3, and neither platform:* nor openid';
      throw problem('validation_failed', { errors: [{ field: 'name', message }] });
    }
    return this.changes.run(caller, async (change) => {
      const scope = { name, description, builtIn: false, createdAt: new Date(this.clock.now()) };
      const made = await change.tx.query(
        'INSERT INTO scope (name, description, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING RETURNING 1',
        [name, description, scope.createdAt],
      );
      if (made.length === 0) throw problem('name_taken');
      change.record({
        action: 'scope.created',
        organizationId: PLATFORM_ORGANIZATION,
        targets: [{ type: 'scope', id: name, name }],
        changes: { description: { to: description } },
      });
      change.forget('scope', { type: 'scope', id: ALL, name }, PLATFORM_ORGANIZATION);
      return scope;
    });
  }

  private async load(): Promise<readonly string[]> {
    const rows: { name: string }[] = await this.database.query('SELECT name FROM scope ORDER BY name');
    return rows.map(({ name }) => name);
  }
}
