module.exports = {
  testEnvironment: 'node',
  roots: ['<rootDir>/src', '<rootDir>/test'],
  testRegex: '\\.(spec|e2e-spec)\\.ts$',
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  transform: { '^.+\\.(ts|js|mjs)$': '<rootDir>/test/jest-transform.cjs' },
  transformIgnorePatterns: ['/node_modules/(playwright-core|typescript|@swc)/', '\\.pnp\\.'],
  globalSetup: '<rootDir>/test/global-setup.mjs',
  globalTeardown: '<rootDir>/test/global-teardown.mjs',
  reporters: ['default', '<rootDir>/test/count-reporter.cjs'],
  testTimeout: 30_000,
  maxWorkers: 2,
};
