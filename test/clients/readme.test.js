// The first event in a browser, with the page and the commands of README.md.
import { after, before, suite, test } from 'node:test';
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import PusherServer from 'pusher';
import { launch } from './lib/browser.js';
import { binary } from './lib/settings.js';
import { equal, ok, within } from './lib/stage.js';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const readme = await readFile(here('../../README.md'), 'utf8');
const page = /```html\n([\s\S]*?)```/.exec(readme)[1];

// command returns a command of README.md that begins with words, for the
// program under test at another port.
function command(words, further) {
  const found = /go run \.\/cmd\/sockudo (.*)/g;
  const line = [...readme.matchAll(found)].map((m) => m[1].replace(/`.*/, '')).find((l) => l.startsWith(words));
  ok(line, `README.md has no command ${words}`);
  return `exec '${binary()}' ${line} ${further}`;
}

// start runs a command until stop and gives out what it prints, line by line.
function start(line, dir) {
  const child = spawn('sh', ['-c', line], { cwd: dir, env: { ...process.env, METRICS_PORT: '0' } });
  let text = '';
  let wake = () => {};
  child.stdout.on('data', (data) => {
    text += data;
    wake();
  });
  child.stderr.on('data', (data) => process.stderr.write(data));
  const ended = new Promise((resolve) => child.on('exit', resolve));
  return {
    line: (pattern) =>
      within((async () => {
        for (;;) {
          const found = pattern.exec(text);
          if (found) {
            return found;
          }
          await new Promise((resolve) => {
            wake = resolve;
          });
        }
      })(), pattern),
    async stop() {
      child.kill();
      return ended;
    },
  };
}

suite('README.md', () => {
  let browser;
  let dir;
  let server;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'sockudo-readme-'));
    browser = await launch();
  });
  after(async () => {
    await server?.stop();
    await browser?.close();
    await rm(dir, { recursive: true, force: true });
  });

  test('a first event in a browser', async () => {
    server = start(command('--dev', '--port 0'), dir);
    const url = (await server.line(/ready at (http:\S+)/))[1];
    const { port } = new URL(url);
    ok(page.includes('wsPort: 6001'), 'the page does not name the port');
    await writeFile(join(dir, 'index.html'), page.replace('wsPort: 6001', `wsPort: ${port}`));

    const tab = await browser.newPage();
    const library = await readFile(here('node_modules/pusher-js/dist/web/pusher.min.js'), 'utf8');
    await tab.route(/^https:\/\/js\.pusher\.com\/[\d.]+\/pusher\.min\.js$/, (route) =>
      route.fulfill({ contentType: 'text/javascript', body: library }));
    await tab.goto(`file://${join(dir, 'index.html')}`);

    const listener = start(command('listen', `--url ${url}`), dir);
    await listener.line(/subscription_succeeded/);
    const api = new PusherServer({ appId: 'demo-app', key: 'demo-key', secret: 'demo-secret', host: '127.0.0.1', port, useTLS: false });
    await within((async () => {
      const count = async () => (await (await api.get({ path: '/channels/my-channel', params: { info: 'subscription_count' } })).json()).subscription_count;
      while ((await count()) < 2);
    })(), 'the page to subscribe');

    await promisify(execFile)('sh', ['-c', command('trigger', `--url ${url}`)], { cwd: dir });
    await tab.waitForFunction(() => document.body.textContent.includes('{"message":"hello"}'));
    const [line] = await listener.line(/.*my-event.*/);
    equal(JSON.parse(line), { event: 'my-event', channel: 'my-channel', data: '{"message":"hello"}' });
    if (process.env.SOCKUDO_SCREENSHOT) {
      await tab.screenshot({ path: process.env.SOCKUDO_SCREENSHOT });
    }
    await listener.stop();
  });
});
