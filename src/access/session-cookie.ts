import { parseCookie } from 'cookie';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Config } from '../config/config.js';

/** `__Host-` binds the cookie to this host, this path and TLS; browsers refuse the prefix without Secure, so http does without. */
const sessionCookieName = (config: Config) => (config.https ? '__Host-session' : 'session');

export const readSessionCookie = (request: FastifyRequest, config: Config): string | undefined =>
  parseCookie(request.headers.cookie ?? '')[sessionCookieName(config)];

/** Lax, not Strict: a link from elsewhere into the portal should find its reader signed in; changes are judged by Origin as well. */
const attributes = (config: Config) => `Path=/; HttpOnly; SameSite=Lax${config.https ? '; Secure' : ''}`;

/** Without Max-Age: it goes when the browser does; how long it is good for is decided here, by the session's row. */
export function setSessionCookie(reply: FastifyReply, config: Config, value: string | undefined): void {
  if (value !== undefined) reply.header('set-cookie', `${sessionCookieName(config)}=${value}; ${attributes(config)}`);
}

export function clearSessionCookie(reply: FastifyReply, config: Config): void {
  reply.header('set-cookie', `${sessionCookieName(config)}=; ${attributes(config)}; Max-Age=0`);
  reply.header('clear-site-data', '"cookies"');
}
