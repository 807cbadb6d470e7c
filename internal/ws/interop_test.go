package ws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	gobwas "github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

func TestIndependentClientUnderstandsUs(t *testing.T) {
	onBoth(t, func(t *testing.T, opts Options) {
		_, addr := start(t, opts, handled(&echo{}))
		d := gobwas.Dialer{Protocols: []string{"chat"}, Extensions: nil}
		nc, br, hs, err := d.Dial(context.Background(), "ws://"+addr+"/x")
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if br != nil || hs.Protocol != "" || len(hs.Extensions) != 0 {
			t.Fatalf("handshake %+v, early bytes %v", hs, br != nil)
		}
		for _, n := range []int{0, 1, 125, 126, 65535, 65536} {
			if err := wsutil.WriteClientText(nc, []byte(long(n))); err != nil {
				t.Fatal(err)
			}
			got, op, err := wsutil.ReadServerData(nc)
			if err != nil || op != gobwas.OpText || string(got) != long(n) {
				t.Fatalf("%d bytes of %v, %v, want %d", len(got), op, err, n)
			}
		}
		w := wsutil.NewWriter(nc, gobwas.StateClientSide, gobwas.OpText) // fragments
		for i := range 5 {
			if _, err := fmt.Fprintf(w, "part %d ", i); err != nil {
				t.Fatal(err)
			}
			if err := w.FlushFragment(); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		got, err := wsutil.ReadServerText(nc)
		if err != nil || string(got) != "part 0 part 1 part 2 part 3 part 4 " {
			t.Fatalf("%q, %v", got, err)
		}
		if err := wsutil.WriteClientMessage(nc, gobwas.OpClose, gobwas.NewCloseFrameBody(1000, "bye")); err != nil {
			t.Fatal(err)
		}
		_, err = wsutil.ReadServerText(nc)
		if closed, ok := errors.AsType[wsutil.ClosedError](err); !ok || closed.Code != 1000 {
			t.Errorf("err = %v", err)
		}
	})
}

func TestOurClientAnswersAndEnds(t *testing.T) {
	onBoth(t, func(t *testing.T, opts Options) {
		h := &echo{closed: make(chan error, 1), open: func(c *Conn) {
			c.Ping([]byte("are you there"))
			c.Send(TextFrame([]byte("hello")))
		}}
		_, addr := start(t, opts, handled(h))
		c, err := Dial(context.Background(), "ws://"+addr, DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Read(); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		err = waitClosed(t, h.closed)
		if ce, ok := errors.AsType[*CloseError](err); !ok || ce.Code != 1000 {
			t.Errorf("err = %v", err)
		}
	})
}

func TestClientTellsWhyAnUpgradeIsRefused(t *testing.T) {
	_, addr := start(t, Options{}, func(*http.Request) (Handler, *Refusal) {
		return nil, &Refusal{Status: 503, Body: "draining"}
	})
	_, err := Dial(context.Background(), "ws://"+addr, DialOptions{})
	if err == nil || fmt.Sprint(err) != "websocket: the server answers 503 Service Unavailable: draining" {
		t.Errorf("err = %v", err)
	}
}
