import { applyDecorators, HttpCode, Post, type Type } from '@nestjs/common';
import type { HttpAdapterHost } from '@nestjs/core';
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
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
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

/**
 * Lets Fastify call the handler of these POST paths itself. Nest still declares the routes, with their policy and their OpenAPI; only
 * its router, guards and response handling, which cost a third of an issuance, are left out. That changes no rule: the guard lets every
 * caller of an OAuth endpoint pass, no pipe applies to it, and errors reach the one error filter by Fastify's error handler. It is to be
 * called before Nest registers its routes, that is from the constructor of a controller.
 */
export function handleNatively(
  { httpAdapter }: HttpAdapterHost,
  paths: readonly string[],
  handler: (request: FastifyRequest, reply: FastifyReply) => Promise<void>,
): void {
  const urls = new Set(paths.map((path) => `/${path}`));
  // A command of the CLI has no HTTP.
  httpAdapter?.getInstance<FastifyInstance>().addHook('onRoute', (route) => {
    if (route.method === 'POST' && urls.has(route.url)) route.handler = handler;
  });
}

/** Answers with JSON that nobody may keep, as every answer with or about a token is (RFC 6749 §5.1). `body`: JSON, or what becomes it. */
export function answer(reply: FastifyReply, body: object | string): void {
  void reply
    .code(200)
    .header('cache-control', 'no-store')
    .header('pragma', 'no-cache')
    .type('application/json')
    .send(body);
}
