// An S3-compatible store that keeps its objects in a folder: `node store.js S3RVER FOLDER PORT IDENTITIES`.
const [library, folder, port, identities] = process.argv.slice(2)
const Store = require(library)
const { DUMMY_ACCOUNT } = require(`${library}/lib/models/account`)

DUMMY_ACCOUNT.revokeAccessKey('S3RVER')
for (const identity of JSON.parse(require('fs').readFileSync(identities)).identities) {
  for (const { accessKey, secretKey } of identity.credentials) DUMMY_ACCOUNT.createKeyPair(accessKey, secretKey)
}
new Store({ address: '127.0.0.1', port: Number(port), directory: folder, silent: true, vhostBuckets: false }).run()
