import { createHmac } from 'node:crypto';
import { type CanActivate, createParamDecorator, type ExecutionContext, Injectable, SetMetadata } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { ApiBearerAuth, ApiCookieAuth } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Config } from '../config/config.js';
import type { Caller, RequestInfo } from '../kernel/actor.js';
import { Clock } from '../kernel/clock.js';
import { isUuid } from '../kernel/ids.js';
import { bearerChallenge } from '../kernel/oauth-error.js';
import { problem } from '../kernel/problem.js';
import { Keyring } from '../keyring/keyring.js';
import { Organizations } from '../organizations/organizations.service.js';
import { type SessionCaller, Sessions } from '../organizations/sessions.service.js';
import { RateLimits } from '../rate-limits/rate-limits.js';
import { RevocationView } from '../revocation/revocation-view.js';
import { isPersonal } from '../tokens/access-token.js';
import { TokenRejected, Tokens } from '../tokens/tokens.service.js';
import { charge } from './rate-limit.js';
import { readSessionCookie } from './session-cookie.js';

/** Who may call a route. There is no default: a route that says nothing is denied. */
type Policy =
  | { kind: 'public'; crossOrigin: boolean }
  | { kind: 'scopes'; scopes: string[] }
  | { kind: 'signed-in' }
  | { kind: 'any' };

interface Rules {
  policy: Policy | undefined;
  stepUp: boolean;
  evenOverLimit: boolean;
}

const POLICY = 'gatehouse:policy';
const STEP_UP = 'gatehouse:step-up';
const EVEN_OVER_LIMIT = 'gatehouse:even-over-limit';
/** LG-13: what is sensitive wants a person who proved of late who they are. */
const STEP_UP_MS = 10 * 60_000;

/** Anyone, without a credential. `crossOrigin`: other sites' pages too (the OAuth endpoints). */
export const Public = (options: { crossOrigin?: boolean } = {}) =>
  SetMetadata(POLICY, { kind: 'public', crossOrigin: options.crossOrigin ?? false } satisfies Policy);

const guarded =
  (policy: Policy): MethodDecorator & ClassDecorator =>
  (target: object, key?: string | symbol, descriptor?: PropertyDescriptor) => {
    const apply = [SetMetadata(POLICY, policy), ApiBearerAuth('bearer'), ApiCookieAuth('session')];
    for (const decorate of apply) (decorate as (...args: unknown[]) => void)(target, key, descriptor);
  };

/** A signed-in person or a bearer token that holds all of these scopes. */
export const RequireScopes = (...scopes: [string, ...string[]]) => guarded({ kind: 'scopes', scopes });
/** Any signed-in person, about themselves. */
export const SignedIn = () => guarded({ kind: 'signed-in' });
/** Any authenticated caller, whatever its scopes. */
export const AnyCaller = () => guarded({ kind: 'any' });
/**
 * A person at a session must have authenticated within the last ten minutes. A bearer token passes, a person's own too: nobody is
 * there to be asked, its scopes say what it is trusted with, and E4 manages principals by one that holds `admin:access`. So a token
 * with that scope makes credentials of accounts; what must be nobody's but a person's (their own tokens, SC-07) is `SignedIn` as well.
 */
export const StepUp = () => SetMetadata(STEP_UP, true);
/** Signed-in people are charged for it and never refused: whoever floods with a stolen secret must not keep its owner from ending it. */
export const EvenOverLimit = () => SetMetadata(EVEN_OVER_LIMIT, true);

declare module 'fastify' {
  interface FastifyRequest {
    caller?: Caller;
  }
}

/** The authenticated caller of a guarded route. */
export const CurrentCaller = createParamDecorator((_: unknown, context: ExecutionContext): Caller => {
  const { caller } = context.switchToHttp().getRequest<FastifyRequest>();
  if (!caller) throw new Error('no caller: the route is public');
  return caller;
});

export const CurrentRequest = createParamDecorator(
  (_: unknown, context: ExecutionContext): RequestInfo =>
    requestInfo(context.switchToHttp().getRequest<FastifyRequest>()),
);

export const requestInfo = (request: FastifyRequest): RequestInfo => ({
  id: request.id,
  address: request.ip ?? null,
  userAgent: request.headers['user-agent'] ?? null,
});

/** How often a header stands in the request: Node keeps the first of two Authorization headers and says nothing. */
export function headerCount(request: FastifyRequest, name: string): number {
  const raw = request.raw.rawHeaders;
  let count = 0;
  for (let i = 0; i < raw.length; i += 2) if (raw[i].length === name.length && raw[i].toLowerCase() === name) count++;
  return count;
}

