import { Injectable } from '@nestjs/common';
import type { EntityManager } from 'typeorm';
import { Config } from '../../config/config.js';
import { problem } from '../../kernel/problem.js';

/** How many living credentials an organization may keep: what one organization stores must not fill the tables of all. */
@Injectable()
export class CredentialQuota {
  constructor(private readonly config: Config) {}

  /**
   * Throws limit_reached when the organization has no room for one more. Those that are about to add one take turns, organization by
   * organization, until they commit: so two can never both take the last place.
   */
  async assertRoom(tx: EntityManager, organizationId: string): Promise<void> {
    await tx.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 7316))', [organizationId]);
    const [{ living }] = await tx.query(LIVING, [organizationId]);
    const most = this.config.MAX_CREDENTIALS_PER_ORGANIZATION;
    if (living >= most)
      throw problem('limit_reached', `An organization has at most ${most} credentials that are not revoked`);
  }
}

/**
 * What is dead without being revoked one by one: a deleted account's, the tokens of a member who left, and tokens that have expired,
 * which nobody has a reason to revoke.
 */
const LIVING = `
  SELECT count(*)::int AS living FROM credential AS c
    LEFT JOIN service_account AS a ON a.organization_id = c.organization_id AND a.id = c.service_account_id
   WHERE c.organization_id = $1 AND c.revoked_at IS NULL AND a.deleted_at IS NULL
     AND (c.kind <> 'personal_access_token' OR (num_nonnulls(c.service_account_id, c.membership_id) = 1 AND c.expires_at > now()))`;
