// A worker whose client reads nothing until it is woken, and sleeps again when
// it has then got everything. It tells how it was closed and when it is back.
import { createRequire } from 'node:module';
import { parentPort, workerData } from 'node:worker_threads';

const { library, key, options, channel, wake } = workerData;
const Pusher = createRequire(import.meta.url)(library);
const pusher = new Pusher(key, options);
const pauses = [];
let rounds = 0;
let closed;

function sleep() {
  parentPort.postMessage({ state: 'asleep' });
  Atomics.wait(wake, 0, rounds);
  rounds++;
}

pusher.subscribe(channel).bind('end', sleep).bind('pusher:subscription_succeeded', () => closed ?? sleep());
// The error comes twice: in a frame, if there was room for one, and in the close.
pusher.connection.bind('error', (err) => {
  if (!closed) {
    closed = Date.now();
    parentPort.postMessage({ code: (err.error ?? err).data?.code });
  }
});
pusher.connection.bind('connecting_in', (seconds) => pauses.push(seconds));
pusher.connection.bind('connected', () => {
  if (closed) {
    parentPort.postMessage({ state: 'connected', pauses, after: Date.now() - closed });
  }
});
