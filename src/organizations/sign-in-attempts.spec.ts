import { Config } from '../config/config.js';
import { Clock } from '../kernel/clock.js';
import { Problem } from '../kernel/problem.js';
import { SignInAttempts } from './sign-in-attempts.js';

class HeldClock extends Clock {
  time = 0;
  override monotonic = () => this.time;
}

const exhaust = (attempts: SignInAttempts, address: string, email = 'ada@example.com') => {
  for (let n = 0; n < 10; n++) attempts.take(address, email);
};
const refused = (attempts: SignInAttempts, address: string, email = 'ada@example.com') => {
  try {
    attempts.take(address, email);
    return undefined;
  } catch (error) {
    return (error as Problem).options.headers?.['Retry-After'];
  }
};

it('refuses the eleventh, says when to come back, and lets one more then (LG-04)', () => {
  const clock = new HeldClock();
  const attempts = new SignInAttempts(clock, new Config());
  exhaust(attempts, '192.0.2.1');
  expect(refused(attempts, '192.0.2.1')).toBe('90');
  expect(refused(attempts, '192.0.2.2')).toBeUndefined();
  clock.time += 90_000;
  expect(refused(attempts, '192.0.2.1')).toBeUndefined();
  expect(refused(attempts, '192.0.2.1')).toBe('90');
});

it('does not count those that were right', () => {
  const attempts = new SignInAttempts(new HeldClock(), new Config());
  for (let n = 0; n < 500; n++) attempts.take('192.0.2.1', 'ada@example.com')();
});

it('counts a network that tries one password on everybody', () => {
  const attempts = new SignInAttempts(new HeldClock(), new Config());
  for (let n = 0; n < 100; n++) attempts.take('192.0.2.1', `person${n}@example.com`);
  expect(refused(attempts, '192.0.2.1', 'other@example.com')).toBe('9');
});

it('counts a /64 as one, and IPv4 in IPv6 as IPv4', () => {
  const attempts = new SignInAttempts(new HeldClock(), new Config());
  exhaust(attempts, '2001:db8::1');
  expect(refused(attempts, '2001:db8:0:0:ffff::2')).toBe('90');
  expect(refused(attempts, '2001:db8:0:1::1')).toBeUndefined();
  exhaust(attempts, '::ffff:192.0.2.9');
  expect(refused(attempts, '192.0.2.9')).toBe('90');
});

it('allows each of several processes its share', () => {
  const attempts = new SignInAttempts(new HeldClock(), Object.assign(new Config(), { WORKERS: 4 }));
  for (let n = 0; n < 3; n++) attempts.take('192.0.2.1', 'ada@example.com');
  expect(refused(attempts, '192.0.2.1')).toBe('300');
});
