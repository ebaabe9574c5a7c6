import 'reflect-metadata';
import type { Server } from 'node:http';
import { type LoggerService, ValidationPipe } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { ErrorFilter, validationProblem } from './access/error.filter.js';
import { AppModule } from './app.module.js';
import type { Config } from './config/config.js';
import type { PostgresConnection } from './database/database.module.js';
import { serveDocs } from './docs/openapi.js';
import { uuidv7 } from './kernel/ids.js';
import { OAuthError } from './kernel/oauth-error.js';
import { problem } from './kernel/problem.js';
import { countValues, everyString, isStorableText } from './kernel/text.js';
import { isOAuthRequest } from './oauth/paths.js';
import { MAX_BODY, parseForm, parseJson } from './oauth/token-request.js';

const BODY_LIMIT = 64 * 1024;
/** More than any body of ours holds. Checking a value costs far more than reading it, and nobody else is answered meanwhile. */
const MAX_VALUES = 2000;
const GRACE_MS = 10_000;
/** class-transformer passes over these without a word, and an unknown field is to be a 400. */
const IGNORED_NAMES = new Set(Object.getOwnPropertyNames(Object.prototype));

/** The application, ready to listen but for the start of its modules: parsers, headers, errors and documentation in place. */
export async function createApp(
  config: Config,
  connection: PostgresConnection,
  log: Logger,
): Promise<NestFastifyApplication> {
  const errors = new ErrorFilter(isOAuthRequest);
  const adapter = new FastifyAdapter({
    frameworkErrors: (error: Error, request: FastifyRequest, reply: FastifyReply) =>
      errors.answer(error, request, reply),
    bodyLimit: BODY_LIMIT,
    genReqId: () => uuidv7(Date.now()),
    trustProxy: config.TRUSTED_PROXIES.length > 0 ? config.TRUSTED_PROXIES : false,
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 200 },
    // Slow headers, slow bodies and idle connections are closed (DS-02).
    requestTimeout: 15_000,
    connectionTimeout: 30_000,
    keepAliveTimeout: 72_000,
    http: { headersTimeout: 10_000, connectionsCheckingInterval: 5_000 },
  });
  const fastify = adapter.getInstance() as unknown as FastifyInstance;
  parseBodies(fastify);
  setHeaders(fastify, config);
  refuseNul(fastify);
  logRequests(fastify, log);
  const app = await NestFactory.create<NestFastifyApplication>(AppModule.forRoot(config, connection), adapter, {
    logger: nestLogger(log),
    bodyParser: false,
    abortOnError: false,
  });
  app.useGlobalFilters(errors);
  app.useGlobalPipes(
    new ValidationPipe({
      whitelist: true,
      forbidNonWhitelisted: true,
      transform: true,
      stopAtFirstError: true,
      exceptionFactory: validationProblem,
    }),
  );
  serveDocs(app, config);
  return app;
}

/** Flat and strict for OAuth endpoints, JSON in UTF-8 without NUL or lone surrogates for all else. Any other type is 415. */
function parseBodies(fastify: FastifyInstance): void {
  const oauth = (request: FastifyRequest, body: Buffer, parse: (body: Buffer) => unknown) => {
    if (body.length > MAX_BODY) throw new OAuthError('invalid_request', 'The body is over 16 KiB', { status: 413 });
    assertUtf8(request);
    return parse(body);
  };
  fastify.removeAllContentTypeParsers();
  fastify.addContentTypeParser<Buffer>(
    'application/x-www-form-urlencoded',
    { parseAs: 'buffer' },
    async (request: FastifyRequest, body: Buffer) => {
      // Fastify parses before it says 404: a token request to a path that is none must not be told to change its type.
      if (!isOAuthRequest(request)) throw problem(request.is404 ? 'not_found' : 'unsupported_media_type');
      return oauth(request, body, parseForm);
    },
  );
  fastify.addContentTypeParser<Buffer>(
    'application/json',
    { parseAs: 'buffer' },
    async (request: FastifyRequest, body: Buffer) => {
      if (isOAuthRequest(request)) return oauth(request, body, parseJson);
      assertUtf8(request);
      if (body.length === 0) return undefined;
      const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
      let value: unknown;
      try {
        value = JSON.parse(text.decode(body));
      } catch (cause) {
        throw problem('malformed_request', { detail: 'The body is not JSON in UTF-8', cause });
      }
      if (typeof value !== 'object' || value === null || Array.isArray(value))
        throw problem('malformed_request', 'The body must be a JSON object');
      if (!everyString(value, (item, isName) => isStorableText(item) && !(isName && IGNORED_NAMES.has(item))))
        throw problem(
          'malformed_request',
          'The body is nested too deep, or holds a text or a member name that cannot be one',
        );
      if (countValues(value) > MAX_VALUES)
        throw problem('malformed_request', `The body holds more than ${MAX_VALUES} values`);
      return value;
    },
  );
}