const SAFE = new Set(['GET', 'HEAD', 'OPTIONS']);
const MISSING = Symbol();

/** The one gate of every route: who calls, how often, may they. Global, so that a controller cannot be without it. */
@Injectable()
export class AccessGuard implements CanActivate {
  private readonly origin: string;
  private readonly rules = new Map<object, Map<object, Rules>>();

  constructor(
    private readonly reflector: Reflector,
    private readonly tokens: Tokens,
    private readonly sessions: Sessions,
    private readonly organizations: Organizations,
    private readonly limits: RateLimits,
    private readonly view: RevocationView,
    private readonly keyring: Keyring,
    private readonly clock: Clock,
    private readonly config: Config,
  ) {
    this.origin = new URL(config.ISSUER_URL).origin;
  }

  canActivate(context: ExecutionContext): true | Promise<boolean> {
    const rules = this.rulesOf(context);
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    if (rules.policy?.kind === 'public') {
      if (!rules.policy.crossOrigin) this.assertSameOrigin(request);
      return true;
    }
    return this.judge(request, context.switchToHttp().getResponse<FastifyReply>(), rules);
  }

  private async judge(
    request: FastifyRequest,
    reply: FastifyReply,
    { policy, stepUp, evenOverLimit }: Rules,
  ): Promise<boolean> {
    const authenticated = await this.authenticate(request);
    // Whoever is known is charged, whatever comes of the request: machines to their own organization, not to one that the request
    // names; a person at a session by themselves, so that no flood of a stolen secret keeps them from finding and ending it.
    const { id, organizationId: own } = authenticated.actor;
    const atSession = authenticated.authenticatedAt !== null;
    const charged = atSession ? undefined : await this.organizations.facts(own);
    const subject = charged ?? { id: atSession && id ? id : own, rateLimit: null };
    await charge(this.limits, subject, reply, evenOverLimit && atSession);
    const caller = await this.turned(request, authenticated);
    const bearer = caller.authenticatedAt === null;
    if (!policy || policy.kind === 'public') throw problem('insufficient_scope', 'This route is open to nobody');
    if (policy.kind === 'signed-in' && bearer) throw problem('session_required');
    if (policy.kind === 'scopes' && !policy.scopes.every((scope) => caller.scopes.has(scope))) {
      const challenge = bearerChallenge(
        'insufficient_scope',
        'The access token lacks a scope',
        policy.scopes.join(' '),
      );
      throw problem('insufficient_scope', {
        detail: `This needs ${policy.scopes.join(' ')}`,
        headers: bearer ? { 'WWW-Authenticate': challenge } : undefined,
      });
    }
    if (stepUp && caller.authenticatedAt !== null && this.clock.now() - caller.authenticatedAt > STEP_UP_MS)
      throw problem('reauthentication_required');
    this.takeIdempotencyKey(request, caller);
    request.caller = caller;
    return true;
  }

  /** What a route says of itself; read once, since it never changes. */
  private rulesOf(context: ExecutionContext): Rules {
    const handler = context.getHandler();
    const controller = context.getClass();
    const handlers = this.rules.get(controller) ?? new Map<object, Rules>();
    this.rules.set(controller, handlers);
    let rules = handlers.get(handler);
    if (!rules) {
      const sources = [handler, controller];
      rules = {
        policy: this.reflector.getAllAndOverride<Policy | undefined>(POLICY, sources),
        stepUp: this.reflector.getAllAndOverride<boolean | undefined>(STEP_UP, sources) ?? false,
        evenOverLimit: this.reflector.getAllAndOverride<boolean | undefined>(EVEN_OVER_LIMIT, sources) ?? false,
      };
      handlers.set(handler, rules);
    }
    return rules;
  }

  private async authenticate(request: FastifyRequest): Promise<Caller | SessionCaller> {
    // RFC 6750 §2.3's query parameter leaks into logs and histories: it is refused, not read.
    if (typeof request.query === 'object' && request.query !== null && 'access_token' in request.query) {
      throw this.refuse('invalid_request', 'An access token goes into the Authorization header', 400);
    }
    if (request.headers.authorization !== undefined) return this.byToken(request);
    const cookie = readSessionCookie(request, this.config);
    const caller = cookie === undefined ? undefined : await this.bySession(request, cookie);
    if (!caller) throw problem('unauthenticated', { headers: { 'WWW-Authenticate': bearerChallenge() } });
    return caller;
  }

