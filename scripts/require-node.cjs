// Plain CommonJS that any Node can parse: a Node too old to run Gatehouse gets a sentence, not a stack.
var wanted = require('../package.json').engines.node;
var version = process.versions.node.split('.').map(Number);
var ok =
  (version[0] === 20 && version[1] >= 19) ||
  (version[0] === 22 && version[1] >= 13) ||
  version[0] > 24 ||
  (version[0] === 24 && version[1] >= 11);
if (!ok) {
  console.error(
    'Gatehouse needs Node.js ' +
      wanted +
      ', and this is ' +
      process.version +
      '. Install Node.js 24 (see .nvmrc), then run this again.',
  );
  process.exit(1);
}
