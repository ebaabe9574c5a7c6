/** Who did something, as a value: a later rename never rewrites history. */
export interface Actor {
  type: 'service_account' | 'user' | 'anonymous' | 'system';
  /** Null for `anonymous` and `system`. */
  id: string | null;
  /** The name at that moment. */
  name: string;
  /** The organization that the actor belongs to. */
  organizationId: string;
}

/** What of an HTTP request stands in the audit log beside what it did. */
export interface RequestInfo {
  id: string;
  /** Network address of the client, behind trusted proxies only as they say. */
  address: string | null;
  userAgent: string | null;
}

/** Something revocable, and the epoch that it had when it was relied on. When its present epoch is higher, it was revoked since. */
export interface Held {
  id: string;
  epoch: number;
}

/** What a right can hang on, by what it is to that right. */
export type HoldName =
  | 'organization'
  | 'account'
  | 'membership'
  | 'user'
  | 'session'
  | 'credential'
  | 'key'
  | 'grant'
  | 'resource_organization';

/** All that a right hangs on. The right ends when one of them is revoked. */
export type Holds = Readonly<Partial<Record<HoldName, Held>>>;

/** The kinds of credential that stand in the database; beside them there are sessions. */
export type CredentialType = 'secret' | 'public_key' | 'personal_access_token';

/** An authenticated caller: everything that a decision about it needs. Made by the guards only. */
export interface Caller {
  actor: Actor;
  /** The organization acted in: the actor's own, unless a platform admin named another. */
  organizationId: string;
  scopes: ReadonlySet<string>;
  credential: { type: 'session' | CredentialType; id: string };
  /** The access token's `jti`, when there was one. */
  tokenId: string | null;
  /** All that this caller's right to act hangs on; re-checked inside the transaction of each change. */
  holds: Holds;
  /** When a person last proved who they are, ms since the Unix epoch; null for machines. */
  authenticatedAt: number | null;
  request: RequestInfo;
  idempotency?: { key: string; route: string; bodyHash: Buffer };
}

/** Something that an event is about. */
export interface Target {
  type: string;
  id: string;
  name: string;
}

/** The organization that platform events and platform admins belong to; created by the first migration. */
export const PLATFORM_ORGANIZATION = '00000000-0000-7000-8000-000000000001';
