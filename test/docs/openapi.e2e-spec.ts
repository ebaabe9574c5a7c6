import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { createConfig, lintFromString } from '@redocly/openapi-core';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { freePort, ServiceProcess, serviceEnvironment, TestService } from '../support/service.js';

// The schemas come from a compiler plugin that runs in the build alone, so the document is asked of a process of it.
type Schema = {
  type?: string;
  $ref?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  [key: string]: unknown;
};
type Parameter = { name: string; in: string; required?: boolean; schema: Schema };
type Content = Record<string, { schema: Schema }>;
interface Operation {
  operationId: string;
  summary: string;
  tags: string[];
  parameters: Parameter[];
  security: Record<string, string[]>[];
  requestBody?: { content: Content };
  responses: Record<string, { description: string; content?: Content; headers?: Record<string, unknown> }>;
}

let database: TestDatabase;
let service: ServiceProcess;
let text: string;
let headers: Headers;
let document: {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema>; securitySchemes: Record<string, Record<string, unknown>> };
};
const operations = () =>
  Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({
      path,
      method,
      name: `${method.toUpperCase()} ${path}`,
      operation,
    })),
  );
const schema = (name: string) => document.components.schemas[name];

beforeAll(async () => {
  database = await createDatabase();
  service = await ServiceProcess.start(
    serviceEnvironment(database, { PORT: await freePort(), ISSUER_URL: 'https://auth.gatehouse.test' }),
  );
  const answer = await fetch(`${service.url}/openapi.json`);
  headers = answer.headers;
  text = await answer.text();
  document = JSON.parse(text);
}, 60_000);

afterAll(async () => {
  await service?.stop();
  await database?.drop();
});

