import type { Actor, RequestInfo, Target } from '../kernel/actor.js';

/** Every action that stands in the audit log: noun.verb. A new one is one line here. */
export const AUDIT_ACTIONS = {
  'token.issued': 'An access token was issued, or refused after authentication',
  'token.revoked': 'A client revoked one of its own access tokens, or was refused',
  'client.authenticated': 'A client tried to authenticate at an OAuth endpoint and was refused',
  'authentication.throttled': 'Refused authentications beyond the limit of a network address, counted together',
  'session.created': 'A person signed in, or tried to',
  'session.switched': 'A person turned to another organization',
  'session.reauthenticated': 'A signed-in person proved again who they are, or tried to',
  'session.ended': 'A session was ended',
  'organization.created': 'A client account was made',
  'organization.updated': 'A client account was changed',
  'organization.disabled': 'A client account was disabled: its sessions and tokens ended',
  'organization.enabled': 'A client account was enabled',
  'user.created': 'A person was made a member',
  'user.invited': 'A person who has an account already was invited',
  'user.joined': 'An invited person joined',
  'user.updated': 'A member was changed',
  'user.disabled': 'A membership was disabled: its sessions ended',
  'user.enabled': 'A membership was enabled',
  'user.deleted': 'A membership was ended',
  'user.password.changed': 'A person changed their password',
  'scope.created': 'A scope was registered',
  'service_account.created': 'A service account was made',
  'service_account.updated': 'A service account was changed',
  'service_account.disabled': 'A service account was disabled: its tokens ended',
  'service_account.enabled': 'A service account was enabled',
  'service_account.deleted': 'A service account was deleted: its tokens ended',
  'service_account.secret.created': 'A secret was made',
  'service_account.secret.revoked': 'A secret was revoked: the tokens issued on it ended',
  'service_account.key.created': 'A public key was registered',
  'service_account.key.revoked': 'A public key was revoked: the tokens issued on it ended',
  'personal_access_token.created': 'A personal access token was made',
  'personal_access_token.revoked': 'A personal access token was revoked',
  'company.created': 'A company was created',
  'company.updated': 'A company was changed',
  'employee.created': 'An employee was pushed to a company',
  'employee.updated': 'An employee was changed, by a push or otherwise',
  'employee.pushed': 'A batch of employees was pushed to a company',
  'employee.deleted': 'An employee was deleted',
  'key.published': 'The next key was published',
  'key.activated': 'The next key took over',
  'key.retired': 'A key was retired and its material destroyed',
  'key.revoked': 'A key was revoked and its material destroyed: the tokens made with it ended',
  'key.rewrapped': 'A key was wrapped with the new MASTER_KEY',
  'era.raised': 'The era was raised: every token from before ended',
  'platform.bootstrapped': 'The first platform admin was made',
} as const;
export type AuditAction = keyof typeof AUDIT_ACTIONS;

/** A value of a field before and after; secrets never stand here, since events are built from listed fields. */
export type Changes = Record<string, { from?: unknown; to?: unknown }>;

/** What happened, before it is recorded. */
export interface NewAuditEvent {
  action: AuditAction;
  outcome?: 'success' | 'failure';
  /** A fixed word or sentence that says why it failed, or the reason that an admin gave. */
  reason?: string;
  actor: Actor;
  /** The person for whom a client acted under their grant. */
  onBehalfOf?: Actor;
  /** The organization in whose log it stands. Default: the actor's. */
  organizationId?: string;
  credentialId?: string | null;
  tokenId?: string | null;
  targets?: Target[];
  changes?: Changes;
  request: RequestInfo;
}

/** An event as it stands in the log. */
export interface AuditEvent {
  id: string;
  organizationId: string;
  occurredAt: Date;
  action: AuditAction;
  outcome: 'success' | 'failure';
  reason: string | null;
  actor: Actor;
  onBehalfOf: Actor | null;
  credentialId: string | null;
  tokenId: string | null;
  targets: Target[];
  changes: Changes | null;
  requestId: string;
  address: string | null;
  userAgent: string | null;
}

export interface AuditFilter {
  actorName?: string;
  actorId?: string;
  action?: AuditAction;
  outcome?: 'success' | 'failure';
  targetId?: string;
  credentialId?: string;
  requestId?: string;
  /** Inclusive. */
  from?: Date;
  /** Exclusive. */
  to?: Date;
}
