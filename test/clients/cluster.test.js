// The current and the previous major of pusher-js at three nodes of a cluster,
// with the Node server library behind each. A stage belongs to one node: its
// clients connect there, and its calls of the library go there.
import { after, before, suite, test } from 'node:test';
import { createRequire } from 'node:module';
import { Backend } from './lib/backend.js';
import { nodes as ports, server } from './lib/settings.js';
import { Stage } from './lib/stage.js';
import { scenarios } from './scenarios/cluster.js';

const require = createRequire(import.meta.url);
const backends = ports().map((port) => ({ port, backend: new Backend(port) }));
before(() => Promise.all(backends.map(({ backend }) => backend.start())));
after(async () => {
  await Promise.all(backends.map(({ backend }) => backend.close()));
  // The WebSocket library of pusher-js would keep the process for 30 s after a
  // connection that the server has closed.
  setTimeout(() => process.exit(), 2000).unref();
});

for (const name of ['pusher-js', 'pusher-js-7']) {
  const Pusher = require(name);
  suite(`${name} ${require(`${name}/package.json`).version} at ${backends.length} nodes`, () => {
    for (const scenario of scenarios) {
      test(scenario.name, async () => {
        const nodes = backends.map(({ port, backend }) => {
          return new Stage({ Pusher, backend: backend.url, server: { host: server.host, port, key: server.key } });
        });
        try {
          await scenario.run(nodes);
        } finally {
          nodes.forEach((node) => node.close());
        }
      });
    }
  });
}
