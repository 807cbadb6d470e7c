package cluster

import "context"

// A Bus moves opaque messages to the nodes subscribed to a topic, the sender
// among them if it is subscribed, at most once, those of one sender in the order
// they were published, per topic. Topics are printable ASCII of at most
// MaxTopic bytes without spaces. Many goroutines may call it at once; no call
// blocks longer than its ctx.
type Bus interface {
	// Publish returns once the broker has taken msg, or returns an error when it
	// may not have. msg is not kept after the return. Calls of one goroutine keep
	// their order; calls of many share connections and do not wait for each other.
	Publish(ctx context.Context, topic string, msg []byte) error
	// Subscribe returns once the broker has confirmed it. The topic is remembered,
	// also when an error is returned, and subscribed again after every reconnect,
	// until Unsubscribe. Subscribing twice is harmless.
	Subscribe(ctx context.Context, topic string) error
	// Unsubscribe forgets a topic. It may return before the broker knows; what
	// still arrives is delivered.
	Unsubscribe(ctx context.Context, topic string) error
	// Run delivers to on until ctx is done, reconnecting by itself. The other
	// methods wait for it where they need it.
	Run(ctx context.Context, on Events) error
}

// Events is what a Bus tells the one who runs it. The calls for one topic come
// one after the other, and must return soon.
type Events interface {
	// Message hands over a message; msg may be kept but not changed.
	Message(topic string, msg []byte)
	// Lost says that continuity was lost: from now on messages may be missing.
	Lost()
	// Restored says that every topic is subscribed again.
	Restored()
}

// A Pinger is a Bus whose broker can be asked whether it is well.
type Pinger interface {
	Ping(ctx context.Context) error
}

// MaxTopic is the length of the longest topic, in bytes.
const MaxTopic = 400
