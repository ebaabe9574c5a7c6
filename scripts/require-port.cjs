// `npm run up` installs and builds anew: not beneath a service that runs from this folder. The service itself says the same later.
const { existsSync } = require('node:fs');
const { createServer } = require('node:net');

if (existsSync('.env')) process.loadEnvFile('.env');
const { PORT = '3000', HOST = '127.0.0.1' } = process.env;
const probe = createServer();
probe.once('error', ({ code }) => {
  if (code !== 'EADDRINUSE') return; // the service finds what is wrong with it, and all other faults as well
  console.error(
    `Port ${PORT} on ${HOST} is in use: stop what listens there, or set PORT to another. Nothing was changed.`,
  );
  process.exitCode = 1;
});
if (/^\d{1,5}$/.test(PORT) && Number(PORT) < 65_536) probe.listen(Number(PORT), HOST, () => probe.close());
