/** PostgreSQL refuses NUL in text, and a lone surrogate is no character: neither may reach a column, a log line or a claim. */
export function isStorableText(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed();
}

/** A text within a pattern of LIKE with `ESCAPE '\'`, its own wildcards plain characters. */
const plainly = (text: string) => text.replace(/[\\%_]/g, '\\$&');
/** The pattern that finds a text anywhere. */
export const containing = (text: string) => `%${plainly(text)}%`;
/** The pattern that finds what begins with a text. */
export const beginningWith = (text: string) => `${plainly(text)}%`;

/** Deeper than any body of ours; whatever walks a value after this, class-transformer too, does so on a stack. */
const MAX_DEPTH = 16;

/** Whether every string in a parsed JSON value passes, member names included. What is nested too deep does not. */
export function everyString(
  value: unknown,
  test: (text: string, isName: boolean) => boolean,
  depth = MAX_DEPTH,
): boolean {
  if (typeof value === 'string') return test(value, false);
  if (value === null || typeof value !== 'object') return true;
  if (depth === 0) return false;
  if (Array.isArray(value)) return value.every((item) => everyString(item, test, depth - 1));
  return Object.entries(value).every(([key, item]) => test(key, true) && everyString(item, test, depth - 1));
}

/** How many values a parsed JSON value holds, itself one of them. It must not be nested too deep. */
export const countValues = (value: unknown): number =>
  typeof value === 'object' && value !== null
    ? Object.values(value).reduce((sum, item) => sum + countValues(item), 1)
    : 1;
