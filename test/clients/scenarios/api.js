import { equal, inbox, ok, subscribed } from '../lib/stage.js';

export const scenarios = [
  {
    name: 'P331: the server library triggers to several channels and asks for their counts',
    async run(stage) {
      const [a, b] = [stage.unique('news-'), stage.unique('presence-')];
      const empty = stage.unique('news-');
      const pusher = await stage.connect({ user_id: 'ann' });
      const second = await stage.connect({ user_id: 'ann' });
      const boxes = [a, b].map((name) => inbox(pusher.subscribe(name), 'news'));
      await Promise.all([a, b].map((name) => subscribed(pusher.channel(name))));
      await subscribed(second.subscribe(b));
      equal(await stage.call('trigger', [a, b], 'news', { n: 1 }), {});
      for (const box of boxes) {
        equal(await box.next(), { n: 1 });
      }
      equal(await stage.call('trigger', [a, b, empty], 'news', 2, { info: 'user_count,subscription_count' }), {
        channels: {
          [a]: { subscription_count: 1 },
          [b]: { subscription_count: 2, user_count: 1 },
          [empty]: { subscription_count: 0 },
        },
      });
    },
  },
  {
    name: 'P331: the server library triggers a batch, also with encrypted channels',
    async run(stage) {
      const names = ['news-', 'private-encrypted-', 'presence-'].map((prefix) => stage.unique(prefix));
      const pusher = await stage.connect({ user_id: 'ann' });
      const boxes = names.map((name) => inbox(pusher.subscribe(name), 'news'));
      await Promise.all(names.map((name) => subscribed(pusher.channel(name))));
      const batch = names.map((channel, n) => ({ channel, name: 'news', data: { n } }));
      equal(await stage.call('triggerBatch', batch), {});
      for (const [n, box] of boxes.entries()) {
        equal(await box.next(), { n });
      }
      const asked = names.map((channel, n) => ({ channel, name: 'news', data: n, ...(n === 1 ? {} : { info: 'subscription_count,user_count' }) }));
      equal(await stage.call('triggerBatch', asked), {
        batch: [{ subscription_count: 1 }, {}, { subscription_count: 1, user_count: 1 }],
      });
    },
  },
  {
    name: 'P331: the server library asks for channels, a channel and its users',
    async run(stage) {
      const prefix = stage.unique('presence-');
      const [room, cached] = [`${prefix}-room`, stage.unique('cache-')];
      for (const user_id of ['ann', 'ann', 'bob']) {
        await subscribed((await stage.connect({ user_id })).subscribe(room));
      }
      const get = (path, params) => stage.call('get', { path, params });
      equal(await get('/channels', { filter_by_prefix: prefix }), { channels: { [room]: {} } });
      equal(await get('/channels', { filter_by_prefix: prefix, info: 'user_count,subscription_count' }), {
        channels: { [room]: { user_count: 2, subscription_count: 3 } },
      });
      ok(room in (await get('/channels')).channels, 'the channel is not in the list of all');
      equal(await get(`/channels/${room}`, { info: 'user_count,subscription_count' }), {
        occupied: true, user_count: 2, subscription_count: 3,
      });
      const { users } = await get(`/channels/${room}/users`);
      equal(users.map((user) => user.id).sort(), ['ann', 'bob']);

      equal(await get(`/channels/${cached}`, { info: 'cache' }), { occupied: false, cache: null });
      await stage.call('trigger', cached, 'news', { n: 1 });
      const { cache } = await get(`/channels/${cached}`, { info: 'cache' });
      equal(cache.data, '{"n":1}');
      ok(Number.isInteger(cache.ttl) && cache.ttl > 0, `ttl ${cache.ttl}`);
    },
  },
  {
    name: 'the server library is told what it did wrong',
    async run(stage) {
      const tooLarge = await stage.api('trigger', 'news', 'news', 'x'.repeat(200 * 1024));
      equal([tooLarge.status, tooLarge.body.code, tooLarge.body.status], [413, 'payload_too_large', 413]);
      const noPresence = await stage.api('get', { path: '/channels/news/users' });
      equal([noPresence.status, noPresence.body.code], [400, 'invalid_input']);
      const reserved = await stage.api('trigger', 'news', 'pusher:fake', '');
      equal(reserved.status, 400);
    },
  },
];
