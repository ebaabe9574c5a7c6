import type { FastifyRequest } from 'fastify';
import type { Config } from '../config/config.js';
import { problem } from '../kernel/problem.js';

/** D9: one list of paths. The Keycloak-shaped ones stand beneath each configured realm; trailing slashes never matter. */
const REALM = 'realms/:realm';
const OPENID_CONNECT = `${REALM}/protocol/openid-connect`;

/** The first is the canonical one, that metadata names. */
export const TOKEN_PATHS = ['oauth/token', 'api/oauth2/token', `${OPENID_CONNECT}/token`] as const;
export const JWKS_PATHS = ['.well-known/jwks.json', `${OPENID_CONNECT}/certs`] as const;
export const METADATA_PATHS = [
  '.well-known/oauth-authorization-server',
  '.well-known/openid-configuration',
  `${REALM}/.well-known/openid-configuration`,
  `${REALM}/.well-known/oauth-authorization-server`,
] as const;

/** Whether errors on this path take the form of RFC 6749 §5.2. `path`: without the query. */
export const isOAuthPath = (path: string) =>
  /^\/(oauth\/token|api\/oauth2\/token|realms\/[^/]+\/protocol\/openid-connect\/token)\/*$/.test(path);

/** A realm that is not configured is no path. */
export function assertRealm(request: FastifyRequest, config: Config): void {
  const { realm } = request.params as { realm?: string };
  if (realm !== undefined && !config.REALMS.includes(realm)) throw problem('not_found');
}
