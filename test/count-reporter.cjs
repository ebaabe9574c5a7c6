// The last line of `npm run check`: every test that ran, in a form that any tool can read.
module.exports = class CountReporter {
  onRunComplete(_contexts, results) {
    const { numPassedTests, numFailedTests, numRuntimeErrorTestSuites, numPendingTests } = results;
    // A file that could not be loaded is a failure, not nothing.
    const failed = numFailedTests + numRuntimeErrorTestSuites;
    process.on('exit', () => {
      console.log(`${numPassedTests} passed, ${failed} failed${numPendingTests ? `, ${numPendingTests} skipped` : ''}`);
    });
  }
};
