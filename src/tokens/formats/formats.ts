import { JwtFormat } from './jwt.js';
import { OpaqueFormat } from './opaque.js';
import { PersonalAccessTokenFormat } from './personal-access-token.js';

/** The token formats, the default first. `oauth/supported.ts` shows them beside the grants and client-authentication methods. */
export const TOKEN_FORMATS = [OpaqueFormat, JwtFormat, PersonalAccessTokenFormat];
