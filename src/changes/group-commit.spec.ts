import { Unavailable } from '../kernel/problem.js';
import { GroupCommit } from './group-commit.js';

const turn = () => new Promise((resolve) => setImmediate(resolve));
const turns = async (n: number) => {
  for (let i = 0; i < n; i++) await turn();
};

/** A queue whose flights land when the test says so. */
function queue(options: Partial<ConstructorParameters<typeof GroupCommit>[1]> = {}) {
  const flights: { items: number[]; land: (error?: Error) => void }[] = [];
  const commit = new GroupCommit<number, number>(
    (items) =>
      new Promise((resolve, reject) => {
        const land = (error?: Error) => (error ? reject(error) : resolve(items.map((item) => item * 10)));
        flights.push({ items, land });
      }),
    { inFlight: 2, batch: 500, queue: 100, age: 5000, ...options },
  );
  return { commit, flights, batches: () => flights.map(({ items }) => items) };
}

it('what waits goes in one flight, and each caller gets its own result', async () => {
  const { commit, flights, batches } = queue();
  const results = Promise.all([1, 2, 3].map((item) => commit.add(item)));
  await turns(2);
  expect(batches()).toEqual([[1, 2, 3]]);
  flights[0].land();
  expect(await results).toEqual([10, 20, 30]);
});

it('a second flight leaves half empty only when nothing more comes; never a third', async () => {
  const { commit, batches } = queue();
  const add = (item: number) => void commit.add(item);
  for (const item of [1, 2, 3, 4]) add(item);
  await turns(2);
  add(5);
  await turn();
  add(6); // more keep coming: 5 still waits
  expect(batches()).toEqual([[1, 2, 3, 4]]);
  await turns(4);
  expect(batches()).toEqual([
    [1, 2, 3, 4],
    [5, 6],
  ]);
  add(7);
  await turns(4);
  expect(batches()).toHaveLength(2);
});

it('what waited through a flight leaves when it lands, and a flight that fails fails its own items alone', async () => {
  const { commit, flights, batches } = queue({ inFlight: 1 });
  const first = commit.add(1);
  await turns(2);
  const second = commit.add(2);
  flights[0].land(new Error('lost'));
  await expect(first).rejects.toThrow('lost');
  await turns(2);
  expect(batches()).toEqual([[1], [2]]);
  flights[1].land();
  expect(await second).toBe(20);
});

it('AU-11 the queue and the wait in it are bounded', async () => {
  const { commit, flights } = queue({ inFlight: 1, queue: 2, age: 20 });
  const aboard = commit.add(1);
  await turns(2);
  const late = [commit.add(2), commit.add(3)];
  await expect(commit.add(4)).rejects.toThrow(Unavailable);
  await new Promise((resolve) => setTimeout(resolve, 30));
  flights[0].land();
  expect(await aboard).toBe(10);
  for (const each of late) await expect(each).rejects.toThrow('too slow');
});

it('one flight takes no more than a batch', async () => {
  const { commit, batches } = queue({ batch: 2 });
  for (const item of [1, 2, 3]) void commit.add(item);
  await turns(4);
  expect(batches()).toEqual([[1, 2], [3]]);
});
