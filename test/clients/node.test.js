// The scenarios in Node, with the current and the previous major of pusher-js.
import { after, before, suite, test } from 'node:test';
import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';
import Echo from 'laravel-echo';
import { Backend } from './lib/backend.js';
import { server } from './lib/settings.js';
import { Stage, equal, ok, play, within } from './lib/stage.js';
import { scenarios } from './scenarios/index.js';

const require = createRequire(import.meta.url);
const backend = new Backend();
before(() => backend.start());
after(() => backend.close());

for (const name of ['pusher-js', 'pusher-js-7']) {
  const Pusher = require(name);
  const open = () => new Stage({ Pusher, Echo, backend: backend.url, server });

  suite(`${name} ${require(`${name}/package.json`).version} in Node`, () => {
    for (const scenario of scenarios) {
      test(scenario.name, () => play(scenario, open()));
    }

    test('P325: a client that reads too slowly is closed with 4100 and back after about a second', async () => {
      const stage = open();
      const channel = stage.unique('flood-');
      const wake = new Int32Array(new SharedArrayBuffer(4));
      const sleeper = new Worker(new URL('./lib/sleeper.js', import.meta.url), {
        workerData: { library: name, key: server.key, options: stage.options(), channel, wake },
      });
      const said = [];
      const listening = [];
      sleeper.on('message', (message) => (listening.shift() ?? ((m) => said.push(m)))(message));
      const next = () => (said.length ? Promise.resolve(said.shift()) : within(new Promise((resolve) => listening.push(resolve)), 'the sleeper'));
      try {
        // More and more, as nobody knows how much the system buffers.
        const flood = Array.from({ length: 10 }, () => ({ channel, name: 'flood', data: 'x'.repeat(90 * 1024) }));
        let answer;
        for (let batches = 12; (answer = await next()).state === 'asleep'; batches *= 2) {
          for (let i = 0; i < batches; i++) {
            await stage.call('triggerBatch', flood);
          }
          await stage.call('trigger', channel, 'end', '');
          Atomics.add(wake, 0, 1);
          Atomics.notify(wake, 0);
        }
        equal(answer.code, 4100);
        const back = await next();
        equal([back.state, back.pauses[0]], ['connected', 1]);
        ok(back.after >= 950, `connected after ${back.after} ms`); // how much later, the machine decides
      } finally {
        await sleeper.terminate();
      }
    });
  });
}
