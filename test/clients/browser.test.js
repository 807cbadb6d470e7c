// The scenarios in Chromium, with the browser build of pusher-js.
import { after, before, suite, test } from 'node:test';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { Backend } from './lib/backend.js';
import * as settings from './lib/settings.js';
import { equal } from './lib/stage.js';
import { scenarios } from './scenarios/index.js';

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

// open loads the page in a new tab. Errors of the page fail what waits for it.
async function open() {
  const page = await browser.newPage();
  await page.goto(backend.url);
  await page.waitForFunction(() => window.ready);
  return page;
}

suite('pusher-js in Chromium', () => {
  for (const { name } of scenarios) {
    test(name, async () => {
      const page = await open();
      try {
        await page.evaluate((name) => window.play(name), name);
      } finally {
        await page.close();
      }
    });
  }

  test('P327: a member is there until the last of two real tabs is closed', async () => {
    const join = async (page, user) =>
      page.evaluate(async ([user, settingsOf]) => {
        const stage = window.openStage();
        const pusher = await stage.connect({ user_id: user, user_info: { name: user } });
        window.channel = pusher.subscribe(settingsOf.channel);
        window.removed = window.inbox(window.channel, 'pusher:member_removed');
        window.added = window.inbox(window.channel, 'pusher:member_added');
        await window.subscribed(window.channel);
        return window.channel.members.count;
      }, [user, { channel }]);
    const channel = `presence-tabs-${Math.random().toString(36).slice(2)}`;
    const [ann, bob1, bob2] = [await open(), await open(), await open()];
    equal(await join(ann, 'ann'), 1);
    equal(await join(bob1, 'bob'), 2);
    equal(await join(bob2, 'bob'), 2);
    await bob1.close();
    const carol = await open();
    equal(await join(carol, 'carol'), 3);
    await carol.close();
    equal((await ann.evaluate(() => window.removed.next())).id, 'carol');
    await bob2.close();
    equal((await ann.evaluate(() => window.removed.next())).id, 'bob');
    equal(await ann.evaluate(() => window.channel.members.count), 1);
    await ann.close();
  });
});
