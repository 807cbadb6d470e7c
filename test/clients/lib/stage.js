// What scenarios are written with. It runs unchanged in Node and in a browser.

const patience = 20_000; // ms to wait for anything

// within fails when a promise takes too long.
export function within(promise, what, ms = patience) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// inbox collects what is bound to an event from now on.
export function inbox(target, event) {
  const got = [];
  const waiting = [];
  target.bind(event, (data, metadata) => {
    const item = { data, metadata };
    const taker = waiting.shift();
    if (taker) {
      taker(item);
    } else {
      got.push(item);
    }
  });
  return {
    // next returns the data of the oldest event not yet taken.
    async next() {
      return (await this.take()).data;
    },
    // take returns it with its metadata.
    take() {
      return got.length > 0 ? Promise.resolve(got.shift()) : within(new Promise((resolve) => waiting.push(resolve)), event);
    },
    // left returns the data of all that has come and was not taken.
    left() {
      return got.map((item) => item.data);
    },
  };
}

// state waits until a client is in a state.
export function state(pusher, name, ms) {
  if (pusher.connection.state === name) {
    return Promise.resolve();
  }
  return within(new Promise((resolve) => pusher.connection.bind(name, resolve)), `state ${name}`, ms);
}

// errorCode waits for an error of a connection and returns its code. Errors of
// the handshake are wrapped once more than later ones.
export async function errorCode(errors) {
  const err = await errors.next();
  return (err.error ?? err).data?.code;
}

// subscribed waits for a subscription to be accepted.
export function subscribed(channel) {
  if (channel.subscribed) {
    return Promise.resolve();
  }
  const answer = new Promise((resolve, reject) => {
    channel.bind('pusher:subscription_succeeded', resolve);
    channel.bind('pusher:subscription_error', (err) => {
      reject(new Error(`${channel.name}: ${JSON.stringify(err)}`));
    });
  });
  return within(answer, `the subscription to ${channel.name}`);
}

// canonical is JSON whose keys are in order.
function canonical(value) {
  return JSON.stringify(value, (_, v) =>
    v && typeof v === 'object' && !Array.isArray(v) ? Object.fromEntries(Object.entries(v).sort()) : v,
  );
}

export function equal(got, want, what = 'value') {
  if (canonical(got) !== canonical(want)) {
    throw new Error(`${what}: got ${canonical(got)}, want ${canonical(want)}`);
  }
}

export function ok(condition, what) {
  if (!condition) {
    throw new Error(what);
  }
}

// A Stage makes the clients of one scenario and ends them with it.
export class Stage {
  #clients = [];
  #names = 0;
  #id = Math.random().toString(36).slice(2, 8);

  constructor({ Pusher, Echo, backend, server }) {
    this.Pusher = Pusher;
    this.Echo = Echo;
    this.backend = backend;
    this.server = server;
  }

  // unique returns a name that no other scenario uses.
  unique(prefix) {
    this.#names++;
    return `${prefix}${this.#id}-${this.#names}`;
  }

  // options are what an application gives to pusher-js. The properties of who
  // (user_id, user_info, watchlist, forged) reach the backend.
  options(who = {}, port = this.server.port) {
    const params = {};
    for (const [name, value] of Object.entries(who)) {
      params[name] = typeof value === 'string' ? value : JSON.stringify(value);
    }
    return {
      cluster: 'local',
      wsHost: this.server.host,
      wsPort: port,
      httpHost: this.server.host,
      httpPort: port,
      forceTLS: false,
      enabledTransports: ['ws'],
      channelAuthorization: { endpoint: `${this.backend}/pusher/auth`, transport: 'ajax', params },
      userAuthentication: { endpoint: `${this.backend}/pusher/user-auth`, transport: 'ajax', params },
    };
  }

  // client starts a client without waiting for it.
  client(who, { key = this.server.key, port } = {}) {
    return this.adopt(new this.Pusher(key, this.options(who, port)));
  }

  // connect returns a connected client.
  async connect(who, other) {
    const pusher = this.client(who, other);
    await state(pusher, 'connected');
    return pusher;
  }

  // signedIn returns a connected client that is signed in.
  async signedIn(who) {
    const pusher = await this.connect(who);
    pusher.signin();
    await within(pusher.user.signinDonePromise, 'the sign-in');
    ok(pusher.user.user_data, 'the sign-in was refused');
    return pusher;
  }

  // echo returns Laravel Echo on a client of its own.
  echo(who, broadcaster = 'reverb') {
    const options = this.options(who);
    const echo = new this.Echo({ broadcaster, key: this.server.key, Pusher: this.Pusher, withoutInterceptors: true, ...options });
    this.adopt(echo.connector.pusher);
    return echo;
  }

  adopt(pusher) {
    this.#clients.push(pusher);
    return pusher;
  }

  // api calls a method of the server library and returns status and body.
  async api(method, ...args) {
    const res = await fetch(`${this.backend}/api`, { method: 'POST', body: JSON.stringify({ method, args }) });
    if (!res.ok) {
      throw new Error(`${method}: ${await res.text()}`);
    }
    return res.json();
  }

  // call is api for calls that have to succeed; it returns the body.
  async call(method, ...args) {
    const { status, body } = await this.api(method, ...args);
    equal(status, 200, `status of ${method} (${JSON.stringify(body)})`);
    return body;
  }

  // restart ends the server in good order (term) or at once (kill) and returns
  // when the next one answers.
  async restart(how) {
    const res = await fetch(`${this.backend}/restart?how=${how}`, { method: 'POST' });
    ok(res.ok, `restart: ${await res.text()}`);
  }

  // occupied asks the API until a channel is as occupied as it should be.
  async occupied(channel, want) {
    const end = Date.now() + patience;
    for (;;) {
      const body = await this.call('get', { path: `/channels/${channel}` });
      if (body.occupied === want) {
        return;
      }
      ok(Date.now() < end, `${channel} is still ${want ? 'vacant' : 'occupied'}`);
    }
  }

  close() {
    for (const pusher of this.#clients) {
      pusher.disconnect();
    }
  }
}

// play runs one scenario.
export async function play(scenario, stage) {
  try {
    await scenario.run(stage);
  } finally {
    stage.close();
  }
}
