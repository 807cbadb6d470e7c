// A DynamoDB endpoint for the tests: dynalite, mended where it is not like
// DynamoDB and tests would notice, and filled before it listens if that is wanted.
//
//   node server.js --host HOST --port PORT --path FOLDER [--apps N]
//
// The other options are those of dynalite.
'use strict'
const db = require('dynalite/db')
const argv = require('minimist')(process.argv.slice(2))

// dynalite ends itself when a client is gone in the middle of a request. Tests
// cut connections on purpose.
process.on('uncaughtException', (err) => {
  if (err.code === 'ECONNRESET' || err.code === 'EPIPE') return
  console.error(err)
  process.exit(1)
})
if (process.pid === 1) process.on('SIGINT', process.exit) // as in a container

// Two lists, or two maps, are equal if what is in them is. dynalite compares
// references in conditions, so what is equal becomes the same object.
const checkConditional = db.checkConditional
db.checkConditional = (data, item) => {
  const known = new Map()
  const same = (v) => {
    const text = JSON.stringify(v, (_, x) => x && x.constructor === Object ? Object.fromEntries(Object.entries(x).sort()) : x)
    if (!known.has(text)) known.set(text, v)
    return known.get(text)
  }
  const value = (v) => v && v.L ? { L: v.L.map(same) } : v && v.M ? { M: same(v.M) } : v
  const term = (e) => e && e.args ? { ...e, args: e.args.map(term) } : value(e)
  if (data._condition) {
    data = { ...data, _condition: { ...data._condition, expression: term(data._condition.expression) } }
    item = item && Object.fromEntries(Object.entries(item).map(([name, v]) => [name, value(v)]))
  }
  return checkConditional(data, item)
}

let store
const create = db.create
db.create = (options) => (store = create(options))
const server = require('dynalite')(argv)

const name = 'sockudo-applications'

// fill makes a table of apps unless it is there, in order of its keys, which
// LevelDB takes fastest.
async function fill (n) {
  const key = (attribute) => [{ AttributeName: attribute, KeyType: 'HASH' }]
  const capacity = { ReadCapacityUnits: 5, WriteCapacityUnits: 5 }
  const table = {
    TableName: name,
    AttributeDefinitions: ['id', 'key'].map((attribute) => ({ AttributeName: attribute, AttributeType: 'S' })),
    KeySchema: key('id'),
    GlobalSecondaryIndexes: [{ IndexName: 'KeyIndex', KeySchema: key('key'), Projection: { ProjectionType: 'ALL' }, ProvisionedThroughput: capacity }],
    ProvisionedThroughput: capacity
  }
  const made = await new Promise((resolve, reject) => require('dynalite/actions/createTable')(store, table, (err) => {
    if (err && !/ResourceInUse/.test(err.body && err.body.__type)) reject(err)
    resolve(!err)
  }))
  if (!made) return // a server that was started again
  const app = (i) => ({ id: { S: `app-${i}` }, key: { S: `app-${i}-key` }, secret: { S: `app-${i}-secret` }, enabled: { BOOL: true } })
  for (const [part, keyOf] of [
    [store.getItemDb(name), (item) => db.createKey(item, table)],
    [store.getIndexDb('Global', name, 'KeyIndex'), (item) => db.createIndexKey(item, table, key('key'))]
  ]) {
    const keys = Array.from({ length: n }, (_, i) => `${keyOf(app(i))}\n${i}`).sort()
    for (let from = 0; from < n; from += 1000) {
      const puts = keys.slice(from, from + 1000).map((line) => {
        const [at, i] = line.split('\n')
        return { type: 'put', key: at, value: app(i) }
      })
      await new Promise((resolve, reject) => part.batch(puts, (err) => err ? reject(err) : resolve()))
    }
  }
}

async function main () {
  if (argv.apps) await fill(argv.apps)
  server.listen(argv.port, argv.host, () => console.log('listening at port %d with %d apps', argv.port, argv.apps || 0))
}
main()
