// The scenarios in Chromium, with the browser builds of the current and the
// previous major of pusher-js.
import { after, before, suite, test } from 'node:test';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { Backend } from './lib/backend.js';
import * as settings from './lib/settings.js';
import { equal } from './lib/stage.js';
import { scenarios } from './scenarios/index.js';

const require = createRequire(import.meta.url);
const backend = new Backend();
let profile;
let browser;

before(async () => {
  await backend.start();
  profile = await mkdtemp(join(tmpdir(), 'sockudo-chromium-'));
  browser = await chromium.launchPersistentContext(profile, {
    executablePath: settings.chromium(),
    headless: true,
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ],
  });
});

after(async () => {
  await browser?.close();
  await backend.close();
  await rm(profile, { recursive: true, force: true });
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
