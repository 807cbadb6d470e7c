package bench

// What the first byte on a connection to the floor program says.
const (
	floorReceiver = 'r' // gets every frame
	floorSender   = 's' // its frames go to every receiver
)
