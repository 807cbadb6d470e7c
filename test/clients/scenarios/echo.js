import { equal, ok, within } from '../lib/stage.js';

// promised turns "call me once" into a promise.
const promised = (what, start) => within(new Promise(start), what);

// heard collects the calls of a listener.
function heard() {
  const waiting = [];
  const got = [];
  const listener = (data) => {
    const taker = waiting.shift();
    if (taker) {
      taker(data);
    } else {
      got.push(data);
    }
  };
  const next = () => (got.length ? Promise.resolve(got.shift()) : within(new Promise((resolve) => waiting.push(resolve)), 'a call'));
  return { listener, next, left: () => got };
}

const ready = (channel) =>
  channel.subscription.subscribed ||
  promised(`the subscription to ${channel.name}`, (resolve, reject) => channel.subscribed(resolve).error((err) => reject(new Error(JSON.stringify(err)))));

export const scenarios = ['reverb', 'pusher'].flatMap((broadcaster) => [
  {
    name: `Laravel Echo (${broadcaster}) listens to channels of every kind`,
    async run(stage) {
      const echo = stage.echo({ user_id: '1' }, broadcaster);
      const base = stage.unique('orders.');
      const channels = {
        [base]: echo.channel(base),
        [`private-${base}`]: echo.private(base),
        [`private-encrypted-${base}`]: echo.encryptedPrivate(base),
        [`presence-${base}`]: echo.join(base),
      };
      for (const [name, channel] of Object.entries(channels)) {
        const [short, dotted, all] = [heard(), heard(), heard()];
        channel.listen('OrderShipped', short.listener).listen('.order.shipped', dotted.listener).listenToAll(all.listener);
        await ready(channel);
        await stage.call('trigger', name, 'App\\Events\\OrderShipped', { id: 1 });
        equal(await short.next(), { id: 1 });
        await stage.call('trigger', name, 'order.shipped', { id: 2 });
        equal(await dotted.next(), { id: 2 });
        equal([await all.next(), await all.next()], ['OrderShipped', '.order.shipped']);

        const notes = heard();
        channel.notification(notes.listener);
        await stage.call('trigger', name, 'Illuminate\\Notifications\\Events\\BroadcastNotificationCreated', { note: 1 });
        equal(await notes.next(), { note: 1 });
      }
      ok(/^\d+\.\d+$/.test(echo.socketId()), `socket id ${echo.socketId()}`);
    },
  },
  {
    name: `Laravel Echo (${broadcaster}) shows who is here, joining and leaving`,
    async run(stage) {
      const room = stage.unique('room.');
      const [here, joining, leaving] = [heard(), heard(), heard()];
      const ann = stage.echo({ user_id: '1', user_info: { name: 'Ann' } }, broadcaster);
      ann.join(room).here(here.listener).joining(joining.listener).leaving(leaving.listener);
      equal(await here.next(), [{ name: 'Ann' }]);

      const bob = stage.echo({ user_id: '2', user_info: { name: 'Bob' } }, broadcaster);
      const bobHere = heard();
      bob.join(room).here(bobHere.listener);
      equal((await bobHere.next()).map((member) => member.name).sort(), ['Ann', 'Bob']);
      equal(await joining.next(), { name: 'Bob' });

      bob.leave(room);
      equal(await leaving.next(), { name: 'Bob' });
      equal([here.left(), joining.left(), leaving.left()], [[], [], []]);
    },
  },
  {
    name: `Laravel Echo (${broadcaster}) whispers`,
    async run(stage) {
      const room = stage.unique('room.');
      for (const open of ['private', 'join']) {
        const ann = stage.echo({ user_id: '1' }, broadcaster)[open](room);
        const bob = stage.echo({ user_id: '2' }, broadcaster)[open](room);
        await Promise.all([ready(ann), ready(bob)]);
        const got = heard();
        bob.listenForWhisper('typing', got.listener);
        ann.whisper('typing', { name: 'Ann' });
        equal(await got.next(), { name: 'Ann' });
      }
    },
  },
  {
    name: `Laravel Echo (${broadcaster}) reports a refused channel and goes on`,
    async run(stage) {
      const echo = stage.echo({ user_id: '1', forged: 'yes' }, broadcaster);
      const err = await promised('the error', (resolve) => echo.private(stage.unique('room.')).error(resolve));
      equal([err.type, err.status], ['AuthError', 401]);
      await ready(echo.channel(stage.unique('room.')));
      equal(echo.connectionStatus(), 'connected');
    },
  },
  {
    name: `Laravel Echo (${broadcaster}) leaves all channels and disconnects`,
    async run(stage) {
      const echo = stage.echo({ user_id: '1' }, broadcaster);
      const room = stage.unique('room.');
      await Promise.all([ready(echo.channel(room)), ready(echo.private(room)), ready(echo.join(room))]);
      echo.leave(room);
      for (const name of [room, `private-${room}`, `presence-${room}`]) {
        await stage.occupied(name, false);
      }
      echo.disconnect();
      equal(echo.connectionStatus(), 'disconnected');
    },
  },
  {
    name: `Laravel Echo (${broadcaster}) excludes the socket that caused an event`,
    async run(stage) {
      const room = stage.unique('room.');
      const [ann, bob] = [1, 2].map((id) => stage.echo({ user_id: String(id) }, broadcaster));
      const [toAnn, toBob] = [heard(), heard()];
      await Promise.all([ready(ann.channel(room).listen('.news', toAnn.listener)), ready(bob.channel(room).listen('.news', toBob.listener))]);
      await stage.call('trigger', room, 'news', 'to others', { socket_id: ann.socketId() });
      await stage.call('trigger', room, 'news', 'to all');
      equal([await toBob.next(), await toBob.next()], ['to others', 'to all']);
      equal(await toAnn.next(), 'to all');
    },
  },
]);
