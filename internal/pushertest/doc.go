// Package pushertest is a client of the Pusher protocol and of the HTTP API for
// tests. It shares no code with the server: frames are those of gobwas/ws,
// signatures are made here.
//
//	c := pushertest.Dial(t, addr, app)
//	c.Subscribe("presence-room", `{"user_id":"1"}`)
//	pushertest.NewAPI(t, addr, app).Trigger("presence-room", "hello", "world")
//	c.Expect("hello", "presence-room")
//	c.Quiet() // nothing else came, and nothing else will
//
// # Conversations
//
// Protocol behaviour is best read as a conversation. RunTalk runs the ones of a
// file, each as a subtest with clients of its own:
//
//	# Lines that begin with a number sign are comments.
//	== 132. a client event reaches the others and not the sender
//	a> subscribe private-room
//	a< {"event":"pusher_internal:subscription_succeeded","channel":"private-room","data":"{}"}
//	b> {"event":"pusher:subscribe","data":{"channel":"private-room","auth":"{{auth private-room}}"}}
//	b< {"event":"pusher_internal:subscription_succeeded",…}
//	a> {"event":"client-typing","channel":"private-room","data":{"on":true}}
//	a< nothing
//	b< {"event":"client-typing","channel":"private-room","data":json{"on":true}}
//	http> POST /apps/app-id/events {"name":"e","channel":"private-room","data":"x"}
//	http< 200 {}
//	a< {"event":"e","channel":"private-room","data":"x"}
//	b< {"event":"e","channel":"private-room","data":"x"}
//
// A client connects when it is first named, and its handshake frame is taken
// silently. When a conversation ends, every client that is still connected has
// to be quiet, so that a frame nobody wrote down is a failure. A line that
// begins with a blank continues the one before.
//
// What a client does (NAME>):
//
//	{…}                         the frame, with placeholders filled in and json… made a string
//	text ANYTHING               the text as it is
//	subscribe CHANNEL [DATA]    pusher:subscribe, signed if the channel needs it
//	unsubscribe CHANNEL         pusher:unsubscribe
//	signin USER_DATA            pusher:signin, signed
//	ping TEXT, pong TEXT        the control frame
//	close CODE                  the closing handshake
//	cut                         reset of the TCP connection
//	open [PATH?QUERY] [NAME: VALUE]   connects like this, and the handshake is not taken
//
// What it gets (NAME<), which has to be the next thing:
//
//	{…}                         a frame that matches the pattern
//	nothing                     no frame is there or on its way, shown by a round trip
//	ping [TEXT], pong TEXT      the control frame
//	close CODE [REASON]         the close frame and the end of the connection
//	refused STATUS              the upgrade was answered with this status
//
// Calls of the API (http>) are METHOD, PATH and perhaps a body; what is below
// /apps/ is signed unless the word unsigned comes first. http< is the status and
// perhaps a pattern; without one the status has to be 200. A line "app ID"
// changes the app of the clients and calls that follow.
//
// In a pattern … stands for any value, as the last element of an object or list
// for any more of them, and in a string for any characters. json before a value
// is a string that holds this as JSON; the order of keys never matters.
//
// Placeholders: {{auth CHANNEL [DATA]}} and {{signin USER_DATA}} sign for the
// client of the line, {{socket NAME}} is the socket id of a client, {{key}} and
// {{id}} are those of the app, {{repeat N TEXT}} is N times the text.
package pushertest
