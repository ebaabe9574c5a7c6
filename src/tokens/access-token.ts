import type { Holds } from '../kernel/actor.js';
import type { Key } from '../keyring/keyring.js';

/** What an access token says, whatever its format. Times are NumericDates: seconds since the Unix epoch. */
export interface AccessToken {
  /** `jti`; of a personal access token, which is its own credential, that credential's id. */
  id: string;
  issuedAt: number;
  expiresAt: number;
  /** The service account; null for a person's own token. */
  clientId: string | null;
  /** Whom the token stands for: the service account, or a person. The `sub` claim. */
  subjectId: string;
  organizationId: string;
  credentialId: string;
  scopes: readonly string[];
  audience: readonly string[];
  era: number;
  /** All that the token hangs on, with the epochs at issue. */
  holds: Holds;
  /** The one resource that the token reaches, when a person's grant limits it. */
  resource?: GrantedResource;
}

/** One company, and the organization that it belongs to, which a person's grant opened to a client. */
export interface GrantedResource {
  grantId: string;
  organizationId: string;
  companyId: string;
}

/** A personal access token is its own credential: there is nothing issued on it that had an id beside. */
export const isPersonal = ({ id, credentialId }: AccessToken) => id === credentialId;

export type ClientToken = AccessToken & { clientId: string };

interface Format {
  /** As in the account's `token_format`. */
  readonly name: string;
  /** Whether the text has this format's form, by its shape alone. */
  recognises(text: string): boolean;
}

/** The text holds the claims, made with a key of ours. An account can be set to such a format. */
export interface SealedFormat extends Format {
  /** The keys that it is made with. */
  readonly purpose: 'token-seal' | 'token-sign';
  seal(token: ClientToken, key: Key): string;
  /** The kid that a text of this form names; nothing of it is checked. */
  kidOf(text: string): string | undefined;
  /** What a text says that was made with this key; undefined for any other. Says nothing of expiry or revocation. */
  open(text: string, key: Key): ClientToken | undefined;
}

/** The text names and proves a row, which holds the claims. */
export interface RowFormat extends Format {
  /**
   * What the row says; undefined where there is none. Says nothing of expiry, and of revocation only what would be found nowhere else
   * (it throws TokenRejected). A promise only where the row has to be read.
   */
  read(text: string): AccessToken | undefined | Promise<AccessToken | undefined>;
}

/** A way to write an access token down. A new one is a file beside these and a line in `formats.ts`. */
export type TokenFormat = SealedFormat | RowFormat;
export const isSealed = (format: TokenFormat): format is SealedFormat => 'seal' in format;
