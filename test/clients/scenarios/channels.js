import { equal, errorCode, inbox, ok, subscribed } from '../lib/stage.js';

const plainClasses = ['news-', 'private-', 'private-encrypted-', 'presence-'];
const cacheClasses = ['cache-', 'private-cache-', 'private-encrypted-cache-', 'presence-cache-'];

const someone = { user_id: 'ann', user_info: { name: 'Ann' } };

// delivery: subscribe, receive, unsubscribe, receive nothing, subscribe again.
const delivery = (prefix) => ({
  name: `${prefix}… delivers while it is subscribed`,
  async run(stage) {
    const name = stage.unique(prefix);
    const pusher = await stage.connect(someone);
    const marker = pusher.subscribe(stage.unique('marker-'));
    await subscribed(marker);
    const marks = inbox(marker, 'mark');

    let channel = pusher.subscribe(name);
    await subscribed(channel);
    let news = inbox(channel, 'news');
    await stage.call('trigger', name, 'news', { hello: 'wörld ☃' });
    equal(await news.next(), { hello: 'wörld ☃' });

    // Once the server has answered a ping behind the unsubscribe, it has been processed.
    pusher.unsubscribe(name);
    const messages = inbox(pusher.connection, 'message');
    pusher.connection.sendActivityCheck();
    equal((await messages.next()).event, 'pusher:pong');
    await stage.call('trigger', name, 'news', 'unheard');
    await stage.call('trigger', marker.name, 'mark', 1);
    await marks.next();
    equal(messages.left(), [{ event: 'mark', channel: marker.name, data: 1 }], 'frames after unsubscribing');

    channel = pusher.subscribe(name);
    news = inbox(channel, 'news');
    await subscribed(channel);
    if (prefix.includes('cache-')) {
      equal(await news.next(), 'unheard', 'the cached event');
    }
    await stage.call('trigger', name, 'news', 'again');
    equal(await news.next(), 'again');
  },
});

const caching = (prefix) => ({
  name: `P330: ${prefix}… tells of a cache miss and replays the last event`,
  async run(stage) {
    const name = stage.unique(prefix);
    const first = (await stage.connect(someone)).subscribe(name);
    const misses = inbox(first, 'pusher:cache_miss');
    const news = inbox(first, 'news');
    await subscribed(first);
    await misses.next();

    await stage.call('trigger', name, 'news', { n: 1 });
    await stage.call('trigger', name, 'news', { n: 2 });
    equal([await news.next(), await news.next()], [{ n: 1 }, { n: 2 }]);

    const pusher = await stage.connect({ ...someone, user_id: 'bob' });
    const second = pusher.subscribe(name);
    const replayed = inbox(second, 'news');
    const missed = inbox(second, 'pusher:cache_miss');
    await subscribed(second);
    equal(await replayed.next(), { n: 2 }, 'replayed');
    await stage.call('trigger', name, 'news', { n: 3 });
    equal([await replayed.next(), await news.next()], [{ n: 3 }, { n: 3 }], 'live');
    equal([missed.left(), misses.left(), replayed.left(), news.left()], [[], [], [], []], 'left over');
  },
});

const whispers = (prefix, userId) => ({
  name: `${prefix}… relays client events to the others`,
  async run(stage) {
    const name = stage.unique(prefix);
    const ann = (await stage.connect({ user_id: 'ann' })).subscribe(name);
    const bob = (await stage.connect({ user_id: 'bob' })).subscribe(name);
    const [toAnn, toBob] = [inbox(ann, 'client-typing'), inbox(bob, 'client-typing')];
    const [endAnn, endBob] = [inbox(ann, 'end'), inbox(bob, 'end')];
    await Promise.all([subscribed(ann), subscribed(bob)]);
    ok(ann.trigger('client-typing', { on: true, 'naïve': '"☃"' }), 'not sent');
    const { data, metadata } = await toBob.take();
    equal(data, { on: true, 'naïve': '"☃"' });
    equal(metadata?.user_id, userId, 'user_id of the metadata');
    bob.trigger('client-typing', 'text');
    equal(await toAnn.next(), 'text');
    await stage.call('trigger', name, 'end', 0);
    await Promise.all([endAnn.next(), endBob.next()]);
    equal([toAnn.left(), toBob.left()], [[], []], 'echoes');
  },
});

