import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { expect, it } from '@jest/globals';

it('every case is the name of a test, or has a reason to be open', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(__dirname, 'cases.mjs')], {
    encoding: 'utf8',
  });
  const missing = stdout.split('\nNeither covered nor with a reason')[1] ?? '';
  expect([missing, stderr, status]).toEqual(['', '', 0]);
});
