import { Injectable } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { Changes } from '../changes/changes.js';
import { Config } from '../config/config.js';
import { type Actor, PLATFORM_ORGANIZATION } from '../kernel/actor.js';
import { base62, randomOctets } from '../kernel/ids.js';
import { StartupError } from '../kernel/startup-error.js';
import { Organizations } from './organizations.service.js';
import { Passwords } from './passwords.js';
import { User } from './user.entity.js';
import { Users } from './users.service.js';

/** Advisory lock (7315, 6): one of several instances that start at once makes the first admin. */
const LOCK = 'SELECT pg_advisory_xact_lock(7315, 6)';

/** Who acts while nobody can sign in. */
const GATEHOUSE: Actor = { type: 'system', id: null, name: 'gatehouse', organizationId: PLATFORM_ORGANIZATION };

export interface Bootstrapped {
  email: string;
  /** Only when it was made up here: to be printed once. It must be changed at the first sign-in. */
  password: string | undefined;
  adminId: string;
  /** `Acme`, when a sample was asked for. */
  organizationId: string | undefined;
}

/** The first platform admin, when there is no user; there is no default password (LG-20). */
@Injectable()
export class Bootstrap {
  constructor(
    private readonly database: DataSource,
    private readonly changes: Changes,
    private readonly organizations: Organizations,
    private readonly users: Users,
    private readonly passwords: Passwords,
    private readonly config: Config,
  ) {}

  /** `sample`: also the organization `Acme`, with that person as its admin. Undefined when there were users. */
  async run({ sample }: { sample: boolean }): Promise<Bootstrapped | undefined> {
    if (await this.database.manager.exists(User)) return undefined;
    const given = this.config.BOOTSTRAP_ADMIN_PASSWORD;
    if (given !== undefined && !this.passwords.acceptable(given)) {
      throw new StartupError('BOOTSTRAP_ADMIN_PASSWORD must be 8 to 128 characters', 78);
    }
    const password = given ?? base62(randomOctets(16));
    const passwordHash = await this.passwords.hash(password);
    const request = { id: 'bootstrap', address: null, userAgent: null };
    const { result } = await this.changes.run({ actor: GATEHOUSE, request }, async (change) => {
      await change.tx.query(LOCK);
      if (await change.tx.exists(User)) return undefined;
      const email = this.config.BOOTSTRAP_ADMIN_EMAIL;
      const { user } = await this.users.insertUser(change, {
        email,
        name: 'Admin',
        passwordHash,
        mustChangePassword: given === undefined,
      });
      await this.users.insertMembership(change, PLATFORM_ORGANIZATION, user.id, 'platform_admin', true);
      change.record({
        action: 'platform.bootstrapped',
        targets: [{ type: 'user', id: user.id, name: user.name }],
        changes: { email: { to: user.email }, role: { to: 'platform_admin' } },
      });
      const acme = sample ? await this.organizations.insert(change, { name: 'Acme' }) : undefined;
      if (acme) await this.users.insertMembership(change, acme.id, user.id, 'admin', true);
      return { email: user.email, adminId: user.id, organizationId: acme?.id };
    });
    return result && { ...result, password: given === undefined ? password : undefined };
  }
}
