import { applyDecorators, HttpCode, Post, type Type } from '@nestjs/common';
import {
  ApiBasicAuth,
  ApiBody,
  ApiConsumes,
  ApiOkResponse,
  ApiOperation,
  ApiResponse,
  type ApiResponseNoStatusOptions,
  ApiSecurity,
} from '@nestjs/swagger';
import type { FastifyReply } from 'fastify';
import { Public } from '../access/access.js';
import { OAuthErrorBody } from './oauth.dto.js';

interface Endpoint {
  operationId: string;
  summary: string;
  description: string;
  body: Type;
  ok: ApiResponseNoStatusOptions;
  /** What a refusal means here, by status: where it differs from {@link REFUSALS}, or is one more. */
  refusals?: Readonly<Record<number, string>>;
}

const REFUSALS: Endpoint['refusals'] = {
  400: 'The request is not valid (RFC 6749 §5.2)',
  401: 'Client authentication failed',
  413: 'The body is over 16 KiB',
  415: 'The body has another media type',
  429: "Too many failed attempts from this address, or the organization's rate limit is used up",
  503: 'It could not be recorded, or revocations not be seen',
};

/** A POST endpoint at which clients authenticate: its paths, and all that it takes and says. */
export const OAuthEndpoint = (
  paths: readonly string[],
  { operationId, summary, description, body, ok, refusals }: Endpoint,
): MethodDecorator =>
  applyDecorators(
    Post([...paths]),
    Public({ crossOrigin: true }),
    HttpCode(200),
    ApiOperation({ operationId, summary, description }),
    ApiConsumes('application/x-www-form-urlencoded', 'application/json'),
    ApiBody({ type: body }),
    ApiBasicAuth('client'),
    ApiSecurity({}), // the credentials may stand in the body
    ApiOkResponse(ok),
    ...Object.entries({ ...REFUSALS, ...refusals }).map(([status, description]) =>
      ApiResponse({ status: Number(status), type: OAuthErrorBody, description }),
    ),
  );

/** What every answer with or about a token is like (RFC 6749 §5.1): JSON that nobody keeps. */
export function answer(reply: FastifyReply, body: object): void {
  void reply
    .code(200)
    .header('cache-control', 'no-store')
    .header('pragma', 'no-cache')
    .type('application/json')
    .send(body);
}
