import {
  type ArgumentsHost,
  Catch,
  type ExceptionFilter,
  HttpException,
  Logger,
  type ValidationError,
} from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { isConnectionError, sqlState } from '../changes/changes.js';
import { OAuthError } from '../kernel/oauth-error.js';
import { type FieldError, Problem, type ProblemCode, problem, Unavailable } from '../kernel/problem.js';

/** Faults of the framework and of its body parser, by their status. */
const BY_STATUS: Record<number, ProblemCode> = {
  400: 'malformed_request',
  404: 'not_found',
  405: 'method_not_allowed',
  413: 'payload_too_large',
  414: 'malformed_request',
  415: 'unsupported_media_type',
  503: 'temporarily_unavailable',
};

/**
 * Every error leaves through here: RFC 6749 §5.2 on OAuth paths, RFC 9457 elsewhere. The caller reads fixed wording; what went wrong
 * goes to the log with the request id.
 */
@Catch()
export class ErrorFilter implements ExceptionFilter {
  private readonly log = new Logger('Error');

  /** `speaksOAuth` tells of a request which form its errors take. */
  constructor(private readonly speaksOAuth: (request: FastifyRequest) => boolean) {}

  catch(thrown: unknown, host: ArgumentsHost): void {
    this.answer(
      thrown,
      host.switchToHttp().getRequest<FastifyRequest>(),
      host.switchToHttp().getResponse<FastifyReply>(),
    );
  }

  /** Also for what fails before a route is found: a path that cannot be decoded. */
  answer(thrown: unknown, request: FastifyRequest, reply: FastifyReply): void {
    if (reply.sent) return;
    const error = thrown instanceof OAuthError ? thrown : asProblem(thrown);
    if (error.status >= 500) {
      const cause = thrown instanceof Error ? (thrown.cause ?? thrown) : thrown;
      this.log.error({
        request_id: request.id,
        status: error.status,
        message: String((cause as Error)?.message ?? cause),
        stack: error.status === 500 ? (cause as Error)?.stack : undefined,
      });
    }
    reply.header('cache-control', 'no-store');
    if (error instanceof OAuthError || this.speaksOAuth(request)) this.asOAuth(error, reply);
    else this.asProblemDetails(error, request, reply);
  }

  private asOAuth(error: OAuthError | Problem, reply: FastifyReply): void {
    const oauth = error instanceof OAuthError ? error : toOAuth(error);
    reply.headers({ pragma: 'no-cache', ...oauth.options.headers });
    void reply
      .code(oauth.status)
      .type('application/json')
      .send({ error: oauth.code, error_description: oauth.description });
  }

  private asProblemDetails(error: Problem, request: FastifyRequest, reply: FastifyReply): void {
    const { detail, errors, headers } = error.options;
    reply.headers(headers ?? {});
    void reply
      .code(error.status)
      .type('application/problem+json')
      .send(
        JSON.stringify({
          type: 'about:blank',
          title: error.title,
          status: error.status,
          code: error.code,
          detail,
          errors,
          request_id: request.id,
        }),
      );
  }
}

/** 500 for what nobody thought of; 503 for a database that is away. */
function asProblem(thrown: unknown): Problem {
  if (thrown instanceof Problem) return thrown;
  if (thrown instanceof Unavailable)
    return problem('temporarily_unavailable', { headers: { 'Retry-After': String(thrown.retryAfter) }, cause: thrown });
  const state = sqlState(thrown);
  if (isConnectionError(thrown) || (state && /^(08|53|57|58)/.test(state))) {
    return problem('temporarily_unavailable', { headers: { 'Retry-After': '1' }, cause: thrown });
  }
  const status = thrown instanceof HttpException ? thrown.getStatus() : (thrown as { statusCode?: number })?.statusCode;
  return problem(BY_STATUS[status ?? 500] ?? (status && status < 500 ? 'malformed_request' : 'internal_error'), {
    cause: thrown,
  });
}

function toOAuth(error: Problem): OAuthError {
  const options = { status: error.status, headers: error.options.headers };
  if (error.status === 503)
    return new OAuthError('temporarily_unavailable', 'The service cannot answer safely at the moment', options);
  if (error.status >= 500) return new OAuthError('server_error', 'Something went wrong here', options);
  if (error.status === 429) return new OAuthError('temporarily_unavailable', error.title, options);
  const description =
    error.status === 415
      ? 'The body must be application/x-www-form-urlencoded or application/json'
      : error.title.replace(/["\\]/g, '');
  return new OAuthError('invalid_request', description, options);
}

/** class-validator's findings as the problem `validation_failed`: which field, what is wrong with it; never the value. */
export function validationProblem(faults: ValidationError[]): Problem {
  const worded = (rule: string, message: string, value: unknown) => {
    if (rule === 'whitelistValidation') return 'is not a field of this request';
    // An absent field breaks each of its rules, and the one that class-validator names first says nothing of that.
    return value === undefined ? 'is required' : message;
  };
  const flatten = (fault: ValidationError, path: string): FieldError[] => [
    ...Object.entries(fault.constraints ?? {}).map(([rule, message]) => ({
      field: path,
      message: worded(rule, message, fault.value),
    })),
    ...(fault.children ?? []).flatMap((child) => flatten(child, `${path}.${child.property}`)),
  ];
  // A member name comes from the caller: what is no field name of ours is not repeated.
  const field = (name: string) => (/^[a-z_0-9.]{1,128}$/.test(name) ? name : '(unknown)');
  return problem('validation_failed', {
    errors: faults
      .flatMap((fault) => flatten(fault, fault.property))
      .map((entry) => ({ ...entry, field: field(entry.field) })),
  });
}