export const scenarios = [
  ...[...plainClasses, ...cacheClasses].map(delivery),
  ...cacheClasses.map(caching),
  whispers('private-', undefined),
  whispers('private-cache-', undefined),
  whispers('presence-', 'ann'),
  whispers('presence-cache-', 'ann'),
  {
    name: 'every kind of data arrives as it was sent',
    async run(stage) {
      const name = stage.unique('news-');
      const channel = (await stage.connect()).subscribe(name);
      const news = inbox(channel, 'news');
      await subscribed(channel);
      const all = ['', 'text', '"quoted"', 'a\nb\t\u0000\u2028', '𝄞 naïve ☃', 0, 1.5, true, null, [], [1, [2]], {}, { a: { b: null } }, 'x'.repeat(10_000)];
      for (const data of all) {
        await stage.call('trigger', name, 'news', data);
        // Clients parse a string that is JSON itself.
        equal(await news.next(), data === '"quoted"' ? 'quoted' : data);
      }
      for (const event of ['a.b', 'App\\Events\\Shipped', 'with space', 'é', 'client-from-the-server']) {
        const got = inbox(channel, event);
        await stage.call('trigger', name, event, event);
        equal(await got.next(), event);
      }
    },
  },
  {
    name: 'a subscription asked for before the connection is there succeeds',
    async run(stage) {
      const pusher = stage.client(someone);
      const channels = ['news-', 'private-', 'presence-'].map((prefix) => pusher.subscribe(stage.unique(prefix)));
      await Promise.all(channels.map(subscribed));
    },
  },
  {
    name: 'a message for everybody reaches all subscribers, without the excluded one',
    async run(stage) {
      const name = stage.unique('news-');
      const [a, b] = await Promise.all([stage.connect(), stage.connect()]);
      const [toA, toB] = [a, b].map((pusher) => inbox(pusher.subscribe(name), 'news'));
      await Promise.all([subscribed(a.channel(name)), subscribed(b.channel(name))]);
      await stage.call('trigger', name, 'news', 'for b', { socket_id: a.connection.socket_id });
      await stage.call('trigger', name, 'news', 'for both');
      equal([await toB.next(), await toB.next()], ['for b', 'for both']);
      equal(await toA.next(), 'for both');
    },
  },
  ...['private-', 'private-encrypted-', 'presence-', 'private-cache-', 'private-encrypted-cache-', 'presence-cache-'].map((prefix) => ({
    name: `P326: ${prefix}… with a bad signature raises pusher:subscription_error and the client stays connected`,
    async run(stage) {
      const pusher = await stage.connect({ ...someone, forged: 'yes' });
      const good = pusher.subscribe(stage.unique('news-'));
      await subscribed(good);
      const news = inbox(good, 'news');
      const socket = pusher.connection.socket_id;
      const connectionErrors = inbox(pusher.connection, 'error');

      const bad = pusher.subscribe(stage.unique(prefix));
      const successes = inbox(bad, 'pusher:subscription_succeeded');
      const err = await inbox(bad, 'pusher:subscription_error').next();
      equal([err.type, err.status], ['AuthError', 401]);
      ok(err.error.includes('Invalid signature'), err.error);
      equal(await errorCode(connectionErrors), 4009);

      await stage.call('trigger', bad.name, 'news', 'not for you');
      await stage.call('trigger', good.name, 'news', 'still here');
      equal(await news.next(), 'still here');
      equal([pusher.connection.state, pusher.connection.socket_id], ['connected', socket]);
      equal([successes.left(), bad.subscribed], [[], false]);
    },
  })),
  {
    name: 'an invalid channel name raises pusher:subscription_error',
    async run(stage) {
      const pusher = await stage.connect();
      const err = await inbox(pusher.subscribe('not a name'), 'pusher:subscription_error').next();
      equal([err.type, err.status], ['InvalidChannel', 400]);
      equal(pusher.connection.state, 'connected');
    },
  },
  ...['news-', 'private-', 'cache-', 'private-encrypted-'].map((prefix) => ({
    name: `P330: ${prefix}… tells its subscribers how many they are`,
    async run(stage) {
      const name = stage.unique(prefix);
      const channel = (await stage.connect()).subscribe(name);
      const counts = inbox(channel, 'pusher:subscription_count');
      equal(await counts.next(), { subscription_count: 1 });
      const other = await stage.connect();
      other.subscribe(name);
      equal(await counts.next(), { subscription_count: 2 });
      equal(channel.subscriptionCount, 2);
      other.disconnect();
      equal(await counts.next(), { subscription_count: 1 });
      equal(channel.subscriptionCount, 1);
    },
  })),
];
