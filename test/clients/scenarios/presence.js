import { equal, inbox, subscribed } from '../lib/stage.js';

const ann = { user_id: 'ann', user_info: { name: 'Ann' } };
const bob = { user_id: 'bob', user_info: { name: 'Bob' } };

// members is everything a client knows of a presence channel.
function members(channel) {
  const all = {};
  channel.members.each(({ id, info }) => {
    all[id] = info;
  });
  return { count: channel.members.count, me: channel.members.me, all };
}

const both = { ann: ann.user_info, bob: bob.user_info };

const comings = (prefix) => ({
  name: `P327: members of ${prefix}… are right after join, leave and second tab`,
  async run(stage) {
    const name = stage.unique(prefix);
    const first = (await stage.connect(ann)).subscribe(name);
    await subscribed(first);
    equal(members(first), { count: 1, me: { id: 'ann', info: ann.user_info }, all: { ann: ann.user_info } });
    const added = inbox(first, 'pusher:member_added');
    const removed = inbox(first, 'pusher:member_removed');

    // Bob comes.
    const tab1 = await stage.connect(bob);
    const tab1Added = inbox(tab1.subscribe(name), 'pusher:member_added');
    await subscribed(tab1.channel(name));
    equal(members(tab1.channel(name)), { count: 2, me: { id: 'bob', info: bob.user_info }, all: both });
    equal(await added.next(), { id: 'bob', info: bob.user_info });
    equal(members(first), { count: 2, me: { id: 'ann', info: ann.user_info }, all: both });
    equal(first.members.get('bob'), { id: 'bob', info: bob.user_info });
    equal(first.members.get('carol'), null);

    // His second tab changes nothing, and neither does closing it.
    const tab2 = await stage.connect(bob);
    await subscribed(tab2.subscribe(name));
    equal(members(tab2.channel(name)), { count: 2, me: { id: 'bob', info: bob.user_info }, all: both });
    tab1.disconnect();
    await stage.connect({ user_id: 'carol' }).then((pusher) => subscribed(pusher.subscribe(name)));
    equal(await added.next(), { id: 'carol', info: {} });
    equal(members(first).count, 3);
    equal([added.left(), removed.left()], [[], []], 'news of the second tab');

    // He goes by unsubscribing in the last tab.
    tab2.unsubscribe(name);
    equal(await removed.next(), { id: 'bob', info: bob.user_info });
    equal(members(first), { count: 2, me: { id: 'ann', info: ann.user_info }, all: { ann: ann.user_info, carol: {} } });
    equal(first.members.get('bob'), null);
    equal(tab1Added.left(), [], 'news of himself');
  },
});

export const scenarios = [
  comings('presence-'),
  comings('presence-cache-'),
  {
    name: 'P327: a member that only disconnects is removed',
    async run(stage) {
      const name = stage.unique('presence-');
      const channel = (await stage.connect(ann)).subscribe(name);
      await subscribed(channel);
      const removed = inbox(channel, 'pusher:member_removed');
      const other = await stage.connect(bob);
      await subscribed(other.subscribe(name));
      other.disconnect();
      equal(await removed.next(), { id: 'bob', info: bob.user_info });
      equal(members(channel).count, 1);
    },
  },
  {
    name: 'a user id that is a number in the token is a string for the other members',
    async run(stage) {
      const name = stage.unique('presence-');
      const other = (await stage.connect(ann)).subscribe(name);
      await subscribed(other);
      const added = inbox(other, 'pusher:member_added');
      const channel = (await stage.connect({ user_id: '10', numeric: 'yes' })).subscribe(name);
      await subscribed(channel);
      equal(channel.members.get('10'), { id: '10', info: {} });
      equal((await added.next()).id, '10');
    },
  },
];