function assertUtf8(request: FastifyRequest): void {
  const charset = /;\s*charset\s*=\s*"?([^";\s]*)/i.exec(request.headers['content-type'] ?? '')?.[1];
  if (charset !== undefined && !/^utf-?8$/i.test(charset)) throw problem('unsupported_media_type');
}

/**
 * What every answer carries: nothing of it may be kept, framed, sniffed or run as a page. What may be kept, or is a page, says so
 * itself. @fastify/helmet computes a dozen headers anew for each request: a tenth of the time that an issuance took.
 */
function setHeaders(fastify: FastifyInstance, config: Config): void {
  const headers = {
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'content-security-policy':
      "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; object-src 'none'; form-action 'none'",
    'referrer-policy': 'no-referrer',
    ...(config.https && { 'strict-transport-security': 'max-age=31536000' }),
  };
  fastify.addHook('onRequest', (request, reply, done) => {
    reply.headers(headers).header('x-request-id', request.id);
    done();
  });
}

/** PostgreSQL has no NUL in a text. A URL has one way to write it, and no lone surrogates: what is decoded from UTF-8 holds none. */
function refuseNul(fastify: FastifyInstance): void {
  fastify.addHook('onRequest', (request, _reply, done) =>
    done(request.url.includes('%00') ? problem('malformed_request', 'The URL holds a NUL') : undefined),
  );
}

/** One line a request, with its id and without query, headers or body. Successes are at `debug`: the audit log has what was done. */
function logRequests(fastify: FastifyInstance, log: Logger): void {
  fastify.addHook('onResponse', (request, reply, done) => {
    const level = reply.statusCode >= 500 ? 'error' : reply.statusCode >= 400 ? 'info' : 'debug';
    if (log.isLevelEnabled(level)) {
      log[level](
        {
          request_id: request.id,
          method: request.method,
          path: request.url.split('?', 1)[0],
          status: reply.statusCode,
          ms: Math.round(reply.elapsedTime * 10) / 10,
          address: request.ip,
        },
        'request',
      );
    }
    done();
  });
}

/** Nest's own messages through pino. Its route table and module list are of no use to who runs the service. */
function nestLogger(log: Logger): LoggerService {
  const write =
    (level: 'error' | 'warn' | 'debug') =>
    (message: unknown, ...rest: unknown[]) => {
      const context = rest.pop();
      log[level](
        typeof message === 'object' ? { context, ...message } : { context, ...(rest[0] ? { stack: rest[0] } : {}) },
        typeof message === 'object' ? undefined : String(message),
      );
    };
  return {
    log: write('debug'),
    error: write('error'),
    warn: write('warn'),
    debug: write('debug'),
    verbose: write('debug'),
    fatal: write('error'),
  };
}

/**
 * Stops accepting, lets requests in flight end, then ends every module. A keep-alive connection whose last request ends after close
 * began would idle until its timeout, so idle ones are swept, and whatever is left after ten seconds is cut.
 */
export async function drain(app: NestFastifyApplication): Promise<void> {
  const server = app.getHttpServer() as Server;
  const sweep = setInterval(() => server.closeIdleConnections(), 50);
  const cut = setTimeout(() => server.closeAllConnections(), GRACE_MS);
  try {
    await app.close();
  } finally {
    clearInterval(sweep);
    clearTimeout(cut);
  }
}
