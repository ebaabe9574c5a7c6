import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';

/**
 * What is measured, each a process of its own: `node bench/peers.mjs <name>`. Over IPC a peer says `{ port, clients }` once it listens:
 * by token format the credentials of a client that is given such tokens, and `resource` where that has to be asked for. It ends at
 * SIGTERM, or when the process that started it is gone.
 */
const PEERS = {
  gatehouse: () => gatehouse(),
  'gatehouse without its guard': () => gatehouse({ guarded: false }),
  'gatehouse without NestJS': gatehouseOnABareRoute,
  'node-oidc-provider': nodeOidcProvider,
  'bare Fastify': bareFastify,
};

const { stop, ...ready } = await PEERS[process.argv[2]]();
let stopping = false;
const end = () => {
  if (stopping) return;
  stopping = true;
  stop().then(
    () => process.exit(0),
    () => process.exit(1),
  );
};
process.on('SIGTERM', end);
process.on('disconnect', end);
process.send(ready);

/**
 * The built service, started as `main.ts` starts it, with one route more: `GET /bench/nothing`, which needs a scope and no database.
 * Without its guard every request is, at no cost, the first account's.
 */
async function gatehouse({ guarded = true, front = (app) => app.getHttpServer() } = {}) {
  const { Controller, Get } = await import('@nestjs/common');
  const { APP_GUARD } = await import('@nestjs/core');
  const { pino } = await import('pino');
  const { AppModule } = await import('../dist/src/app.module.js');
  const { RequireScopes } = await import('../dist/src/access/access.js');
  const { Changes } = await import('../dist/src/changes/changes.js');
  const { loadConfig } = await import('../dist/src/config/config.js');
  const { Clients } = await import('../dist/src/service-accounts/clients.js');
  const { Credentials } = await import('../dist/src/service-accounts/credentials/credentials.service.js');
  const { SecretKind } = await import('../dist/src/service-accounts/credentials/secret.js');
  const { accountIdOf } = await import('../dist/src/service-accounts/service-account.entity.js');
  const { ServiceAccounts } = await import('../dist/src/service-accounts/service-accounts.service.js');
  const { startService } = await import('../dist/src/service.js');
  const { SYSTEM } = await import('../dist/src/tokens/keys.service.js');

  class Nothing {
    read() {
      return { data: [], next_cursor: null };
    }
  }
  Controller('bench/nothing')(Nothing);
  const read = Object.getOwnPropertyDescriptor(Nothing.prototype, 'read');
  for (const decorate of [Get(), RequireScopes('companies:read')]) decorate(Nothing.prototype, 'read', read);

  let caller;
  const noGuard = {
    canActivate(context) {
      context.switchToHttp().getRequest().caller = caller;
      return true;
    },
  };
  const forRoot = AppModule.forRoot;
  AppModule.forRoot = (...settings) => {
    const module = forRoot.apply(AppModule, settings);
    const providers = guarded ? module.providers : [{ provide: APP_GUARD, useValue: noGuard }];
    return { ...module, providers, controllers: [Nothing] };
  };

  const config = loadConfig();
  const log = pino({ level: config.LOG_LEVEL });
  const { app, firstStart, stop } = await startService(config, log, () => undefined);
  const opaque = firstStart.client;
  const { id, name, organizationId, scopes } = await app.get(Clients).byId(accountIdOf(opaque.id));
  caller = {
    actor: { type: 'service_account', id, name, organizationId },
    organizationId,
    scopes: new Set(scopes),
    credential: { type: 'secret', id },
    tokenId: null,
    holds: {},
    authenticatedAt: null,
    request: { id: 'bench', address: null, userAgent: null },
  };
  const { result: jwt } = await app.get(Changes).run({ ...SYSTEM, organizationId }, async (change) => {
    const settings = { name: 'Bench', scopes: [...scopes], tokenFormat: 'jwt' };
    const account = await app.get(ServiceAccounts).addTo(change, organizationId, settings);
    const label = 'bench';
    const { secret } = await app.get(Credentials).addTo(change, app.get(SecretKind), account, SYSTEM.actor, { label });
    return { id: account.clientId, secret };
  });
  const server = await front(app);
  return { port: server.address().port, clients: { opaque, jwt }, stop };
}

/** The same service, asked through a route of a bare Fastify: what is left is what its own mechanisms cost. */
function gatehouseOnABareRoute() {
  return gatehouse({
    front: async (app) => {
      const { fastify } = await import('fastify');
      const { TokenController } = await import('../dist/src/oauth/token.controller.js');
      const { parseForm } = await import('../dist/src/oauth/token-request.js');
      const controller = app.get(TokenController, { strict: false });
      const bare = fastify();
      bare.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'buffer' }, async (_request, body) =>
        parseForm(body),
      );
      bare.post('/oauth/token', (request, reply) => controller.token(request, reply));
      app.getHttpServer().once('close', () => bare.close());
      await bare.listen({ port: 0, host: '127.0.0.1' });
      return bare.server;
    },
  });
}

/** node-oidc-provider with its in-memory adapter: opaque tokens, and JWTs for the one resource that it knows. */
async function nodeOidcProvider() {
  const { Provider } = await import('oidc-provider');
  const server = createServer();
  const { port, stop } = await listen(server);
  const client = { id: 'bench', secret: randomBytes(32).toString('base64url') };
  const resource = 'urn:bench:api';
  const scope = 'companies:read';
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const provider = new Provider(`http://127.0.0.1:${port}`, {
    clients: [
      {
        client_id: client.id,
        client_secret: client.secret,
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        token_endpoint_auth_method: 'client_secret_basic',
        id_token_signed_response_alg: 'ES256',
        scope,
      },
    ],
    scopes: [scope],
    routes: { token: '/oauth/token' },
    cookies: { keys: [randomBytes(16).toString('hex')] },
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig', kid: 'bench' }] },
    ttl: { ClientCredentials: 3600 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          scope,
          audience: resource,
          accessTokenTTL: 3600,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  });
  server.on('request', provider.callback());
  return { port, clients: { opaque: client, jwt: { ...client, resource } }, stop };
}

/** The least that Fastify does for the same requests: it parses the form and says it back, or says nothing. */
async function bareFastify() {
  const { fastify } = await import('fastify');
  const app = fastify();
  app.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' }, (_request, body, done) =>
    done(null, Object.fromEntries(new URLSearchParams(body))),
  );
  app.post('/oauth/token', async (request) => ({ access_token: 'none', ...request.body }));
  app.get('/bench/nothing', async () => ({ data: [], next_cursor: null }));
  await app.listen({ port: 0, host: '127.0.0.1' });
  const nobody = { id: 'nobody', secret: 'none' };
  return {
    port: app.server.address().port,
    clients: { opaque: nobody, jwt: nobody },
    stop: async () => {
      app.server.closeAllConnections();
      await app.close();
    },
  };
}

async function listen(server) {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = async () => {
    server.closeAllConnections();
    server.close();
  };
  return { port: server.address().port, stop };
}
