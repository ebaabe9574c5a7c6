import type { AuthenticatedClient } from '../../service-accounts/clients.js';
import type { Parameters } from '../token-request.js';

/** A way to be given a token. It decides and never mints: the endpoint narrows scopes, issues and records for all of them. */
export interface Grant {
  /** `grant_type` */
  readonly type: string;
  /** What is authorized, or an OAuthError. */
  decide(client: AuthenticatedClient, parameters: Parameters): Authorization | Promise<Authorization>;
}

export interface Authorization {
  /** The most that the token may hold. */
  allowed: readonly string[];
}
