// A reporter of node:test: one line of JSON for each test, for the Go test
// that started it.
export default async function* reporter(events) {
  const path = []; // names of the suites around a test
  for await (const { type, data } of events) {
    switch (type) {
      case 'test:start':
        path.length = data.nesting;
        path[data.nesting] = data.name;
        break;
      case 'test:pass':
      case 'test:fail': {
        const { details, skip, todo, nesting } = data;
        const cause = details.error?.cause;
        yield `${JSON.stringify({
          name: [...path.slice(0, nesting), data.name],
          suite: details.type === 'suite',
          passed: type === 'test:pass',
          skipped: skip !== undefined || todo !== undefined,
          milliseconds: details.duration_ms,
          error: details.error ? String(cause?.stack ?? cause ?? details.error) : undefined,
        })}\n`;
        break;
      }
      case 'test:stdout':
      case 'test:stderr':
        yield `${JSON.stringify({ output: data.message })}\n`;
        break;
    }
  }
}
