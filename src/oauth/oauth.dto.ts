import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { OAUTH_ERRORS } from '../kernel/oauth-error.js';

/** RFC 6749 §4.4.2. Read by a parser of its own (`token-request.ts`): every parameter is a string and stands there once. */
export class TokenRequest {
  /** `client_credentials` */
  @ApiProperty({ example: 'client_credentials' })
  grant_type: string;

  /** Scope tokens, separated by spaces. Left out: all that the account may use. */
  @ApiPropertyOptional({ example: 'companies:read companies:write' })
  scope?: string;

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

/** RFC 6749 §5.2 */
export class OAuthErrorBody {
  @ApiProperty({ enum: Object.keys(OAUTH_ERRORS) })
  error: string;

  error_description: string;
}
