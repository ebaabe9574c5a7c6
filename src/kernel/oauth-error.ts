/** Errors of the OAuth endpoints: RFC 6749 §5.2, with the codes that RFC 6749, RFC 7009, RFC 8707 and, of a bearer token, RFC 6750 register. */
export const OAUTH_ERRORS = {
  invalid_request: 400,
  invalid_client: 401,
  invalid_grant: 400,
  unauthorized_client: 400,
  unsupported_grant_type: 400,
  unsupported_token_type: 400,
  invalid_scope: 400,
  invalid_target: 400,
  invalid_token: 401,
  insufficient_scope: 403,
  server_error: 500,
  temporarily_unavailable: 503,
} as const;
export type OAuthErrorCode = keyof typeof OAUTH_ERRORS;

export class OAuthError extends Error {
  override name = 'OAuthError';
  readonly status: number;

  /** `description` is fixed wording in %x20-21 / %x23-5B / %x5D-7E; it never repeats what was sent. */
  constructor(
    readonly code: OAuthErrorCode,
    readonly description: string,
    readonly options: { status?: number; headers?: Record<string, string>; cause?: unknown } = {},
  ) {
    super(description, { cause: options.cause });
    this.status = options.status ?? OAUTH_ERRORS[code];
  }
}

/**
 * The challenge of a 401 (RFC 9110 §11.6.1). Fastify keeps one value a header, and every part is fixed wording, so that no
 * caller's input stands in it. The error attribute keeps clients that look only at challenges informed.
 */
export const basicChallenge = 'Basic realm="gatehouse", charset="UTF-8", error="invalid_client"';

/** A client that authenticated and whose credential was found revoked before its request was done. */
export const clientRefused = () =>
  new OAuthError('invalid_client', 'Client authentication failed', { headers: { 'WWW-Authenticate': basicChallenge } });

/** RFC 6750 §3. Without an error for a request that carried no token. */
export function bearerChallenge(
  error?: 'invalid_request' | 'invalid_token' | 'insufficient_scope',
  description?: string,
  scope?: string,
): string {
  const parts = ['realm="gatehouse"'];
  if (error) parts.push(`error="${error}"`);
  if (description) parts.push(`error_description="${description}"`);
  if (scope) parts.push(`scope="${scope}"`);
  return `Bearer ${parts.join(', ')}`;
}
