import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { DocumentBuilder, type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import type { FastifyInstance } from 'fastify';
import type { Config } from '../config/config.js';
import { PROBLEMS } from '../kernel/problem.js';
import { BUILT_IN_SCOPES } from '../kernel/scope.js';
import { servePage } from './page.js';

const TITLE = 'Gatehouse';
const METHODS = ['get', 'post', 'put', 'patch', 'delete'] as const;

/** `/openapi.json` and the reference page at `/docs`, from the classes that validate. */
export function serveDocs(app: NestFastifyApplication, config: Config): void {
  let document: OpenAPIObject | undefined;
  const make = () => (document ??= describe(app, config));
  SwaggerModule.setup('docs', app, make, { jsonDocumentUrl: 'openapi.json', raw: ['json'], ui: false });
  servePage(app.getHttpAdapter().getInstance() as unknown as FastifyInstance, config, `${TITLE} API`);
}

function describe(app: NestFastifyApplication, config: Config): OpenAPIObject {
  const builder = new DocumentBuilder()
    .setTitle(TITLE)
    .setVersion('1')
    .setDescription(
      'Service accounts, tokens and audit. Integrations need `POST /oauth/token` alone; admins and auditors the management API under `/api/v1`.\n\n' +
        `Scopes: ${Object.keys(BUILT_IN_SCOPES)
          .map((scope) => `\`${scope}\``)
          .join(', ')}, and those that the platform registers.`,
    )
    .setLicense('Apache-2.0', 'https://www.apache.org/licenses/LICENSE-2.0')
    .addServer(config.ISSUER_URL)
    .addBasicAuth(
      { type: 'http', scheme: 'basic', description: 'Client id and secret of a service account (RFC 6749 §2.3.1)' },
      'client',
    )
    .addBearerAuth(
      {
        type: 'http',
        scheme: 'bearer',
        bearerFormat: 'opaque or JWT',
        description: 'An access token of `POST /oauth/token` (RFC 6750), or a personal access token',
      },
      'bearer',
    )
    .addCookieAuth(
      config.https ? '__Host-session' : 'session',
      { type: 'apiKey', in: 'cookie', description: 'A signed-in person (`POST /api/v1/session`)' },
      'session',
    )
    .build();
  const document = SwaggerModule.createDocument(app, builder, { operationIdFactory: (_controller, method) => method });
  canonicalPathsOnly(document);
  describeHeaders(document);
  describeErrors(document);
  describeRateLimits(document);
  wholeNumbers(document.components?.schemas);
  wholeNumbers(document.paths);
  return document;
}

/** Aliases (D9) serve clients whose paths are fixed; a reader is shown one path an operation. */
function canonicalPathsOnly(document: OpenAPIObject): void {
  const seen = new Set<string>();
  for (const [path, item] of Object.entries(document.paths)) {
    const aliasOfRoot = !path.startsWith('/api/v1/') && `/api/v1${path}` in document.paths;
    for (const method of METHODS) {
      const operation = item[method];
      if (!operation) continue;
      const id = operation.operationId ?? '';
      if (aliasOfRoot || seen.has(id) || path.startsWith('/realms/')) delete item[method];
      else seen.add(id);
    }
    if (Object.keys(item).length === 0) delete document.paths[path];
  }
}

/** What callers may send beside parameters and body, and who need send no credential. */
function describeHeaders(document: OpenAPIObject): void {
  for (const [path, item] of Object.entries(document.paths)) {
    for (const method of METHODS) {
      const operation = item[method];
      if (!operation) continue;
      const isPublic = operation.security === undefined;
      operation.security ??= [];
      if (isPublic || !path.startsWith('/api/v1/')) continue;
      operation.parameters ??= [];
      if (method === 'post' && '201' in operation.responses) {
        operation.parameters.push({
          name: 'Idempotency-Key',
          in: 'header',
          required: false,
          description:
            'A repeat with the same key within 24 hours creates nothing and answers what the first did, but for a secret.',
          schema: { type: 'string', minLength: 1, maxLength: 255 },
        });
      }
      operation.parameters.push({
        name: 'X-Organization-Id',
        in: 'header',
        required: false,
        description: 'With a bearer token that holds `platform:admin`: the organization to act in.',
        schema: { type: 'string', format: 'uuid' },
      });
    }
  }
}

/** What is authenticated is charged to an organization: guarded routes, and the token endpoint. */
const isCharged = ({ security }: { security?: object[] }) => security !== undefined && security.length > 0;

/** E9: these headers stand in every answer to a request that was charged, whatever came of it. */
function describeRateLimits(document: OpenAPIObject): void {
  const whole = (description: string) => ({ description, schema: { type: 'integer' as const } });
  document.components ??= {};
  document.components.headers = {
    'X-RateLimit-Limit': whole(
      'Requests that the organization may make in a window, all its accounts and people together.',
    ),
    'X-RateLimit-Remaining': whole('Those that are left in this window.'),
    'X-RateLimit-Reset': whole('Seconds until the next window begins.'),
    'Retry-After': whole('Seconds to wait.'),
  };
  const named = (...names: string[]) =>
    Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]));
  for (const item of Object.values(document.paths)) {
    for (const method of METHODS) {
      const operation = item[method];
      if (!operation) continue;
      for (const [status, response] of Object.entries(operation.responses)) {
        if (!response || '$ref' in response) continue;
        const limits = isCharged(operation) && !['401', '413', '415', '503'].includes(status);
        response.headers = {
          ...response.headers,
          ...(limits && named('X-RateLimit-Limit', 'X-RateLimit-Remaining', 'X-RateLimit-Reset')),
          ...((status === '429' || status === '503') && named('Retry-After')),
        };
        if (Object.keys(response.headers).length === 0) delete response.headers;
      }
    }
  }
}

/** Every number on this wire is a whole one; TypeScript, from which the schemas come, has no such type. */
function wholeNumbers(node: unknown): void {
  if (typeof node !== 'object' || node === null) return;
  const schema = node as { type?: unknown };
  if (schema.type === 'number') schema.type = 'integer';
  for (const child of Object.values(node)) wholeNumbers(child);
}

/** Every operation can fail in these ways; the body is one shape, its `code` is stable. */
function describeErrors(document: OpenAPIObject): void {
  document.components ??= {};
  document.components.schemas ??= {};
  document.components.schemas.Problem = {
    type: 'object',
    description: 'RFC 9457 problem details.',
    required: ['type', 'title', 'status', 'code', 'request_id'],
    properties: {
      type: { type: 'string', example: 'about:blank' },
      title: { type: 'string' },
      status: { type: 'integer' },
      code: {
        type: 'string',
        enum: Object.keys(PROBLEMS),
        description: Object.entries(PROBLEMS)
          .map(([code, [status, title]]) => `\`${code}\` (${status}): ${title}.`)
          .join(' '),
      },
      detail: { type: 'string' },
      errors: {
        type: 'array',
        items: {
          type: 'object',
          required: ['field', 'message'],
          properties: { field: { type: 'string' }, message: { type: 'string' } },
        },
      },
      request_id: { type: 'string', format: 'uuid' },
    },
  };
  const body = { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } };
  const answers: Record<string, string> = {
    400: 'The request is not valid',
    401: 'No credential, or one that is not accepted; `WWW-Authenticate` says which',
    403: 'The caller may not do this',
    404: 'There is no such thing here',
    409: 'It is in conflict with what is there',
    412: 'It was changed since: `If-Match` names another version',
    413: 'The body is over 64 KiB',
    415: 'The body is not application/json in UTF-8',
    422: 'It is well formed and cannot be done',
    429: "Too many attempts, or the organization's rate limit is used up; `Retry-After` says how long to wait",
    503: 'The service cannot answer safely at the moment; nothing was changed',
  };
  for (const [path, item] of Object.entries(document.paths)) {
    if (!path.startsWith('/api/v1/')) continue;
    for (const method of METHODS) {
      const operation = item[method];
      if (!operation) continue;
      const takes = (header: string) =>
        operation.parameters?.some((parameter) => 'name' in parameter && parameter.name === header);
      const statuses = [
        '400',
        '401',
        '403',
        '503',
        ...(isCharged(operation) || method !== 'get' ? ['429'] : []),
        ...(path.includes('{') ? ['404'] : []),
        ...(method === 'get' ? [] : ['404', '409', '413', '415', '422']),
        ...(takes('If-Match') ? ['412'] : []),
      ];
      if (takes('If-None-Match'))
        operation.responses['304'] ??= { description: 'It is still what `If-None-Match` names' };
      for (const status of statuses) operation.responses[status] ??= { description: answers[status], content: body };
    }
  }
}
