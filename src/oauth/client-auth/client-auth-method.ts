import type { AuthenticatedClient, Refused } from '../../service-accounts/clients.js';
import type { OAuthRequest } from '../token-request.js';

/** A way for a client to authenticate. A new one is a file beside these and a line in `supported.ts`. */
export interface ClientAuthMethod {
  /** As IANA registers it: `client_secret_basic`. */
  readonly name: string;
  /** Whether this request uses the method, by what it carries, right or wrong. More than one that says yes is RFC 6749 §2.3's error. */
  uses(request: OAuthRequest): boolean;
  /** Which credential the request proves. */
  prove(request: OAuthRequest): Promise<Attempt>;
}

/** The outcome of an attempt, and whom it claimed to be. */
export interface Attempt {
  /** The client id as sent; for the log only. */
  claimed: string | undefined;
  outcome: AuthenticatedClient | Refused;
}
