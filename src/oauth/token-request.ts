import { isUtf8 } from 'node:buffer';
import type { FastifyRequest } from 'fastify';
import { OAuthError } from '../kernel/oauth-error.js';
import { isStorableText } from '../kernel/text.js';

/** The parameters of a request to an OAuth endpoint by their names: each at most once, undefined where empty (RFC 6749 §3.2). */
export type Parameters = ReadonlyMap<string, string | undefined>;

/** A body, parsed. `resource` alone may be repeated (RFC 8707 §2), so it stands apart from the parameters. */
export interface ParsedBody {
  parameters: Parameters;
  resources: readonly string[];
}

export const MAX_BODY = 16 * 1024;

/** A request to an OAuth endpoint, parsed. */
export interface OAuthRequest extends ParsedBody {
  http: FastifyRequest;
}

const invalid = (description: string, status?: number) => new OAuthError('invalid_request', description, { status });

/**
 * application/x-www-form-urlencoded, strictly: a flat parser, so that a handler never sees anything but strings, and no silent
 * replacement of what is not UTF-8. A parameter without a value counts as absent (RFC 6749 §3.1).
 */
export function parseForm(body: Buffer): ParsedBody {
  const text = body.toString('latin1');
  if (/[^\x20-\x7E]/.test(text)) throw invalid('The body has octets that are not percent-encoded');
  const pairs: [string, string][] = [];
  for (const part of text.split('&')) {
    if (part === '') continue;
    const at = part.indexOf('=');
    pairs.push([decode(at === -1 ? part : part.slice(0, at)), at === -1 ? '' : decode(part.slice(at + 1))]);
  }
  return collect(pairs);
}

/** A name or value of application/x-www-form-urlencoded. Throws URIError where it is not UTF-8. */
export const formDecode = (text: string): string =>
  text.includes('%') || text.includes('+') ? decodeURIComponent(text.replaceAll('+', ' ')) : text;

function decode(text: string): string {
  try {
    return formDecode(text);
  } catch {
    throw invalid('The body has a percent-encoding that is not UTF-8');
  }
}

/**
 * application/json, a flat object of strings. JSON.parse keeps the last of repeated members and says nothing, so the string tokens
 * are counted: in a flat object of strings there are exactly two a member.
 */
export function parseJson(body: Buffer): ParsedBody {
  if (!isUtf8(body)) throw invalid('The body is not UTF-8');
  const text = body.toString('utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw invalid('The body is not JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid('The body must be a JSON object');
  const pairs = Object.entries(value);
  if (pairs.some(([, member]) => typeof member !== 'string'))
    throw invalid('Every member of the body must be a string');
  const strings = text.match(/"(?:[^"\\]|\\.)*"/g)?.length ?? 0;
  if (strings !== 2 * pairs.length) throw invalid('A parameter is repeated');
  return collect(pairs as [string, string][]);
}

function collect(pairs: [string, string][]): ParsedBody {
  const parameters = new Map<string, string | undefined>();
  const resources: string[] = [];
  for (const [name, value] of pairs) {
    if (!isStorableText(name) || !isStorableText(value)) throw invalid('A parameter holds a character that is none');
    if (name === 'resource') {
      if (value !== '') resources.push(value);
      continue;
    }
    if (parameters.has(name)) throw invalid('A parameter is repeated');
    parameters.set(name, value === '' ? undefined : value);
  }
  return { parameters, resources };
}

/** What must never stand in a URL, where logs and histories keep it. */
const SECRET_IN_QUERY = new Set([
  'client_secret',
  'client_assertion',
  'code',
  'code_verifier',
  'refresh_token',
  'token',
  'client_id',
  'grant_type',
  'scope',
  'access_token',
  'password',
]);

/** The parsed body of an OAuth request. Throws invalid_request, or 415 for a type that has none of it. */
export function readRequest(http: FastifyRequest): OAuthRequest {
  if (Object.keys(http.query as object).some((name) => SECRET_IN_QUERY.has(name)))
    throw invalid('Parameters go into the body, never into the URL');
  if (http.body === undefined || http.body === null) {
    if (http.headers['content-type'] === undefined)
      throw invalid('The body must be application/x-www-form-urlencoded or application/json', 415);
    return { parameters: new Map(), resources: [], http };
  }
  const { parameters, resources } = http.body as ParsedBody;
  return { parameters, resources, http };
}
