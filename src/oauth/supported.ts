import { CREDENTIAL_KINDS as KINDS } from '../service-accounts/credentials/kinds.js';
import { TOKEN_FORMATS as FORMATS } from '../tokens/formats/formats.js';
import { ClientSecretBasic } from './client-auth/client-secret-basic.js';
import { ClientSecretPost } from './client-auth/client-secret-post.js';
import { PrivateKeyJwt } from './client-auth/private-key-jwt.js';
import { ClientCredentials } from './grants/client-credentials.js';

/**
 * Everything that the server speaks. Dispatch, metadata and what an account may be set to are computed from it; nothing else
 * names an entry. To add one: write its file, add its line.
 */
export const GRANTS = [ClientCredentials];
export const CLIENT_AUTH_METHODS = [ClientSecretBasic, ClientSecretPost, PrivateKeyJwt];
export const CREDENTIAL_KINDS = KINDS;
export const TOKEN_FORMATS = FORMATS;