describe('/openapi.json', () => {
  it('passes the recommended rules of Redocly without an error', async () => {
    expect(headers.get('content-type')).toMatch(/^application\/json/);
    const config = await createConfig({ extends: ['recommended'] });
    const problems = await lintFromString({ source: text, absoluteRef: 'openapi.json', config });
    const said = problems.map(({ severity, ruleId, location }) => `${severity} ${ruleId} ${location[0].pointer}`);
    expect(said.filter((line) => line.startsWith('error'))).toEqual([]);
    // Liveness, readiness, metadata and keys take nothing that could be wrong.
    const rules = problems.map(({ ruleId }) => ruleId);
    expect(rules).toEqual([
      'operation-4xx-response',
      'operation-4xx-response',
      'operation-4xx-response',
      'operation-4xx-response',
    ]);
  });

  it('holds every route that Fastify has, but for aliases and the documentation itself', async () => {
    const inProcess = await TestService.start({}, database);
    const printed: string = inProcess.app.getHttpAdapter().getInstance().printRoutes({ commonPrefix: false });
    await inProcess.stop();
    const routes = routesOf(printed);
    const documented = new Set(operations().map(({ name }) => name));
    const undocumented = routes.filter((route) => !documented.has(route));
    expect(undocumented.sort()).toEqual(
      [
        // not the documentation's own subject
        'GET /docs',
        'GET /docs/favicon-32x32.png',
        'GET /docs/page.css',
        'GET /docs/start.js',
        'GET /docs/swagger-ui-bundle.js',
        'GET /docs/swagger-ui.css',
        'GET /openapi.json',
        // D9: aliases of one canonical path
        'GET /.well-known/openid-configuration',
        'GET /realms/{realm}/.well-known/oauth-authorization-server',
        'GET /realms/{realm}/.well-known/openid-configuration',
        'GET /realms/{realm}/protocol/openid-connect/certs',
        'POST /api/oauth2/token',
        'POST /realms/{realm}/protocol/openid-connect/token',
        'POST /realms/{realm}/protocol/openid-connect/token/introspect',
        'POST /realms/{realm}/protocol/openid-connect/revoke',
        // V7: the protected resource at the root
        'GET /companies',
        'GET /companies/{id}',
        'DELETE /companies/{id}/employees/{employee_id}',
        'GET /companies/{id}/employees',
        'GET /companies/{id}/employees/{employee_id}',
        'PATCH /companies/{id}',
        'PATCH /companies/{id}/employees/{employee_id}',
        'POST /companies',
        'POST /companies/{id}/employees',
        'POST /companies/{id}/employees/bulk',
        // RFC 6749 §3.2: what takes POST only says 405
        'GET /oauth/token',
        'GET /api/oauth2/token',
        'GET /realms/{realm}/protocol/openid-connect/token',
        'GET /oauth/introspect',
        'GET /realms/{realm}/protocol/openid-connect/token/introspect',
        'GET /oauth/revoke',
        'GET /realms/{realm}/protocol/openid-connect/revoke',
      ].sort(),
    );
    expect([...documented].filter((name) => !routes.includes(name))).toEqual([]);
  });

  it('has a summary, a tag, a way in and a schema of every request and answer', () => {
    const all = operations();
    expect(all.length).toBeGreaterThan(40);
    expect(new Set(all.map(({ operation }) => operation.operationId)).size).toBe(all.length);
    for (const { name, path, method, operation } of all) {
      expect([name, operation.summary]).toEqual([name, expect.stringMatching(/\S/)]);
      expect([name, operation.tags.length]).toEqual([name, 1]);
      expect([name, Array.isArray(operation.security)]).toEqual([name, true]);
      const successes = Object.entries(operation.responses).filter(([status]) => status.startsWith('2'));
      // A push creates or changes.
      expect([name, successes.length]).toEqual([name, operation.operationId === 'pushEmployee' ? 2 : 1]);
      for (const [status, { content }] of successes) {
        const shown = Object.values(content ?? {}).map((media) => media.schema.$ref ?? media.schema.type);
        expect([name, shown]).toEqual([name, status === '204' ? [] : [expect.stringMatching(/\S/)]]);
      }
      const takesBody = ['post', 'patch'].includes(method) && !path.endsWith('/enable');
      expect([name, operation.requestBody !== undefined]).toEqual([name, takesBody]);
      for (const media of Object.values(operation.requestBody?.content ?? {})) {
        const body = schema(media.schema.$ref!.split('/').at(-1)!);
        expect([name, Object.keys(body.properties ?? {}).length > 0]).toEqual([name, true]);
      }
    }
    // No class is shown empty: the plugin saw it.
    for (const [name, { properties }] of Object.entries(document.components.schemas))
      expect([name, Object.keys(properties ?? {}).length > 0]).toEqual([name, true]);
  });

  it('shows the rules that validate', () => {
    const { properties, required } = schema('CreateServiceAccount');
    expect(required).toEqual(['name', 'scopes']);
    expect(properties).toEqual({
      name: { type: 'string', minLength: 1, maxLength: 200, description: expect.stringContaining('audit log') },
      description: { type: 'string', maxLength: 1024 },
      scopes: {
        type: 'array',
        maxItems: 200,
        items: { type: 'string', maxLength: 128 },
        description: expect.stringContaining('ceiling'),
      },
      token_format: { type: 'string', description: expect.stringContaining('opaque') },
      token_ttl_seconds: {
        type: 'integer',
        minimum: 60,
        maximum: 86_400,
        description: expect.stringContaining('3600'),
      },
      client_auth_methods: {
        type: 'array',
        nullable: true,
        maxItems: 10,
        items: { type: 'string' },
        description: expect.stringContaining('client_secret_basic'),
      },
      resources: {
        type: 'array',
        maxItems: 20,
        items: { type: 'string', maxLength: 256 },
        description: expect.stringContaining('RESOURCES'),
      },
    });
    expect(schema('CreateSecret').properties!.expires_at).toMatchObject({ type: 'string', format: 'date-time' });
    expect(schema('CreateSecret').required).toBeUndefined();
    expect(schema('NewSecretView').properties!.secret).toMatchObject({ type: 'string' });
    expect(schema('SecretView').properties!.secret).toBeUndefined();
    expect(Object.keys(schema('Receipt').properties!).sort()).toEqual(
      ['bound_ms', 'credential_id', 'instances', 'revocation_id', 'revoked_at', 'tokens_expire_by', 'waited_ms'].sort(),
    );
    const company = schema('CreateCompany').properties!;
    expect(company.sector).toEqual({ type: 'string', nullable: true, minLength: 1, maxLength: 128 });
    expect(company.departments).toEqual({
      type: 'array',
      maxItems: 500,
      items: { type: 'string', minLength: 1, maxLength: 256 },
      description: expect.stringContaining('department'),
    });
    expect(schema('PushEmployee').required).toEqual(['name']);
    expect(schema('PushEmployee').properties!.started_on).toMatchObject({
      type: 'string',
      format: 'date',
      nullable: true,
    });
    expect(schema('BatchedEmployee').required!.sort()).toEqual(['external_id', 'name']);
    expect(schema('PushEmployees').properties!.employees).toMatchObject({ type: 'array', minItems: 1, maxItems: 100 });
    expect(schema('UpdateEmployee').required).toBeUndefined();
    expect(document.paths['/api/v1/companies/{id}'].get.responses[200]).toMatchObject({
      headers: { ETag: { schema: { type: 'string' } } },
    });
    expect(text).not.toContain('"type":"number"');
  });

  it('shows how every list is paged', () => {
    const lists = operations().filter(({ operation }) => operation.operationId.startsWith('list'));
    expect(lists.length).toBeGreaterThanOrEqual(9);
    for (const { name, operation } of lists) {
      const { properties } = schema(
        operation.responses[200].content!['application/json'].schema.$ref!.split('/').at(-1)!,
      );
      expect([name, Object.keys(properties!)]).toEqual([name, ['data', 'next_cursor']]);
      expect([name, properties!.next_cursor.nullable]).toEqual([name, true]);
      const [limit, cursor] = ['limit', 'cursor'].map((which) => operation.parameters.find((p) => p.name === which));
      expect(limit).toMatchObject({
        in: 'query',
        required: false,
        schema: { type: 'integer', minimum: 1, maximum: 200, default: 50 },
      });
      expect(cursor).toMatchObject({ in: 'query', required: false, schema: { type: 'string' } });
    }
  });

  it('describes the token endpoint as the RFCs have it', () => {
    const { post } = document.paths['/oauth/token'];
    expect(Object.keys(post.requestBody!.content)).toEqual(['application/x-www-form-urlencoded', 'application/json']);
    expect(post.security).toEqual([{ client: [] }, {}]);
    expect(document.components.securitySchemes.client).toMatchObject({ type: 'http', scheme: 'basic' });
    expect(Object.keys(schema('TokenRequest').properties!).sort()).toEqual([
      'client_assertion',
      'client_assertion_type',
      'client_id',
      'client_secret',
      'grant_type',
      'resource',
      'scope',
    ]);
    expect(schema('TokenRequest').required).toEqual(['grant_type']);
    expect(schema('TokenResponse').required!.sort()).toEqual(['access_token', 'expires_in', 'scope', 'token_type']);
    for (const status of ['400', '401', '413', '415', '429', '503'])
      expect(post.responses[status].content!['application/json'].schema.$ref).toBe(
        '#/components/schemas/OAuthErrorBody',
      );
    expect(schema('OAuthErrorBody').properties!.error.enum).toEqual(
      expect.arrayContaining([
        'invalid_request',
        'invalid_client',
        'invalid_grant',
        'invalid_scope',
        'unauthorized_client',
      ]),
    );
  });

  it('E9 describes the rate limit where an organization is charged, and nowhere else', () => {
    const HEADERS = ['X-RateLimit-Limit', 'X-RateLimit-Remaining', 'X-RateLimit-Reset'];
    for (const { name, operation } of operations()) {
      const charged = operation.security.length > 0;
      const [[, success]] = Object.entries(operation.responses).filter(([status]) => status.startsWith('2'));
      const told = Object.keys(success.headers ?? {}).filter((header) => header.startsWith('X-RateLimit'));
      expect([name, told]).toEqual([name, charged ? HEADERS : []]);
      if (charged)
        expect([name, Object.keys(operation.responses[429].headers!)]).toEqual([name, [...HEADERS, 'Retry-After']]);
    }
    expect(schema('CreateOrganization').properties!.rate_limit).toMatchObject({ nullable: true });
    expect(schema('OrganizationRateLimit').properties!.limit).toMatchObject({
      type: 'integer',
      minimum: 1,
      maximum: 1_000_000,
    });
  });

  it('describes introspection and revocation as the RFCs have them', () => {
    const [introspect, revoke] = ['/oauth/introspect', '/oauth/revoke'].map((path) => document.paths[path].post);
    expect(introspect.security).toEqual([{ bearer: [] }, { client: [] }, {}]);
    expect(revoke.security).toEqual([{ client: [] }, {}]);
    for (const { requestBody, responses } of [introspect, revoke]) {
      const types = Object.entries(requestBody!.content);
      expect(types.map(([type, { schema }]) => [type, schema.$ref])).toEqual(
        ['application/x-www-form-urlencoded', 'application/json'].map((type) => [
          type,
          '#/components/schemas/PresentedToken',
        ]),
      );
      for (const status of ['400', '401', '413', '415', '429', '503'])
        expect(responses[status].content!['application/json'].schema.$ref).toBe('#/components/schemas/OAuthErrorBody');
    }
    expect(schema('PresentedToken').required).toEqual(['token']);
    expect(schema('Introspection').required).toEqual(['active']);
    expect(schema('Introspection').properties!.exp).toMatchObject({ type: 'integer' });
  });

  it('describes the errors of the management API, and its headers', () => {
    for (const { name, path, method, operation } of operations()) {
      if (!path.startsWith('/api/v1/')) continue;
      for (const status of ['400', '401', '403', '503', ...(path.includes('{') ? ['404'] : [])])
        expect([name, status, operation.responses[status]?.content]).toEqual([
          name,
          status,
          { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
        ]);
      const inHeader = operation.parameters.filter((p) => p.in === 'header').map((p) => p.name);
      const guarded = operation.security.length > 0;
      const creates = method === 'post' && '201' in operation.responses;
      const conditional = inHeader.filter((header) => header.startsWith('If-'));
      const answers = { 'If-Match': '412', 'If-None-Match': '304' } as Record<string, string>;
      for (const header of conditional)
        expect([name, Object.keys(operation.responses)]).toEqual([name, expect.arrayContaining([answers[header]])]);
      expect([name, inHeader]).toEqual([
        name,
        guarded ? [...conditional, ...(creates ? ['Idempotency-Key'] : []), 'X-Organization-Id'] : [],
      ]);
    }
    expect(schema('Problem').required).toEqual(['type', 'title', 'status', 'code', 'request_id']);
    expect(document.components.securitySchemes.session).toMatchObject({ in: 'cookie', name: '__Host-session' });
  });
});

/** `METHOD /path/{id}` of every route in Fastify's own listing; a HEAD goes with its GET. */
function routesOf(printed: string): string[] {
  const routes: string[] = [];
  const stack: string[] = [];
  for (const line of printed.split('\n')) {
    const found = /^((?:│ {3}| {4})*)(?:├── |└── )(.*?)(?: \(([A-Z, ]+)\))?$/.exec(line);
    if (!found) continue;
    const [, indent, part, methods] = found;
    const depth = indent.length / 4;
    stack.length = depth;
    stack.push(part);
    const path = stack.join('').replace(/:(\w+)/g, '{$1}');
    for (const method of methods?.split(', ') ?? []) if (method !== 'HEAD') routes.push(`${method} ${path}`);
  }
  return routes;
}
