// The server under test, from the environment:
//
//   SOCKUDO_HOST, SOCKUDO_PORT                      the server
//   SOCKUDO_APP_ID, SOCKUDO_APP_KEY, SOCKUDO_APP_SECRET
//   SOCKUDO_FULL_PORT                               a server with the same app and room for one connection
//   SOCKUDO_NODES                                   ports of the nodes of a cluster, with commas, for cluster.test.js
//   SOCKUDO_CONTROL                                 URL of a control server: POST /restart?how=term|kill
//   SOCKUDO_TEST_CHROMIUM                           path of the browser, for browser.test.js and readme.test.js
//   SOCKUDO_BINARY                                  path of the program, for readme.test.js
//   SOCKUDO_SCREENSHOT                              where readme.test.js puts a picture of the page, if it is to
//
// The app has client messages, watchlist events and subscription counts on.
function required(name) {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set; these tests are run by: go test ./internal/e2e -run OfficialClients`);
  }
  return value;
}

export const server = {
  host: required('SOCKUDO_HOST'),
  port: Number(required('SOCKUDO_PORT')),
  get fullPort() {
    return Number(required('SOCKUDO_FULL_PORT'));
  },
  key: required('SOCKUDO_APP_KEY'),
};

export const secrets = {
  appId: required('SOCKUDO_APP_ID'),
  secret: required('SOCKUDO_APP_SECRET'),
  get control() {
    return required('SOCKUDO_CONTROL');
  },
  // Bytes 0 to 31. Only the app's own endpoints and the clients know it.
  masterKey: Buffer.from(Array.from({ length: 32 }, (_, i) => i)).toString('base64'),
};

export const nodes = () => required('SOCKUDO_NODES').split(',').map(Number);
export const chromium = () => required('SOCKUDO_TEST_CHROMIUM');
export const binary = () => required('SOCKUDO_BINARY');
