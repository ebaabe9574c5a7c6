/** A reason not to start that a person can act on: one sentence, printed without a stack. `exitCode` 78 is sysexits' EX_CONFIG. */
export class StartupError extends Error {
  override name = 'StartupError';
  constructor(
    message: string,
    readonly exitCode = 1,
  ) {
    super(message);
  }
}
