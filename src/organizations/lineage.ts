import type { EntityManager } from 'typeorm';
import { type Caller, PLATFORM_ORGANIZATION } from '../kernel/actor.js';
import { isUuid } from '../kernel/ids.js';
import { problem } from '../kernel/problem.js';
import { type Bounds, within } from '../kernel/scope.js';

/** An organization and all above it, itself first. Parents never change, so nobody enters or leaves a line. */
export type Line = readonly { id: string; ceiling: string[] | null; platform: boolean }[];

/** The {@link Line} of an organization as an SQL expression; null when there is none with this id. */
export const lineOf = (id: string) => `(
  WITH RECURSIVE line AS (
    SELECT start.id, start.parent_id, start.scope_ceiling, start.platform, 0 AS height FROM organization start WHERE start.id = ${id}
    UNION ALL
    SELECT above.id, above.parent_id, above.scope_ceiling, above.platform, height + 1
      FROM organization above JOIN line ON above.id = line.parent_id)
  SELECT json_agg(json_build_object('id', id, 'ceiling', scope_ceiling, 'platform', platform) ORDER BY height) FROM line)`;

/** Ids of all that stand beneath an organization, as an SQL query. */
export const beneath = (id: string) => `
  WITH RECURSIVE beneath AS (
    SELECT child.id FROM organization child WHERE child.parent_id = ${id}
    UNION ALL
    SELECT child.id FROM organization child JOIN beneath ON child.parent_id = beneath.id)
  SELECT id FROM beneath`;

/** Empty when there is none with this id. */
export async function readLine(tx: EntityManager, id: string): Promise<Line> {
  if (!isUuid(id)) return [];
  const [{ line }] = await tx.query(`SELECT ${lineOf('$1::uuid')} AS line`, [id]);
  return line ?? [];
}

/**
 * What bounds an organization: the ceilings of its whole line as they are now. Each row keeps the ceiling that it was given and none
 * is copied down, so narrowing one bounds all beneath at once and widening it gives back no more than it took; a copy would have to
 * be chased by every later change, and could not tell "all that its parent may" from the same scopes listed.
 */
export const boundsOf = (line: Line): Bounds => ({
  ceiling: within(line.map(({ ceiling }) => ceiling)),
  platform: line[0].platform,
});

/** Whether an organization stands beneath another; beneath the platform stands every other. */
export const standsBeneath = ([self, ...above]: Line, id: string): boolean =>
  self !== undefined && !self.platform && (id === PLATFORM_ORGANIZATION || above.some((one) => one.id === id));

/**
 * The Partner API's one rule of reach: what stands beneath the organization acted in, and only that.
 * Throws not_found for all else, whether it exists or not.
 */
export async function assertBeneath(tx: EntityManager, caller: Caller, id: string): Promise<Line> {
  const line = await readLine(tx, id);
  if (!standsBeneath(line, caller.organizationId)) throw problem('not_found');
  return line;
}
