import { ApiPropertyOptional } from '@nestjs/swagger';
import { Type } from 'class-transformer';
import { IsInt, IsString, Max, MaxLength, Min } from 'class-validator';
import type { Cursors } from '../keyring/cursors.js';
import { Omittable } from './fields.js';

/** How every list is asked for (CONTRACT §8). Lists with filters extend it. */
export class PageQuery {
  /** How many at most. */
  @ApiPropertyOptional()
  @Type(() => Number)
  @IsInt()
  @Min(1)
  @Max(200)
  limit: number = 50;

  /** `next_cursor` of the page before. */
  @Omittable()
  @IsString()
  @MaxLength(2048)
  cursor?: string;
}

export interface Page<Row> {
  data: Row[];
  /** Null on the last page. */
  next_cursor: string | null;
}

/**
 * One page. `list` names what is listed — route, organization, filters, sort — and a cursor is good for that list alone; `fetch`
 * reads up to `limit` rows that come after a position; `position` is a row's place in the sort, by default its id.
 */
export async function page<Row extends object>(
  cursors: Cursors,
  list: Record<string, unknown>,
  query: PageQuery,
  fetch: (limit: number, after: readonly string[] | undefined) => Promise<Row[]>,
  position: (row: Row) => readonly string[] = (row) => [(row as { id: string }).id],
): Promise<Page<Row>> {
  const after = query.cursor === undefined ? undefined : (cursors.open(list, query.cursor) as string[]);
  const rows = await fetch(query.limit + 1, after); // one more tells whether there is another page
  const data = rows.slice(0, query.limit);
  return { data, next_cursor: rows.length > query.limit ? cursors.seal(list, position(data[data.length - 1])) : null };
}
