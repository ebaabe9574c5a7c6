/**
 * Every error of the management API and the protected resources: RFC 9457 problem details with a stable `code`.
 * The caller reads this fixed wording; the real reason goes to the log with the request id.
 */
export const PROBLEMS = {
  malformed_request: [400, 'The request cannot be read'],
  validation_failed: [400, 'The request has fields that are not valid'],
  invalid_cursor: [400, 'The cursor belongs to another list, or is none'],
  invalid_parameter: [400, 'A parameter is not valid'],
  unauthenticated: [401, 'Sign in, or send an access token'],
  invalid_token: [401, 'The access token is not accepted'],
  invalid_credentials: [401, 'The e-mail address or the password is wrong'],
  insufficient_scope: [403, 'This needs a scope that the caller does not hold'],
  scope_not_held: [403, 'Nobody grants what they do not hold'],
  reauthentication_required: [403, 'Prove who you are again: POST /api/v1/session/reauthenticate'],
  password_change_required: [403, 'Choose a password of your own first: PATCH /api/v1/users/me'],
  cross_origin: [403, 'A change by session cookie must come from this site'],
  session_required: [403, 'Only a signed-in person may do this'],
  not_found: [404, 'There is no such thing here'],
  method_not_allowed: [405, 'This path does not have that method'],
  name_taken: [409, 'The name is in use'],
  key_exists: [409, 'The account has this key already, or had it'],
  already_member: [409, 'This person is a member already'],
  disabled_from_above: [409, 'It was disabled from above, and is enabled from there'],
  last_admin: [409, 'An organization keeps at least one admin'],
  external_id_taken: [409, 'Another employee of the company has this external_id'],
  in_use: [409, 'It is still in use'],
  idempotency_key_in_use: [409, 'A request with this Idempotency-Key is still at work'],
  precondition_failed: [412, 'It is not as If-Match wants it: read it again'],
  payload_too_large: [413, 'The body is too large'],
  unsupported_media_type: [415, 'The body must be application/json in UTF-8'],
  limit_reached: [422, 'A limit is reached'],
  key_not_revocable: [422, 'This key cannot be revoked'],
  scope_unknown: [422, 'There is no such scope'],
  scope_beyond_ceiling: [422, "A scope lies beyond the organization's ceiling"],
  idempotency_key_reused: [422, 'This Idempotency-Key was used with another request'],
  too_many_attempts: [429, 'Too many attempts'],
  rate_limited: [429, "The organization's rate limit is used up"],
  internal_error: [500, 'Something went wrong here'],
  temporarily_unavailable: [503, 'The service cannot answer safely at the moment'],
} as const satisfies Record<string, readonly [number, string]>;

export type ProblemCode = keyof typeof PROBLEMS;

export interface FieldError {
  field: string;
  message: string;
}

export interface ProblemOptions {
  /** More for the caller than the title says. Never holds what the caller sent. */
  detail?: string;
  errors?: FieldError[];
  /** Response headers: `Retry-After`, `WWW-Authenticate`. */
  headers?: Record<string, string>;
  cause?: unknown;
}

export class Problem extends Error {
  override name = 'Problem';
  readonly status: number;
  readonly title: string;

  constructor(
    readonly code: ProblemCode,
    readonly options: ProblemOptions = {},
  ) {
    super(options.detail ?? PROBLEMS[code][1], { cause: options.cause });
    [this.status, this.title] = PROBLEMS[code];
  }
}

/** `throw problem('not_found')`. */
export const problem = (code: ProblemCode, options?: ProblemOptions | string) =>
  new Problem(code, typeof options === 'string' ? { detail: options } : options);

/** Thrown where the service could only guess: it answers 503 and changes nothing. */
export class Unavailable extends Error {
  override name = 'Unavailable';
  constructor(
    message: string,
    /** Seconds for `Retry-After`. */
    readonly retryAfter = 1,
    cause?: unknown,
  ) {
    super(message, { cause });
  }
}
