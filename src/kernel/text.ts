/** PostgreSQL refuses NUL in text, and a lone surrogate is no character: neither may reach a column, a log line or a claim. */
export function isStorableText(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed();
}

/** The pattern of an ILIKE with `ESCAPE '\'` that finds a text anywhere; its own wildcards are plain characters. */
export const containing = (text: string) => `%${text.replace(/[\\%_]/g, '\\$&')}%`;

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

/** The pattern of LIKE for what begins with a text, whatever the text holds. */
export const beginningWith = (text: string) => `${text.replace(/[\\%_]/g, '\\$&')}%`;
