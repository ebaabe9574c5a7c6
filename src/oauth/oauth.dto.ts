import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { OAUTH_ERRORS } from '../kernel/oauth-error.js';

/** RFC 6749 §4.4.2. Read by a parser of its own (`token-request.ts`): every parameter is a string, and stands there once but for `resource`. */
export class TokenRequest {
  /** `client_credentials` */
  @ApiProperty({ example: 'client_credentials' })
  grant_type: string;

  /** Scope tokens, separated by spaces. Left out: all that the account may use. */
  @ApiPropertyOptional({ example: 'companies:read companies:write' })
  scope?: string;

  /**
   * RFC 8707: the API that the token is for, out of those that the account is set to; may be repeated. Left out: this platform's own.
   * An account that is set to none need not know: what it sends is ignored.
   */
  @ApiPropertyOptional({ example: 'https://orders.example.com' })
  resource?: string;

  /** With `client_secret`, instead of HTTP Basic. */
  @ApiPropertyOptional()
  client_id?: string;

  /** With `client_id`, instead of HTTP Basic. */
  @ApiPropertyOptional({ format: 'password' })
  client_secret?: string;

  /** With `client_assertion`, instead of a secret (RFC 7523). */
  @ApiPropertyOptional({ enum: ['urn:ietf:params:oauth:client-assertion-type:jwt-bearer'] })
  client_assertion_type?: string;

  /**
   * A JWT that the client signed with one of its keys: `iss` and `sub` are the client id, `aud` the issuer or this endpoint's URL, `exp`
   * at most 300 seconds ahead, `jti` new for each request.
   */
  @ApiPropertyOptional({ format: 'password', maxLength: 8192 })
  client_assertion?: string;
}

export class TokenResponse {
  /** Opaque (`client_oa2_live_…`) or a JWT (RFC 9068), as the account is set. */
  access_token: string;

  @ApiProperty({ enum: ['Bearer'] })
  token_type: string;

  /** Seconds. */
  @ApiProperty({ type: 'integer', example: 3600 })
  expires_in: number;

  /** What the token holds. */
  scope: string;
}

/** Any client authentication goes, as at the token endpoint; these are the members that stand in a body. */
class ClientCredentialsInBody {
  /** With `client_secret`, instead of HTTP Basic. */
  @ApiPropertyOptional()
  client_id?: string;

  /** With `client_id`, instead of HTTP Basic. */
  @ApiPropertyOptional({ format: 'password' })
  client_secret?: string;
}

/** RFC 7662 §2.1, RFC 7009 §2.1 */
export class PresentedToken extends ClientCredentialsInBody {
  /** An access token, in either format. */
  @ApiProperty()
  token: string;

  /** Needed by nobody here: a token tells by itself what it is. */
  @ApiPropertyOptional({ example: 'access_token' })
  token_type_hint?: string;
}

/** RFC 7662 §2.2. A token that is not active is told of in `active` alone. */
export class Introspection {
  active: boolean;

  iss?: string;

  /** The service account's id; of a person's own token (E7), the person's. */
  sub?: string;

  /** Whom the token is for: an API accepts it only if this names that API. One as a string, several as a list. */
  @ApiPropertyOptional({ oneOf: [{ type: 'string' }, { type: 'array', items: { type: 'string' } }] })
  aud?: string | string[];

  /** Absent for a person's own token. */
  client_id?: string;

  /** What it may be used for now: what it was issued with, less what its account may not use any more. */
  scope?: string;

  /** Seconds since the Unix epoch, as `iat`. */
  @ApiPropertyOptional({ type: 'integer' })
  exp?: number;

  @ApiPropertyOptional({ type: 'integer' })
  iat?: number;

  jti?: string;

  @ApiPropertyOptional({ enum: ['Bearer'] })
  token_type?: string;

  /** The organization that the account belongs to. */
  org_id?: string;

  /** The credential that the token was issued on, and dies with: its id, not its value. */
  credential_id?: string;
}

/** RFC 6749 §5.2 */
export class OAuthErrorBody {
  @ApiProperty({ enum: Object.keys(OAUTH_ERRORS) })
  error: string;

  error_description: string;
}
