/** PostgreSQL refuses NUL in text, and a lone surrogate is no character: neither may reach a column, a log line or a claim. */
export function isStorableText(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed();
}

/** Whether every string in a parsed JSON value, key or value, passes. Depth is bounded by the body limit. */
export function everyString(value: unknown, test: (text: string) => boolean): boolean {
  if (typeof value === 'string') return test(value);
  if (Array.isArray(value)) return value.every((item) => everyString(item, test));
  if (value !== null && typeof value === 'object') {
    return Object.entries(value).every(([key, item]) => test(key) && everyString(item, test));
  }
  return true;
}
