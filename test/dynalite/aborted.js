// Loaded before dynalite, which ends itself when a client is gone in the middle
// of a request. Tests cut connections on purpose.
process.on('uncaughtException', (err) => {
	if (err.code === 'ECONNRESET' || err.code === 'EPIPE') return
	console.error(err)
	process.exit(1)
})
