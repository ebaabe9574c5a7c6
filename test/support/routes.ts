import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { FastifyInstance } from 'fastify';
import type { Answer } from './service.js';

export interface Route {
  method: string;
  url: string;
}

/** Starts a service and lists every route that Fastify was told of, HEAD included: a new one cannot hide from the tests. */
export async function withRoutes<T>(start: () => Promise<T>): Promise<{ service: T; routes: Route[] }> {
  const routes = new Map<string, Route>();
  // Fastify announces each instance before anybody else has it, so no route comes earlier than the hook.
  const listen = (message: unknown) =>
    (message as { fastify: FastifyInstance }).fastify.addHook('onRoute', ({ method, url }) => {
      for (const name of [method].flat()) routes.set(`${name} ${url}`, { method: name, url });
    });
  subscribe('fastify.initialization', listen);
  try {
    return { service: await start(), routes: [...routes.values()] };
  } finally {
    unsubscribe('fastify.initialization', listen);
  }
}

export const MUTATING = new Set(['POST', 'PUT', 'PATCH', 'DELETE']);

/** A path with its parameters filled in, by name; those that are not given become `otherwise`. */
export const fill = (url: string, values: Record<string, string>, otherwise = '') =>
  url.replace(/:([a-z_]+)/g, (_, name: string) => values[name] ?? otherwise);

/** What a caller can tell two answers apart by. */
export const visible = ({ status, headers, json, text }: Answer) => ({
  status,
  body: json ? { ...json, request_id: undefined } : text,
  headers: {
    ...headers,
    'x-request-id': undefined,
    'x-ratelimit-remaining': undefined, // one less each time
    'x-ratelimit-reset': undefined,
    date: undefined,
  },
});
