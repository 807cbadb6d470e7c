// The scenarios in Chromium, with the browser builds of the current and the
// previous major of pusher-js.
import { after, before, suite, test } from 'node:test';
import { createRequire } from 'node:module';
import { Backend } from './lib/backend.js';
import { launch } from './lib/browser.js';
import { equal } from './lib/stage.js';
import { scenarios } from './scenarios/index.js';

const require = createRequire(import.meta.url);
const backend = new Backend();
let browser;

before(async () => {
  await backend.start();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await backend.close();
});

// open loads the page of a library in a new tab. Errors of the page fail what
// waits for it.
async function open(library) {
  const page = await browser.newPage();
  await page.goto(`${backend.url}/page/${library}`);
  await page.waitForFunction(() => window.ready);
  return page;
}

for (const library of ['pusher-js', 'pusher-js-7']) {
  suite(`${library} ${require(`${library}/package.json`).version} in Chromium`, () => {
    let page;
    before(async () => {
      page = await open(library);
    });
    after(() => page?.close());

    for (const { name } of scenarios) {
      test(name, () => page.evaluate((name) => window.play(name), name));
    }

    test('P327: a member is there until the last of two real tabs is closed', () => realTabs(library));
  });
}

async function realTabs(library) {
  const join = async (page, user) =>
    page.evaluate(async ([user, channel]) => {
      const stage = window.openStage();
      const pusher = await stage.connect({ user_id: user, user_info: { name: user } });
      window.channel = pusher.subscribe(channel);
      window.removed = window.inbox(window.channel, 'pusher:member_removed');
      await window.subscribed(window.channel);
      return window.channel.members.count;
    }, [user, channel]);
  const channel = `presence-tabs-${Math.random().toString(36).slice(2)}`;
  const [ann, bob1, bob2] = [await open(library), await open(library), await open(library)];
  equal(await join(ann, 'ann'), 1);
  equal(await join(bob1, 'bob'), 2);
  equal(await join(bob2, 'bob'), 2);
  await bob1.close();
  const carol = await open(library);
  equal(await join(carol, 'carol'), 3);
  await carol.close();
  equal((await ann.evaluate(() => window.removed.next())).id, 'carol');
  await bob2.close();
  equal((await ann.evaluate(() => window.removed.next())).id, 'bob');
  equal(await ann.evaluate(() => window.channel.members.count), 1);
  await ann.close();
}
