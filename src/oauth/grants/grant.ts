import type { AuthenticatedClient } from '../../service-accounts/clients.js';
import type { Authorization } from '../../tokens/authorization.js';
import type { Parameters } from '../token-request.js';

/** A way to be given a token. A grant decides; the token endpoint narrows the scopes, chooses the audience, issues and records. */
export interface Grant {
  /** `grant_type` */
  readonly type: string;
  /** What is authorized, with all the scopes that may be had, sorted. Throws an OAuthError. */
  decide(client: AuthenticatedClient, parameters: Parameters): Decision | Promise<Decision>;
}

/** The endpoint chooses the audience, by what the request asks for (RFC 8707). */
export type Decision = Omit<Authorization, 'audience'>;
