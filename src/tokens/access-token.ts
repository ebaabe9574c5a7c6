import type { Held } from '../kernel/actor.js';

/** What an access token says, whatever its format. Times are NumericDates: seconds since the Unix epoch. */
export interface AccessToken {
  /** `jti`; of a personal access token, which is its own credential, that credential's id. */
  id: string;
  issuedAt: number;
  expiresAt: number;
  /** The service account; null for a person's own token. */
  clientId: string | null;
  organizationId: string;
  credentialId: string;
  scopes: readonly string[];
  audience: readonly string[];
  era: number;
  /** All that it hangs on, with the epochs at issue: organization, owner (an account, or a person's membership), credential. */
  holds: readonly Held[];
}

/** A personal access token is its own credential: there is nothing issued on it that had an id beside. */
export const isPersonal = ({ id, credentialId }: AccessToken) => id === credentialId;

export type ClientToken = AccessToken & { clientId: string };

/** A way to write an access token down. A new one is a file beside these and a line in `formats.ts`. */
export interface TokenFormat {
  /** As in the account's `token_format`. */
  readonly name: string;
  /** Whether the text has this format's form, by its shape alone. */
  recognises(text: string): boolean;
  /** Absent: the text does not hold the claims. An account cannot be set to such a format, and what was opened is not remembered. */
  seal?(token: ClientToken): string;
  /**
   * What a text says that this server has made; undefined for any other. Says nothing of expiry, and of revocation only what would
   * be found nowhere else (it throws TokenRejected). A promise only where a row has to be read.
   */
  open(text: string): AccessToken | undefined | Promise<AccessToken | undefined>;
}
