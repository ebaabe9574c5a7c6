// The levels of CONTRIBUTING.md: each imports only what stands below it, types included.
const levels = [
  ['kernel'],
  ['config', 'database', 'keyring'],
  ['revocation'],
  ['audit'],
  ['changes'],
  ['organizations'],
  ['rate-limits'],
  ['service-accounts'],
  ['tokens'],
  ['access'],
  ['oauth', 'api', 'companies', 'portal', 'docs'],
];
const folder = (names) => `^src/(${names.join('|')})/`;
const upward = levels.slice(0, -1).map((level, i) => ({
  name: `${level.join('-')}-imports-only-downward`,
  severity: 'error',
  from: { path: folder(level) },
  to: { path: [folder(levels.slice(i + 1).flat()), '^src/[^/]+\\.ts$'] },
}));
const faces = levels.at(-1).map((face) => ({
  name: `${face}-imports-no-other-face`,
  severity: 'error',
  from: { path: folder([face]) },
  to: { path: [folder(levels.at(-1).filter((other) => other !== face)), '^src/[^/]+\\.ts$', '^src/cli/'] },
}));

module.exports = {
  forbidden: [
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'no-orphans',
      severity: 'error',
      from: { orphan: true, pathNot: ['\\.spec\\.ts$', '^ormconfig', '^src/main\\.ts$', '^src/cli/main\\.ts$'] },
      to: {},
    },
    {
      name: 'revocation-and-audit-know-nobody',
      severity: 'error',
      from: { path: '^src/(revocation|audit)/' },
      to: { path: '^src/(keyring|audit|revocation)/', pathNot: '^src/$1/' },
    },
    {
      name: 'no-undeclared-package',
      severity: 'error',
      from: {},
      to: { dependencyTypes: ['npm-no-pkg', 'npm-unknown'] },
    },
    {
      name: 'no-dev-package-in-src',
      severity: 'error',
      from: { path: '^src/', pathNot: '\\.spec\\.ts$' },
      to: { dependencyTypes: ['npm-dev'], dependencyTypesNot: ['type-only'] },
    },
    ...upward,
    ...faces,
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'require', 'node', 'default', 'types'],
    },
  },
};
