import { equal, errorCode, inbox, ok, state, subscribed, within } from '../lib/stage.js';

// attempts records the states a client goes through and the pauses it makes.
function attempts(pusher) {
  const log = [];
  pusher.connection.bind('state_change', ({ current }) => log.push(current));
  pusher.connection.bind('connecting_in', (seconds) => log.push(`pause of ${seconds} s`));
  return log;
}

// restarted checks that a client finds back, with all it had, after a restart.
async function restarted(stage, how) {
  const name = stage.unique('presence-');
  const user = stage.unique('user-');
  const pusher = await stage.signedIn({ user_id: user, user_info: { name: 'Ann' } });
  const channel = pusher.subscribe(name);
  await subscribed(channel);
  const before = pusher.connection.socket_id;
  const states = attempts(pusher);
  const again = inbox(channel, 'pusher:subscription_succeeded');
  const news = inbox(channel, 'news');
  const greetings = inbox(pusher.user, 'greeting');

  const gone = new Promise((resolve) => pusher.connection.bind('connecting', resolve));
  await stage.restart(how);
  await gone;
  // After 4200 clients come back at once, while the server is still away. An
  // attempt that fails is given 15 s by pusher-js before the next.
  await state(pusher, 'connected', 30_000);
  ok(pusher.connection.socket_id !== before, 'the socket id is still the old one');
  ok(!states.includes('disconnected'), `states: ${states}`);

  equal((await again.next()).count, 1, 'members after the restart');
  await pusher.user.signinDonePromise;
  equal(pusher.user.user_data?.id, user, 'the signed-in user');
  await stage.call('trigger', name, 'news', { after: how });
  equal(await news.next(), { after: how });
  await stage.call('sendToUser', user, 'greeting', 'hello');
  equal(await greetings.next(), 'hello');
}

export const scenarios = [
  {
    name: 'a client connects and is given a socket id',
    async run(stage) {
      const pusher = stage.client();
      const errors = inbox(pusher.connection, 'error');
      const states = attempts(pusher);
      await state(pusher, 'connected');
      ok(/^\d+\.\d+$/.test(pusher.connection.socket_id), `socket id ${pusher.connection.socket_id}`);
      equal(pusher.connection.activityTimeout, 120_000, 'activity timeout in ms');
      equal(states.at(-1), 'connected');
      equal(errors.left(), []);
    },
  },
  {
    name: 'two connections have different socket ids',
    async run(stage) {
      const [a, b] = await Promise.all([stage.connect(), stage.connect()]);
      ok(a.connection.socket_id !== b.connection.socket_id, a.connection.socket_id);
    },
  },
  {
    name: 'a server that is asked for a sign of life answers',
    async run(stage) {
      const pusher = await stage.connect();
      const messages = inbox(pusher.connection, 'message');
      pusher.connection.sendActivityCheck();
      equal((await messages.next()).event, 'pusher:pong');
    },
  },
  {
    name: 'P324: with a wrong key the client ends disconnected (4001) and does not retry',
    async run(stage) {
      const pusher = stage.client({}, { key: 'no-such-key' });
      const errors = inbox(pusher.connection, 'error');
      const states = attempts(pusher);
      await state(pusher, 'disconnected');
      equal(await errorCode(errors), 4001);
      ok(states.every((s) => s === 'connecting' || s === 'disconnected'), `states: ${states}`);
      ok(!pusher.connection.retryTimer, 'a retry is planned');
    },
  },
  {
    name: 'P325: closed with 4200 the client is connected again within a second',
    async run(stage) {
      const user = stage.unique('user-');
      const name = stage.unique('news-');
      const pusher = await stage.signedIn({ user_id: user });
      await subscribed(pusher.subscribe(name));
      const news = inbox(pusher.channel(name), 'news');
      const again = inbox(pusher.channel(name), 'pusher:subscription_succeeded');
      const errors = inbox(pusher.connection, 'error');
      // A busy machine may be late once, but not every time.
      const took = [];
      for (let i = 0; i < 5 && !took.some((ms) => ms < 1000); i++) {
        const states = attempts(pusher);
        const closed = new Promise((resolve) => pusher.connection.bind('connecting', () => resolve(Date.now())));
        await within(pusher.user.signinDonePromise, 'the sign-in');
        await stage.call('post', { path: `/users/${user}/force_reconnect`, body: {} });
        const at = await closed;
        await state(pusher, 'connected');
        took.push(Date.now() - at);
        equal(await errorCode(errors), 4200);
        equal(states.filter((s) => !s.startsWith('pause')), ['connecting', 'connected'], 'states');
        await again.next();
      }
      ok(took.some((ms) => ms < 1000), `reconnected after ${took} ms`);
      await stage.call('trigger', name, 'news', 1);
      equal(await news.next(), 1);
    },
  },
  {
    name: 'P325: refused with 4100 the client tries again after about a second',
    async run(stage) {
      const port = stage.server.fullPort;
      const first = await stage.connect({}, { port });
      const second = stage.client({}, { port });
      const errors = inbox(second.connection, 'error');
      const pauses = inbox(second.connection, 'connecting_in');
      equal(await pauses.next(), 1, 'pause in seconds');
      equal(await errorCode(errors), 4100);
      first.disconnect();
      await state(second, 'connected');
    },
  },
  {
    name: 'a client that disconnects has left its channels',
    async run(stage) {
      const name = stage.unique('news-');
      const pusher = await stage.connect();
      await subscribed(pusher.subscribe(name));
      await stage.occupied(name, true);
      pusher.disconnect();
      await stage.occupied(name, false);
    },
  },
  {
    name: 'a client reconnects when the server has been restarted in good order',
    run: (stage) => restarted(stage, 'term'),
  },
  {
    name: 'a client reconnects when the server has crashed',
    run: (stage) => restarted(stage, 'kill'),
  },
];
