import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import { ApiHeader } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { problem } from '../kernel/problem.js';

/** What a conditional request names: any version, or these tags as they were written. Undefined: it is not conditional. */
export type EntityTags = '*' | readonly string[] | undefined;

interface Versioned {
  version: number;
}

/** RFC 9110 §8.8.3, strong: one version has one representation. */
const tagOf = ({ version }: Versioned) => `"${version}"`;

/** RFC 9110 §8.8.3. The first finds what stands between commas, a tag whole, since it may hold one. */
const PARTS = /(?:W\/)?"[^"]*"|[^\s,]+/g;
const TAG = /^(?:W\/)?"[\x21\x23-\x7E\x80-\xFF]*"$/;

function tagsIn(header: string): EntityTags {
  if (header.trim() === '*') return '*';
  const tags = header.match(PARTS) ?? [];
  if (tags.length === 0 || !tags.every((tag) => TAG.test(tag)))
    throw problem('invalid_parameter', 'If-Match and If-None-Match take * or entity tags in double quotes');
  return tags;
}

/** A parameter that reads such a header, and says in the documentation that the route does. */
const header = (name: string, description: string) =>
  createParamDecorator(
    (_: unknown, context: ExecutionContext): EntityTags => {
      const value = context.switchToHttp().getRequest<FastifyRequest>().headers[name.toLowerCase()];
      return value === undefined ? undefined : tagsIn(String(value));
    },
    [
      (target, key) =>
        ApiHeader({ name, description, required: false, schema: { type: 'string' } })(
          target,
          key!,
          Object.getOwnPropertyDescriptor(target, key!)!,
        ),
    ],
  )();

export const IfMatch = () =>
  header('If-Match', 'The `ETag` that the change is based on: when it was changed since, the answer is 412.');
export const IfNoneMatch = () =>
  header('If-None-Match', 'The `ETag` that is known: when it is still the present one, the answer is 304.');

/** For the documentation of an answer that {@link tagged} gives. */
export const ETAG = {
  ETag: { description: 'The version of what is shown, for `If-Match`.', schema: { type: 'string' } },
};

/** RFC 9110 §13.1.1: weak tags never match. To be asked while the row is locked. */
export function assertMatches(wanted: EntityTags, row: Versioned): void {
  if (wanted !== undefined && wanted !== '*' && !wanted.includes(tagOf(row))) throw problem('precondition_failed');
}

/** The view of a row under its tag; or nothing and 304, when `known` has the tag, weak or not (RFC 9110 §13.1.2). */
export function tagged<Row extends Versioned, View>(
  reply: FastifyReply,
  row: Row,
  view: (row: Row) => View,
  known?: EntityTags,
): View | undefined {
  const tag = tagOf(row);
  reply.header('etag', tag);
  if (known !== '*' && !known?.some((other) => other.replace(/^W\//, '') === tag)) return view(row);
  reply.code(304);
  return undefined;
}
