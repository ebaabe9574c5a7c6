import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { FloorFile } from './floor.js';

let folder: string;
const keys = () => readdir(path.join(folder, 'keys')).then((names) => names.sort());
const floorOf = (head: number, era = 1) => ({ system: '1', era, head });
beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'gatehouse-floor-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

it('rises only, whichever of several processes is the slower', async () => {
  const [fast, slow] = [FloorFile.in(folder), FloorFile.in(folder)];
  await Promise.all([fast.read(), slow.read()]);
  await Promise.all([fast.raise(floorOf(9)), slow.raise(floorOf(8))]);
  await fast.raise(floorOf(11));
  await slow.raise(floorOf(9));
  await slow.raise(floorOf(10));
  const next = FloorFile.in(folder);
  expect(await next.read()).toEqual(floorOf(11));
  expect(() => next.check(floorOf(10))).toThrow('The database is older than when it was last used here');
});

it('a raised era counts for more than any number before it, and what was passed is cleared away', async () => {
  await mkdir(path.join(folder, 'keys'));
  await writeFile(path.join(folder, 'keys', 'floor.json'), JSON.stringify(floorOf(99)));
  const floor = FloorFile.in(folder);
  expect(await floor.read()).toEqual(floorOf(99));
  await floor.raise(floorOf(3, 2));
  expect(await FloorFile.in(folder).read()).toEqual(floorOf(3, 2));
  await floor.raise(floorOf(4, 2));
  expect(await keys()).toEqual(['floor-2-4.json']);
});
