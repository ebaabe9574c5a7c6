import { PersonalAccessTokenKind } from './personal-access-token.js';
import { PublicKeyKind } from './public-key.js';
import { SecretKind } from './secret.js';

/** The kinds of credential. `oauth/supported.ts` shows them beside the grants, client-authentication methods and token formats. */
export const CREDENTIAL_KINDS = [SecretKind, PublicKeyKind, PersonalAccessTokenKind];
