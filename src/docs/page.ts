import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import type { FastifyInstance } from 'fastify';
import type { Config } from '../config/config.js';

/** LG-17: nothing runs, loads or frames but what this origin serves as a file of its own. Swagger UI draws its icons from data: URLs. */
const PAGE_HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'cross-origin-opener-policy': 'same-origin',
};
const ASSETS: Record<string, string> = {
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
  'favicon-32x32.png': 'image/png',
};
const FOLDER = path.dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'));

/** The reference page at `/docs`: Swagger UI over `/openapi.json`. A page of our own, since Nest's has inline styles and no viewport. */
export function servePage(fastify: FastifyInstance, config: Config, title: string): void {
  const base = new URL(config.ISSUER_URL).pathname.replace(/\/$/, '');
  const html = page(base, title);
  fastify.get('/docs', (_request, reply) => reply.headers(PAGE_HEADERS).type('text/html; charset=utf-8').send(html));
  const own = { 'start.js': script(base), 'page.css': STYLE };
  for (const [name, text] of Object.entries(own)) {
    const type = name.endsWith('.js') ? 'text/javascript; charset=utf-8' : 'text/css; charset=utf-8';
    fastify.get(`/docs/${name}`, (_request, reply) => reply.type(type).send(text));
  }
  for (const [name, type] of Object.entries(ASSETS)) {
    fastify.get(`/docs/${name}`, async (_request, reply) =>
      reply
        .type(type)
        .header('cache-control', 'public, max-age=3600')
        .send(await readFile(path.join(FOLDER, name))),
    );
  }
}

const page = (base: string, title: string) => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<link rel="icon" type="image/png" href="${base}/docs/favicon-32x32.png">
<link rel="stylesheet" href="${base}/docs/swagger-ui.css">
<link rel="stylesheet" href="${base}/docs/page.css">
</head>
<body>
<main id="reference"></main>
<noscript>This page needs JavaScript; the description itself is at <a href="${base}/openapi.json">openapi.json</a>.</noscript>
<script src="${base}/docs/swagger-ui-bundle.js"></script>
<script src="${base}/docs/start.js"></script>
</body>
</html>
`;

const script = (base: string) => `'use strict';
const dark = matchMedia('(prefers-color-scheme: dark)');
const paint = () => document.documentElement.classList.toggle('dark-mode', dark.matches);
dark.addEventListener('change', paint);
paint();
SwaggerUIBundle({
  url: '${base}/openapi.json',
  dom_id: '#reference',
  deepLinking: true,
  validatorUrl: null,
  docExpansion: 'list',
  defaultModelsExpandDepth: 0,
});
`;

const STYLE = `
body { margin: 0; background: #fff; }
html.dark-mode body { background: #1c2022; }
noscript { display: block; padding: 2rem; font-family: sans-serif; }
.swagger-ui .response-col_links { display: none; } /* there are none */
@media (max-width: 640px) {
  .swagger-ui .wrapper { padding: 0 12px; }
}
`;