  private async byToken(request: FastifyRequest): Promise<Caller> {
    const text = bearerToken(request);
    if (text === undefined)
      throw this.refuse('invalid_request', 'The Authorization header is not one bearer token', 400);
    if (text === MISSING) throw problem('unauthenticated', { headers: { 'WWW-Authenticate': bearerChallenge() } });
    try {
      const { token, actor, scopes, holds } = await this.tokens.verify(text as string);
      // No route says yet that it takes a token for one company, so every route refuses it.
      if (token.resource) throw problem('insufficient_scope', 'This access token reaches one company only');
      const personal = isPersonal(token);
      return {
        actor,
        organizationId: token.organizationId,
        scopes: new Set(scopes),
        credential: { type: personal ? 'personal_access_token' : 'secret', id: token.credentialId },
        tokenId: personal ? null : token.id,
        holds,
        authenticatedAt: null,
        request: requestInfo(request),
      };
    } catch (error) {
      if (error instanceof TokenRejected) throw this.refuse('invalid_token', error.message, 401);
      throw error;
    }
  }

  private async bySession(request: FastifyRequest, cookie: string): Promise<SessionCaller | undefined> {
    this.assertSameOrigin(request);
    this.view.assertFresh(); // a restored backup brings ended sessions back
    return this.sessions.authenticate(cookie, requestInfo(request));
  }

  /** CONTRACT §8: a bearer with `platform:admin` names another organization; a session is turned to the one it acts in. */
  private turned(request: FastifyRequest, caller: Caller | SessionCaller): Caller | Promise<Caller> {
    const named = request.headers['x-organization-id'];
    const other = named !== undefined && named !== caller.organizationId;
    if (!('mustChangePassword' in caller)) return other ? this.withOrganization(named, caller) : caller;
    if (caller.mustChangePassword && !/^\/api\/v1\/(session|users\/me)(\/|$)/.test(request.url)) {
      throw problem('password_change_required');
    }
    // Not heeding it would let a person act in another organization than the one that the request names.
    if (other)
      throw problem(
        'invalid_parameter',
        'X-Organization-Id is for bearer tokens; a session turns by PATCH /api/v1/session',
      );
    return caller;
  }

  private async withOrganization(named: string | string[], caller: Caller): Promise<Caller> {
    if (!caller.scopes.has('platform:admin'))
      throw problem('insufficient_scope', 'X-Organization-Id needs platform:admin');
    const organization = isUuid(named) ? await this.organizations.facts(named) : undefined;
    if (!organization) throw problem('invalid_parameter', 'X-Organization-Id names no organization');
    return { ...caller, organizationId: organization.id };
  }

  /** A change by cookie must come from a page of ours; a request with neither header is no browser's and needs none. */
  private assertSameOrigin(request: FastifyRequest): void {
    if (SAFE.has(request.method)) return;
    const { origin, 'sec-fetch-site': site } = request.headers;
    if (origin !== undefined ? origin !== this.origin : site !== undefined && site !== 'same-origin')
      throw problem('cross_origin');
  }

  private takeIdempotencyKey(request: FastifyRequest, caller: Caller): void {
    const key = request.headers['idempotency-key'];
    if (key === undefined || request.method !== 'POST') return;
    if (typeof key !== 'string' || !/^[\x21-\x7E]{1,255}$/.test(key))
      throw problem('invalid_parameter', 'Idempotency-Key is 1 to 255 printable characters');
    const bodyHash = createHmac('sha256', this.keyring.active('cursor').secret)
      .update(JSON.stringify(request.body ?? null))
      .digest();
    caller.idempotency = { key, route: `${caller.organizationId} ${request.url.split('?', 1)[0]}`, bodyHash };
  }

  private refuse(error: 'invalid_request' | 'invalid_token', description: string, status: 400 | 401) {
    const headers = { 'WWW-Authenticate': bearerChallenge(error, description) };
    return problem(status === 400 ? 'malformed_request' : 'invalid_token', { detail: description, headers });
  }
}

/** RFC 6750 §2.1, the scheme in any case (D3). Undefined: malformed or more than one; MISSING: another scheme. */
export function bearerToken(request: FastifyRequest): string | typeof MISSING | undefined {
  if (headerCount(request, 'authorization') > 1) return undefined;
  const header = request.headers.authorization!;
  const space = header.indexOf(' ');
  if (header.slice(0, space === -1 ? undefined : space).toLowerCase() !== 'bearer') return MISSING;
  const token = space === -1 ? '' : header.slice(space + 1).trim();
  return /^[A-Za-z0-9\-._~+/]+=*$/.test(token) ? token : undefined;
}
