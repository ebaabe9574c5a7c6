import { Injectable } from '@nestjs/common';
import { DataSource, type EntityManager } from 'typeorm';
import { allowedInRole, type Role } from '../kernel/scope.js';
import { Directory } from '../revocation/directory.js';
import { RevocationFeed } from '../revocation/revocation-feed.js';
import type { OrganizationFacts } from './organizations.service.js';
import { Scopes } from './scopes.service.js';

/** What decisions about a person's tokens need to know of them in one organization. */
export interface MemberFacts {
  /** Of the membership: who comes back has another one. */
  id: string;
  organizationId: string;
  userId: string;
  name: string;
  role: Role;
  /** Disabled, or not accepted. */
  disabled: boolean;
  /** The last one that ended what was issued before; tokens from before it are dead. */
  epoch: number;
  /** The present one. A change of role raises it too: what is under way was judged by the old role, what was issued is only capped by the new one. */
  presentEpoch: number;
}

/** The in-memory directory of what people are in organizations, for what acts in their name without a session. */
@Injectable()
export class Members {
  private readonly directory: Directory<MemberFacts>;

  constructor(
    private readonly database: DataSource,
    private readonly scopes: Scopes,
    feed: RevocationFeed,
  ) {
    this.directory = new Directory((id) => this.load(this.database.manager, 'r.id = $1', [id]), 50_000);
    feed.onEntries((entries, blind) => {
      if (blind) this.directory.clear();
      for (const { kind, subject_id } of entries) {
        if (kind === 'membership') this.directory.forget(subject_id);
        if (kind === 'user') this.directory.forgetWhere(({ userId }) => userId === subject_id);
      }
    });
  }

  /** By the membership's id, from memory if it is there. Undefined once the membership has ended. */
  byId(id: string): MemberFacts | undefined | Promise<MemberFacts | undefined> {
    return this.directory.get(id);
  }

  /** A person in an organization, as the database has it at this moment. */
  find(
    organizationId: string,
    userId: string,
    tx: EntityManager = this.database.manager,
  ): Promise<MemberFacts | undefined> {
    return this.load(tx, 'm.organization_id = $1 AND m.user_id = $2', [organizationId, userId]);
  }

  /** What they may use there. */
  async scopesOf({ role }: MemberFacts, organization: OrganizationFacts): Promise<string[]> {
    return allowedInRole(role, await this.scopes.names(), organization);
  }

  /** One statement, so that facts and epochs are of one snapshot. Lines that revoke are never deleted from the feed. */
  private async load(tx: EntityManager, condition: string, values: string[]): Promise<MemberFacts | undefined> {
    const [row] = await tx.query(
      `SELECT m.id, m.organization_id AS "organizationId", m.user_id AS "userId", u.name, m.role,
              m.disabled_at IS NOT NULL OR m.accepted_at IS NULL AS disabled, r.epoch AS "presentEpoch",
              (SELECT coalesce(max(epoch), 0) FROM revocation WHERE subject_id = m.id AND epoch IS NOT NULL) AS epoch
         FROM revocable r JOIN membership m ON m.organization_id = r.organization_id AND m.id = r.id
         JOIN "user" u ON u.id = m.user_id WHERE ${condition}`,
      values,
    );
    return row;
  }
}
