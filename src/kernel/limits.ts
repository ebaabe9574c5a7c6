/** Bounds that more than one level must agree on; times in seconds. */
export const MIN_TOKEN_TTL_SECONDS = 60;
export const DEFAULT_TOKEN_TTL_SECONDS = 3600;
/** The longest lifetime that a token can have: revocations are remembered this long, keys are kept this long. */
export const MAX_TOKEN_TTL_SECONDS = 86_400;
/** How many organizations stand above one another at most: whatever is bounded by those above reads all of them. */
export const MAX_ORGANIZATION_DEPTH = 16;
