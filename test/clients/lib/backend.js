// Backend is the web application behind the clients: it authorises channels
// and users, and publishes with the official server library. Scenarios run in
// Node and in a browser, so they reach everything over HTTP.
import http from 'node:http';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import PusherServer from 'pusher';
import { secrets, server } from './settings.js';

const root = fileURLToPath(new URL('..', import.meta.url));

// What a page may load, besides lib and scenarios.
const packages = {
  '/pusher-js.js': 'node_modules/pusher-js/dist/web/pusher-with-encryption.min.js',
  '/pusher-js-7.js': 'node_modules/pusher-js-7/dist/web/pusher-with-encryption.min.js',
  '/laravel-echo.js': 'node_modules/laravel-echo/dist/echo.js',
};

// page is a page with one of the libraries.
const page = (library) => `<!doctype html><meta charset="utf-8"><title>clients</title>
<link rel="icon" href="data:,"><script src="/${library}.js"></script>
<script type="module">
  import Echo from '/laravel-echo.js';
  import * as stage from '/lib/stage.js';
  import { scenarios } from '/scenarios/index.js';
  const settings = await (await fetch('/settings')).json();
  const open = () => new stage.Stage({ Pusher, Echo, backend: location.origin, ...settings });
  window.play = (name) => stage.play(scenarios.find((s) => s.name === name), open());
  window.openStage = open;
  window.subscribed = stage.subscribed;
  window.inbox = stage.inbox;
  window.ready = true;
</script>`;

export class Backend {
  #library;
  #http = http.createServer((req, res) => {
    this.#answer(req, res).catch((err) => {
      res.writeHead(500, { 'Content-Type': 'text/plain' }).end(String(err.stack));
    });
  });

  // The library talks to the server at a port.
  constructor(port = server.port) {
    this.#library = new PusherServer({
      appId: secrets.appId,
      key: server.key,
      secret: secrets.secret,
      host: server.host,
      port: String(port),
      useTLS: false,
      encryptionMasterKeyBase64: secrets.masterKey,
    });
  }

  // start listens on a free port of the loopback interface.
  async start() {
    await new Promise((resolve, reject) => this.#http.on('error', reject).listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${this.#http.address().port}`;
    return this;
  }

  close() {
    this.#http.closeAllConnections();
    return new Promise((resolve) => this.#http.close(resolve));
  }

  async #answer(req, res) {
    const url = new URL(req.url, this.url);
    const json = (value, status = 200) =>
      res.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));
    switch (`${req.method} ${url.pathname}`) {
      case 'POST /pusher/auth':
        return json(this.#authoriseChannel(new URLSearchParams(await body(req))));
      case 'POST /pusher/user-auth':
        return json(this.#authenticateUser(new URLSearchParams(await body(req))));
      case 'POST /api': {
        const { method, args } = JSON.parse(await body(req));
        return json(await this.#call(method, args));
      }
      case 'POST /restart': {
        const answer = await fetch(`${secrets.control}/restart${url.search}`, { method: 'POST' });
        return json(await answer.text(), answer.status);
      }
      case 'GET /settings':
        return json({ server });
      case 'GET /page/pusher-js':
      case 'GET /page/pusher-js-7':
        return res.writeHead(200, { 'Content-Type': 'text/html' }).end(page(url.pathname.split('/').pop()));
    }
    return this.#file(req, res, url.pathname);
  }

  // The parameters user_id, numeric, user_info, watchlist and forged stand for
  // what a real application knows from its session.
  #authoriseChannel(form) {
    const channel = form.get('channel_name');
    const id = form.get('user_id');
    const data = channel.startsWith('presence-')
      ? { user_id: form.has('numeric') ? Number(id) : id, user_info: JSON.parse(form.get('user_info') ?? '{}') }
      : undefined;
    const answer = this.#library.authorizeChannel(form.get('socket_id'), channel, data);
    return form.has('forged') ? { ...answer, auth: forge(answer.auth) } : answer;
  }

  #authenticateUser(form) {
    const user = { id: form.get('user_id'), user_info: JSON.parse(form.get('user_info') ?? '{}') };
    if (form.has('watchlist')) {
      user.watchlist = JSON.parse(form.get('watchlist'));
    }
    const answer = this.#library.authenticateUser(form.get('socket_id'), user);
    return form.has('forged') ? { ...answer, auth: forge(answer.auth) } : answer;
  }

  // #call makes one call of the server library and returns what the server
  // answered, also when the library throws because of it.
  async #call(method, args) {
    if (!['trigger', 'triggerBatch', 'get', 'post', 'sendToUser', 'terminateUserConnections'].includes(method)) {
      throw new Error(`the library has no method ${method}`);
    }
    try {
      const answer = await this.#library[method](...args);
      return { status: answer.status, body: await answer.json() };
    } catch (err) {
      if (!err.status) {
        throw err;
      }
      return { status: err.status, body: JSON.parse(err.body) };
    }
  }

  async #file(req, res, path) {
    const file = packages[path] ?? (/^\/(lib|scenarios)\/[a-z]+\.js$/.test(path) ? path.slice(1) : undefined);
    if (req.method !== 'GET' || !file) {
      return res.writeHead(404).end();
    }
    return res.writeHead(200, { 'Content-Type': 'text/javascript' }).end(await readFile(root + file));
  }
}

// forge changes the last digit of a signature.
function forge(auth) {
  return auth.slice(0, -1) + (auth.endsWith('0') ? '1' : '0');
}

async function body(req) {
  const parts = [];
  for await (const part of req) {
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}
