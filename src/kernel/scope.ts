/** Scopes are the one permission language: a role is a named set of scopes, and people and machines are judged by the same check. */

/** RFC 6749 §3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E ). */
const SCOPE_TOKEN = /^[\x21\x23-\x5B\x5D-\x7E]{1,128}$/;
export const isScopeToken = (text: unknown): text is string => typeof text === 'string' && SCOPE_TOKEN.test(text);

/** Scopes that rule the platform itself. They are never inside a client organization's ceiling. */
export const isPlatformScope = (scope: string) => scope.startsWith('platform:');

/** The scopes that ship with Gatehouse; a platform adds its own through `POST /api/v1/scopes`. */
export const BUILT_IN_SCOPES: Readonly<Record<string, string>> = {
  'admin:access': "Manage the organization's service accounts, secrets and people",
  'audit:read': "Read the organization's audit log and revocation list",
  'companies:read': 'Read companies and their employees',
  'companies:write': 'Create and change companies',
  'employees:write': 'Push employees to companies',
  'partner:orgs:read': 'Read the organizations beneath your own',
  'partner:orgs:write': 'Create and change organizations beneath your own',
  'partner:users:write': 'Manage the people of organizations beneath your own',
  'platform:admin': 'Administer the platform: every organization, scope and key',
  'tokens:introspect': "Introspect tokens that were presented to an API of one's own",
};

export const ROLES = ['admin', 'auditor', 'platform_admin'] as const;
export type Role = (typeof ROLES)[number];
/** Those that there are in a client organization. */
export const CLIENT_ROLES = ['admin', 'auditor'] as const satisfies readonly Role[];
export type ClientRole = (typeof CLIENT_ROLES)[number];

/** The scopes that a role stands for, out of all that exist. */
function scopesOfRole(role: Role, existing: Iterable<string>): string[] {
  if (role === 'auditor') return ['audit:read'];
  return [...existing].filter((scope) => role === 'platform_admin' || !isPlatformScope(scope));
}

/** What a role is for. A ceiling bounds what an organization's accounts and people do with the platform, not who looks after it. */
const OWN_SCOPES: Record<Role, readonly string[]> = {
  admin: ['admin:access', 'audit:read'],
  auditor: ['audit:read'],
  platform_admin: [],
};

/** What bounds an organization: its own ceiling within those of all above it. */
export interface Bounds {
  /** Null: everything but `platform:*`. */
  ceiling: readonly string[] | null;
  platform: boolean;
}

/** What is within every one of these ceilings. One that is null bounds nothing. */
export const within = (ceilings: readonly (readonly string[] | null)[]): readonly string[] | null =>
  ceilings.reduce((all, one) => (all && one ? all.filter((scope) => one.includes(scope)) : (all ?? one)), null);

/** What a person in this role may use in an organization. */
export const allowedInRole = (role: Role, existing: Iterable<string>, organization: Bounds): string[] => [
  ...new Set([...OWN_SCOPES[role], ...allowedScopes(scopesOfRole(role, existing), organization)]),
];

/**
 * What may be used: what is assigned, within what bounds the organization. No ceiling (null) means everything but `platform:*`.
 * This is the only place that computes it.
 */
export function allowedScopes(assigned: Iterable<string>, organization: Bounds): string[] {
  const isAllowed = (scope: string) => {
    if (organization.platform) return true;
    if (isPlatformScope(scope)) return false;
    return organization.ceiling === null || organization.ceiling.includes(scope);
  };
  return [...assigned].filter(isAllowed);
}

/** `scope` as sent (RFC 6749 §3.3) to a sorted set; undefined when it is not a scope. `openid` asks for an ID token and is dropped (D22). */
export function parseScope(text: string): string[] | undefined {
  if (text.length > 8192) return undefined;
  const tokens = text.split(' ').filter((token) => token !== '');
  if (tokens.length === 0 || !tokens.every(isScopeToken)) return undefined;
  return [...new Set(tokens)].filter((token) => token !== 'openid').sort();
}
