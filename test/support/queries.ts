import { jest } from '@jest/globals';
import pg from 'pg';

/** Statements sent to the database meanwhile, but for those that an idle service sends: polls of the feed and their company; nor the counts that are told behind requests. */
export async function queriesDuring(work: () => Promise<void>): Promise<string[]> {
  const query = jest.spyOn(pg.Client.prototype, 'query');
  await work();
  const texts = query.mock.calls.map(([first]) => {
    const config = first as unknown as { text?: string } | string;
    return typeof config === 'string' ? config : (config.text ?? '');
  });
  query.mockRestore();
  const idle = /\b(FROM|INTO|UPDATE) (instance|era|keyring_key)\b|\brate_limit_window\b|^LISTEN |^SELECT 1$/;
  return texts.filter((text) => !idle.test(text));
}
