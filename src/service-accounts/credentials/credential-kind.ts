import type { AuditAction } from '../../audit/audit-event.js';
import type { CredentialType } from '../../kernel/actor.js';
import type { Credential } from './credential.entity.js';

/** What every kind can be given at its creation. */
export interface CredentialSettings {
  label?: string;
  expiresAt?: Date | null;
}

/** What is known in memory of a credential, whatever its kind. `expiresAt`: ms since the Unix epoch. */
export interface CredentialFacts {
  id: string;
  kind: CredentialType;
  expiresAt: number | null;
  revoked: boolean;
}

/** A row of `credential` as PostgreSQL's `to_json` has it: octets as `\x…`, times in ISO 8601. */
export type JsonRow = Readonly<Record<string, unknown>>;

/** A credential as the API shows it, beside what its kind adds. */
export interface CredentialView {
  id: string;
  label: string;
  created_by: { type: string; id: string | null; name: string };
  created_at: Date;
  expires_at: Date | null;
  revoked_at: Date | null;
  last_token_issued_at: Date | null;
}

/** What a new row has beside what all have, and what its creator alone is shown. */
export interface Minted<View> {
  columns: Partial<Credential>;
  shown: Partial<View>;
}

/**
 * A kind of credential. A new one is a file beside these and a line in `kinds.ts`: it says what differs, and `Credentials` makes,
 * lists, rotates and revokes all of them alike.
 */
export interface CredentialKind<
  Settings extends CredentialSettings = CredentialSettings,
  View extends CredentialView = CredentialView,
> {
  /** As in `credential.kind`, on the feed and in the targets of events. */
  readonly name: CredentialType;
  readonly created: AuditAction;
  readonly revoked: AuditAction;
  /** The most that one owner holds, those revoked not counted; nor those that expired, of what no client authenticates with. */
  readonly limit: number;
  /** Members of the answer to a creation that are in no other. */
  readonly oneTime: readonly string[];
  mint(id: string, settings: Settings): Minted<View>;
  /** What tells it from its siblings, for people. */
  hintOf(credential: Credential): string;
  /** The members of its view beside what all have. */
  view(credential: Credential): Partial<View>;
  /**
   * What the in-memory directory of clients keeps of a row (as JSON has it) beside what all have. Absent: no client authenticates
   * with it, and no token is issued on it.
   */
  facts?(row: JsonRow): object;
}
