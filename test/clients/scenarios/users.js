import { equal, errorCode, inbox, state, subscribed } from '../lib/stage.js';

const sorted = (event) => ({ name: event.name, user_ids: [...event.user_ids].sort() });

export const scenarios = [
  {
    name: 'P328: a sign-in is confirmed and user events arrive',
    async run(stage) {
      const user = stage.unique('user-');
      const pusher = await stage.signedIn({ user_id: user, user_info: { name: 'Zoë' } });
      equal(pusher.user.user_data, { id: user, user_info: { name: 'Zoë' } });
      const other = await stage.signedIn({ user_id: stage.unique('user-') });
      const [mine, others] = [inbox(pusher.user, 'greeting'), inbox(other.user, 'greeting')];
      await stage.call('sendToUser', user, 'greeting', { hello: 'you' });
      equal(await mine.next(), { hello: 'you' });
      await stage.call('sendToUser', other.user.user_data.id, 'greeting', 'other');
      equal(await others.next(), 'other');
      equal([mine.left(), others.left()], [[], []]);
    },
  },
  {
    name: 'P328: every tab of a user gets a user event once',
    async run(stage) {
      const user = stage.unique('a@b.example ');
      const tabs = await Promise.all([1, 2].map(() => stage.signedIn({ user_id: user })));
      const got = tabs.map((pusher) => inbox(pusher.user, 'greeting'));
      await stage.call('sendToUser', user, 'greeting', 1);
      await stage.call('sendToUser', user, 'greeting', 2);
      for (const box of got) {
        equal([await box.next(), await box.next()], [1, 2]);
        equal(box.left(), []);
      }
    },
  },
  {
    name: 'a sign-in with a bad signature is refused and the client stays connected',
    async run(stage) {
      const pusher = await stage.connect({ user_id: 'mallory', forged: 'yes' });
      const errors = inbox(pusher.connection, 'error');
      pusher.signin();
      equal(await errorCode(errors), 4009);
      equal([pusher.connection.state, pusher.user.user_data], ['connected', null]);
      await subscribed(pusher.subscribe(stage.unique('news-')));
    },
  },
  {
    name: 'P329: a watchlist tells who is online, who comes and who goes',
    async run(stage) {
      const [here, there] = [stage.unique('user-'), stage.unique('user-')];
      await stage.signedIn({ user_id: here });
      const watcher = await stage.connect({ user_id: stage.unique('user-'), watchlist: [here, there] });
      const online = inbox(watcher.user.watchlist, 'online');
      const offline = inbox(watcher.user.watchlist, 'offline');
      watcher.signin();
      equal(sorted(await online.next()), { name: 'online', user_ids: [here] });
      equal(sorted(await offline.next()), { name: 'offline', user_ids: [there] });

      const tab1 = await stage.signedIn({ user_id: there });
      equal(sorted(await online.next()), { name: 'online', user_ids: [there] });
      const tab2 = await stage.signedIn({ user_id: there });
      tab1.disconnect();
      tab2.disconnect();
      equal(sorted(await offline.next()), { name: 'offline', user_ids: [there] });
      await stage.signedIn({ user_id: there });
      equal(sorted(await online.next()), { name: 'online', user_ids: [there] });
      equal([online.left(), offline.left()], [[], []]);
    },
  },
  {
    name: 'terminated connections are closed with 4009, stay closed, and nobody else is',
    async run(stage) {
      const user = stage.unique('user-');
      const tabs = await Promise.all([1, 2].map(() => stage.signedIn({ user_id: user })));
      const other = await stage.signedIn({ user_id: stage.unique('user-') });
      // The id of a member is not the id of a signed-in user.
      const lookalike = await stage.connect({ user_id: user });
      await subscribed(lookalike.subscribe(stage.unique('presence-')));
      const errors = tabs.map((pusher) => inbox(pusher.connection, 'error'));

      await stage.call('terminateUserConnections', user);
      for (const [i, pusher] of tabs.entries()) {
        equal(await errorCode(errors[i]), 4009);
        await state(pusher, 'disconnected');
        equal(pusher.connection.retryTimer ?? null, null, 'planned retry');
      }
      for (const pusher of [other, lookalike]) {
        await subscribed(pusher.subscribe(stage.unique('news-')));
        equal(pusher.connection.state, 'connected');
      }

      tabs[0].connect();
      await state(tabs[0], 'connected');
    },
  },
];
