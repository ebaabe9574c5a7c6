import type { Held } from '../kernel/actor.js';
import type { Key } from '../keyring/keyring.js';

/** What an access token says, whatever its format. Times are NumericDates: seconds since the Unix epoch. */
export interface AccessToken {
  /** `jti` */
  id: string;
  issuedAt: number;
  expiresAt: number;
  /** The service account. */
  clientId: string;
  organizationId: string;
  credentialId: string;
  scopes: readonly string[];
  audience: readonly string[];
  era: number;
  /** All that it hangs on, with the epochs at issue: organization, account, credential. */
  holds: readonly Held[];
}

/** A way to write an access token down. A new one is a file beside these and a line in `formats.ts`. */
export interface TokenFormat {
  /** As in the account's `token_format`. */
  readonly name: string;
  /** The keys that it is made with. */
  readonly purpose: 'token-seal' | 'token-sign';
  /** Whether the text has this format's form, by its shape alone. */
  recognises(text: string): boolean;
  seal(token: AccessToken, key: Key): string;
  /** The kid that a text of this form names; nothing of it is checked. */
  kidOf(text: string): string | undefined;
  /** What a text says that was made with this key; undefined for any other. Says nothing of expiry or revocation. */
  open(text: string, key: Key): AccessToken | undefined;
}
