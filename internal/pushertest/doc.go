// Package pushertest is a client of the Pusher protocol and of the HTTP API for
// tests. It shares no code with the server: frames are those of gobwas/ws,
// signatures are made here.
package pushertest
