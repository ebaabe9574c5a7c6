import type { FastifyRequest } from 'fastify';
import type { Config } from '../config/config.js';
import { problem } from '../kernel/problem.js';

/** D9: one list of paths. The Keycloak-shaped ones stand beneath each configured realm; trailing slashes never matter. */
const REALM = 'realms/:realm';
const OPENID_CONNECT = `${REALM}/protocol/openid-connect`;

/** The first is the canonical one, that metadata names. */
export const TOKEN_PATHS = ['oauth/token', 'api/oauth2/token', `${OPENID_CONNECT}/token`] as const;
export const INTROSPECTION_PATHS = ['oauth/introspect', `${OPENID_CONNECT}/token/introspect`] as const;
export const REVOCATION_PATHS = ['oauth/revoke', `${OPENID_CONNECT}/revoke`] as const;
/** Those that take parameters, in POST bodies alone. */
export const POST_PATHS = [...TOKEN_PATHS, ...INTROSPECTION_PATHS, ...REVOCATION_PATHS] as const;
export const JWKS_PATHS = ['.well-known/jwks.json', `${OPENID_CONNECT}/certs`] as const;
export const METADATA_PATHS = [
  '.well-known/oauth-authorization-server',
  '.well-known/openid-configuration',
  `${REALM}/.well-known/openid-configuration`,
  `${REALM}/.well-known/oauth-authorization-server`,
] as const;

const OAUTH_PATH = new RegExp(`^/(?:${POST_PATHS.map((path) => path.replace(':realm', '[^/]+')).join('|')})/*$`);

/**
 * Whether body and errors take the forms of RFC 6749. By the route that was found: a path has many spellings (`/oauth/%74oken`), and
 * one that found the route and not its parser would hand it a body that nobody has checked. By the path where none was found.
 */
export const isOAuthRequest = ({ routeOptions, url }: FastifyRequest) =>
  OAUTH_PATH.test(routeOptions?.url ?? url.split('?', 1)[0]);

/** A realm that is not configured is no path. */
export function assertRealm(request: FastifyRequest, config: Config): void {
  const { realm } = request.params as { realm?: string };
  if (realm !== undefined && !config.REALMS.includes(realm)) throw problem('not_found');
}
