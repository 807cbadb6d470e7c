import { equal, errorCode, inbox, ok, state, subscribed, within } from '../lib/stage.js';

// range is 0 to n-1.
const range = (n) => Array.from({ length: n }, (_, i) => i);

// everywhere does something at all nodes at once.
const everywhere = (nodes, f) => Promise.all(nodes.map(f));

// join subscribes a client of each node to a channel.
async function join(nodes, name, who = (i) => ({ user_id: `user-${i}` })) {
  return everywhere(nodes, async (node, i) => {
    const pusher = await node.connect(who(i));
    const channel = pusher.subscribe(name);
    await subscribed(channel);
    return channel;
  });
}

// told waits until all nodes know what a node has done so far: what it tells of
// itself arrives in the order in which it happened.
async function told(nodes, node) {
  const name = node.unique('fence-');
  await subscribed((await node.connect()).subscribe(name));
  await everywhere(nodes, (other) => other.occupied(name, true));
}

// inOrder waits for the end that each sender has sent, checks that all of its
// events came before, each once and in order, and returns the ends.
async function inOrder(box, end, senders, count, where) {
  const ends = [];
  for (const _ of senders) {
    ends.push(await end.take());
  }
  const heard = box.left();
  equal(heard.length, count * senders.length, `events at ${where}`);
  for (const from of senders) {
    equal(heard.filter((e) => e.from === from).map((e) => e.n), range(count), `heard at ${where} from node ${from}`);
  }
  return ends;
}

const news = (prefix) => ({
  name: `${prefix}… at one node is heard at all nodes, once and in order`,
  async run(nodes) {
    const name = nodes[0].unique(prefix);
    const channels = await join(nodes, name);
    const boxes = channels.map((channel) => inbox(channel, 'news'));
    const ends = channels.map((channel) => inbox(channel, 'end'));
    for (const [from, node] of nodes.entries()) {
      for (const n of range(20)) {
        await node.call('trigger', name, 'news', { from, n });
      }
      await node.call('triggerBatch', range(5).map((n) => ({ channel: name, name: 'news', data: { from, n: 20 + n } })));
      await node.call('trigger', name, 'end', from);
    }
    for (const i of nodes.keys()) {
      await inOrder(boxes[i], ends[i], range(nodes.length), 25, `node ${i}`);
    }
  },
});

const exclusion = (prefix) => ({
  name: `${prefix}… excludes a socket of another node`,
  async run(nodes) {
    const name = nodes[0].unique(prefix);
    const channels = await join(nodes, name);
    const boxes = channels.map((channel) => inbox(channel, 'news'));
    const ends = channels.map((channel) => inbox(channel, 'end'));
    for (const [from, node] of nodes.entries()) {
      const { socket_id } = channels[(from + 1) % nodes.length].pusher.connection;
      await node.call('trigger', name, 'news', from, { socket_id });
      await node.call('triggerBatch', [{ channel: name, name: 'news', data: from, socket_id }]);
      await node.call('trigger', name, 'end', from);
    }
    for (const [i, end] of ends.entries()) {
      for (const _ of nodes) {
        await end.next();
      }
      const want = [...nodes.keys()].filter((from) => (from + 1) % nodes.length !== i).flatMap((from) => [from, from]);
      equal(boxes[i].left().sort(), want, `heard at node ${i}`);
    }
  },
});

const whispers = (prefix) => ({
  name: `${prefix}… relays client events to the other nodes, in order`,
  async run(nodes) {
    const name = nodes[0].unique(prefix);
    const channels = await join(nodes, name);
    const boxes = channels.map((channel) => inbox(channel, 'client-typing'));
    const ends = channels.map((channel) => inbox(channel, 'client-end'));
    for (const [from, channel] of channels.entries()) {
      for (const n of range(50)) {
        ok(channel.trigger('client-typing', { from, n }), 'not sent');
      }
      channel.trigger('client-end', from);
    }
    for (const i of nodes.keys()) {
      const others = range(nodes.length).filter((from) => from !== i);
      for (const { data: from, metadata } of await inOrder(boxes[i], ends[i], others, 50, `node ${i}`)) {
        equal(metadata?.user_id, prefix.startsWith('presence-') ? `user-${from}` : undefined, 'user_id of the metadata');
      }
    }
  },
});

