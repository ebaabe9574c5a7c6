import type { AuthenticatedClient, Refusal, Refused } from '../../service-accounts/clients.js';
import type { OAuthRequest } from '../token-request.js';

/** A way for a client to authenticate. A new one is a file beside these and a line in `supported.ts`. */
export interface ClientAuthMethod {
  /** As IANA registers it: `client_secret_basic`. */
  readonly name: string;
  /** The JWS algorithms of a method that signs, for the metadata. */
  readonly signingAlgorithms?: readonly string[];
  /** Whether this request uses the method, by what it carries, right or wrong. More than one that says yes is RFC 6749 §2.3's error. */
  uses(request: OAuthRequest): boolean;
  /** Which credential the request proves. Throws invalid_request where the method's own parameters are not well formed. */
  prove(request: OAuthRequest): Promise<Attempt>;
}

/** The outcome of an attempt, and whom it claimed to be. */
export interface Attempt {
  /** The client id as sent; for the log only. */
  claimed: string | undefined;
  outcome: AuthenticatedClient | (Omit<Refused, 'refused'> & { refused: Refusal | AssertionFault });
  /** What of the attempt the log may hold beside the reason, by name. */
  noted?: Readonly<Record<string, string>>;
}

/** What is wrong with an assertion, whoever signed it. Those from `wrong_issuer` on are judged when the signature was found right. */
export type AssertionFault =
  | 'malformed_assertion'
  | 'unsupported_algorithm'
  | 'wrong_issuer'
  | 'wrong_audience'
  | 'incomplete_assertion'
  | 'expired_assertion'
  | 'assertion_lives_too_long'
  | 'assertion_from_the_future'
  | 'replayed_assertion';