// follow keeps the list that a member's snapshot and events lead to, compares
// it with the list of the library at each of them, and counts the events.
function follow(channel) {
  const ids = new Set();
  const seen = { added: {}, removed: {}, wrong: [] };
  const compare = (what) => {
    const listed = [];
    channel.members.each(({ id }) => listed.push(id));
    if (String(listed.sort()) !== String([...ids].sort()) || channel.members.count !== ids.size) {
      seen.wrong.push(`after ${what} the list of ${channel.members.count} is ${listed}, the events say ${[...ids].sort()}`);
    }
  };
  channel.bind('pusher:subscription_succeeded', (members) => {
    ids.clear();
    members.each(({ id }) => ids.add(id));
    compare('the snapshot');
  });
  channel.bind('pusher:member_added', ({ id, info }) => {
    if (ids.has(id) || info?.name !== `Name of ${id}`) {
      seen.wrong.push(`member_added of ${id} ${JSON.stringify(info)}, who is there: ${ids.has(id)}`);
    }
    ids.add(id);
    seen.added[id] = (seen.added[id] ?? 0) + 1;
    compare(`the coming of ${id}`);
  });
  channel.bind('pusher:member_removed', ({ id }) => {
    if (!ids.delete(id)) {
      seen.wrong.push(`member_removed of ${id}, who is not there`);
    }
    seen.removed[id] = (seen.removed[id] ?? 0) + 1;
    compare(`the going of ${id}`);
  });
  return { channel, ids, seen };
}

const orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

const presence = {
  name: 'a user at three nodes is added once and removed once, in whatever order the tabs come and go',
  async run(nodes) {
    const name = nodes[0].unique('presence-');
    const member = async (node, id) => {
      const pusher = await node.connect({ user_id: id, user_info: { name: `Name of ${id}` } });
      const followed = follow(pusher.subscribe(name));
      await subscribed(followed.channel);
      return { ...followed, pusher };
    };
    const watchers = await everywhere(nodes, (node, i) => member(node, `watcher-${i}`));
    const users = orders.flatMap((come) => orders.map((go) => ({ id: `user-${come.join('')}-${go.join('')}`, come, go, tabs: [] })));
    const followers = [...watchers];

    // settle waits until all nodes know of so many subscriptions, and everybody
    // there has heard who is there.
    const settle = async (subscriptions, ids) => {
      const want = [...watchers.keys()].map((i) => `watcher-${i}`).concat(ids).sort();
      for (const node of nodes) {
        const end = Date.now() + 30_000;
        for (;;) {
          const { subscription_count, user_count } = await node.call('get', { path: `/channels/${name}`, params: { info: 'subscription_count,user_count' } });
          if (subscription_count === subscriptions && user_count === want.length) {
            break;
          }
          ok(Date.now() < end, `there are ${subscription_count} subscriptions of ${user_count}, want ${subscriptions} of ${want.length}`);
        }
        const { users: listed } = await node.call('get', { path: `/channels/${name}/users` });
        equal(listed.map(({ id }) => id).sort(), want, 'the list of the API');
      }
      for (const { ids: heard, pusher } of followers.filter((f) => f.pusher.connection.state === 'connected')) {
        await within(new Promise((resolve) => {
          const look = () => (String([...heard].sort()) === String(want) ? resolve() : setTimeout(look, 5));
          look();
        }), `the events at ${pusher.config?.wsPort ?? 'a node'}: ${[...heard].sort()} should become ${want}`, 30_000);
      }
    };
    const all = users.map(({ id }) => id);
    await settle(nodes.length, []);
    for (const step of nodes.keys()) {
      followers.push(...await Promise.all(users.map(async (user) => {
        const tab = await member(nodes[user.come[step]], user.id);
        user.tabs[user.come[step]] = tab;
        return tab;
      })));
      await settle(nodes.length + (step + 1) * users.length, all);
    }
    for (const step of nodes.keys()) {
      for (const [i, user] of users.entries()) {
        const { pusher } = user.tabs[user.go[step]];
        if (i % 2) {
          pusher.unsubscribe(name);
        }
        pusher.disconnect();
      }
      const left = nodes.length - 1 - step;
      await settle(nodes.length + left * users.length, left ? all : []);
    }
    const once = Object.fromEntries(all.map((id) => [id, 1]));
    for (const [i, { seen }] of watchers.entries()) {
      const others = Object.fromEntries(Object.entries(seen.added).filter(([id]) => !id.startsWith('watcher-')));
      equal([others, seen.removed], [once, once], `the events at node ${i}`);
    }
    equal(followers.flatMap(({ seen }) => seen.wrong), [], 'what contradicts itself');
  },
};

export const scenarios = [
  ...['news-', 'private-', 'private-encrypted-', 'presence-', 'cache-'].map(news),
  ...['news-', 'private-', 'presence-'].map(exclusion),
  ...['private-', 'presence-'].map(whispers),
  presence,
  {
    name: 'a user event reaches every tab at every node, once and in order',
    async run(nodes) {
      const user_id = nodes[0].unique('user-');
      const tabs = await everywhere(nodes, (node) => node.signedIn({ user_id }));
      const other = await nodes[1].signedIn({ user_id: nodes[1].unique('user-') });
      const boxes = tabs.map((pusher) => inbox(pusher.user, 'greeting'));
      const ends = tabs.map((pusher) => inbox(pusher.user, 'end'));
      const others = inbox(other.user, 'greeting');
      for (const [from, node] of nodes.entries()) {
        for (const n of range(10)) {
          await node.call('sendToUser', user_id, 'greeting', { from, n });
        }
        await node.call('sendToUser', user_id, 'end', from);
      }
      for (const i of nodes.keys()) {
        await inOrder(boxes[i], ends[i], range(nodes.length), 10, `node ${i}`);
      }
      equal(others.left(), [], 'what another user heard');
    },
  },
  {
    name: 'terminating a user at one node closes the tabs at all nodes and nobody else',
    async run(nodes) {
      for (const node of nodes) {
        const user_id = node.unique('user-');
        const tabs = await everywhere(nodes, (other) => other.signedIn({ user_id }));
        const others = await everywhere(nodes, (other) => other.signedIn({ user_id: other.unique('user-') }));
        const errors = tabs.map((pusher) => inbox(pusher.connection, 'error'));
        await node.call('terminateUserConnections', user_id);
        for (const [i, pusher] of tabs.entries()) {
          equal(await errorCode(errors[i]), 4009);
          await state(pusher, 'disconnected');
        }
        for (const pusher of others) {
          await subscribed(pusher.subscribe(node.unique('news-')));
          equal(pusher.connection.state, 'connected');
        }
      }
    },
  },
  {
    name: 'a watchlist tells once that a user comes online and goes offline, at whatever nodes',
    async run(nodes) {
      for (const [i, node] of nodes.entries()) {
        const [first, second] = [nodes[(i + 1) % nodes.length], nodes[(i + 2) % nodes.length]];
        const user_id = node.unique('user-');
        const watcher = await node.connect({ user_id: node.unique('user-'), watchlist: [user_id] });
        const online = inbox(watcher.user.watchlist, 'online');
        const offline = inbox(watcher.user.watchlist, 'offline');
        watcher.signin();
        equal((await offline.next()).user_ids, [user_id]);
        for (const _ of range(3)) {
          const tab1 = await first.signedIn({ user_id });
          equal((await online.next()).user_ids, [user_id]);
          const tab2 = await second.signedIn({ user_id });
          await told(nodes, second);
          tab1.disconnect();
          await told(nodes, first);
          equal([online.left(), offline.left()], [[], []], 'news of the second tab');
          tab2.disconnect();
          equal((await offline.next()).user_ids, [user_id]);
        }
        equal([online.left(), offline.left()], [[], []]);
      }
    },
  },
  {
    name: 'the last event of a cache channel is replayed at every node',
    async run(nodes) {
      for (const node of nodes) {
        const name = node.unique('cache-');
        const first = await join(nodes, name);
        const boxes = first.map((channel) => inbox(channel, 'news'));
        await node.call('trigger', name, 'news', 1);
        await node.call('trigger', name, 'news', 2);
        for (const box of boxes) {
          equal([await box.next(), await box.next()], [1, 2]);
        }
        for (const other of nodes) {
          const replayed = inbox((await other.connect()).subscribe(name), 'news');
          equal(await replayed.next(), 2);
        }
      }
    },
  },
];
