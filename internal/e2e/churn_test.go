package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sockudo/internal/config"
	"sockudo/internal/hub"
	"sockudo/internal/pushertest"
	"sockudo/internal/servertest"
)

// footprint is what a server holds.
type footprint struct {
	goroutines, descriptors int
	heap                    uint64
	hub                     hub.Sizes
}

func measure(t *testing.T, s *servertest.Server) footprint {
	t.Helper()
	runtime.GC()
	runtime.GC() // so that pools are empty
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return footprint{runtime.NumGoroutine(), len(fds), m.HeapAlloc, s.Hub().Sizes()}
}

// briefly connects, subscribes and leaves, in one of several ways, with as
// little of a client as possible.
func briefly(addr string, n int) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	if n%50 == 0 { // gone in the middle of the handshake
		_, err := nc.Write([]byte("GET /app/plain-key HTTP/1.1\r\nUpgr"))
		return err
	}
	owner := plain
	if n%3 == 0 { // the app with watchlists and subscription counts
		owner = appB
	}
	if _, err := io.WriteString(nc, upgrade(owner)); err != nil {
		return err
	}
	br := bufio.NewReader(nc)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 {
		return fmt.Errorf("upgrade: %v %v", resp, err)
	}
	hello, err := br.ReadString('}')
	if err != nil {
		return err
	}
	id := hello[strings.Index(hello, `socket_id\":\"`)+len(`socket_id\":\"`):]
	id = id[:strings.IndexByte(id, '\\')]
	var frames strings.Builder
	send := func(format string, args ...any) { frames.WriteString(masked(fmt.Sprintf(format, args...))) }
	channel := fmt.Sprint("presence-churn-", n%100)
	data := fmt.Sprintf(`{\"user_id\":\"%d\"}`, n%300)
	auth := owner.SignChannel(id, channel, strings.ReplaceAll(data, `\`, ""))
	send(`{"event":"pusher:subscribe","data":{"channel":%q,"auth":%q,"channel_data":"%s"}}`, channel, auth, data)
	send(`{"event":"pusher:subscribe","data":{"channel":"cache-churn-%d"}}`, n%1000)
	send(`{"event":"pusher:subscribe","data":{"channel":"everybody"}}`)
	user := fmt.Sprintf(`{\"id\":\"%d\",\"watchlist\":[\"1\",\"2\",\"%d\"]}`, n%200, n%500)
	auth = owner.SignUser(id, strings.ReplaceAll(user, `\`, ""))
	send(`{"event":"pusher:signin","data":{"auth":%q,"user_data":"%s"}}`, auth, user)
	if _, err := io.WriteString(nc, frames.String()); err != nil {
		return err
	}
	if n%2 == 0 {
		return nil // gone without waiting for anything
	}
	for seen := ""; !strings.Contains(seen, "signin_success"); {
		if seen, err = br.ReadString(':'); err != nil {
			return err
		}
		if rest, _ := br.Peek(min(br.Buffered(), 20)); strings.HasPrefix(string(rest), "signin_success") {
			break
		}
	}
	if n%3 == 0 { // the closing handshake
		_, err = nc.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8})
		for err == nil {
			_, err = br.ReadByte()
		}
		return nil
	}
	return nil
}

// listener subscribes to a channel of app B and forgets what comes.
func listener(t *testing.T, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(nc, upgrade(appB)+masked(`{"event":"pusher:subscribe","data":{"channel":"everybody"}}`)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, nc) }() // ends with the connection
	return nc
}

// upgrade returns the request of a client.
func upgrade(a pushertest.App) string {
	return "GET /app/" + a.Key + "?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
}

// masked returns a text frame; the mask of zeros leaves the text as it is.
func masked(text string) string {
	head := []byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}
	if len(text) > 125 {
		head = []byte{0x81, 0x80 | 126, byte(len(text) >> 8), byte(len(text)), 0, 0, 0, 0}
	}
	return string(head) + text
}

func TestChurnLeavesNothingBehind(t *testing.T) {
	s := serve(t, func(cfg *config.Config) { cfg.Cache.Memory.MaxCapacity = 10 })
	round := func(connections int) {
		// More than 100 subscribers, so that counts of the channel are held back.
		var crowd []net.Conn
		for range 110 {
			crowd = append(crowd, listener(t, s.Addr))
		}
		eventually(t, "the crowd is there", func() bool { return s.Hub().Sizes().Sockets == len(crowd) })
		const workers = 50
		next := make(chan int)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for n := range next {
					if err := briefly(s.Addr, n); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for n := range connections {
			next <- n
		}
		close(next)
		wg.Wait()
		for _, c := range crowd {
			_ = c.Close()
		}
		eventually(t, "all connections are gone", func() bool { return s.Hub().Connections() == 0 })
	}
	api := pushertest.NewAPI(t, s.Addr, plain)
	api.Trigger("warm-up", "e", "x")
	round(1000) // so that tables, pools and buffers have the size they need
	var before footprint
	eventually(t, "the last count was told", func() bool {
		before = measure(t, s)
		return before.hub.HeldCounts == 0
	})
	if before.hub != (hub.Sizes{Apps: before.hub.Apps}) {
		t.Fatalf("the hub is not empty: %+v", before.hub)
	}
	round(20_000)
	var after footprint
	eventually(t, "goroutines, descriptors and held counts are back", func() bool {
		after = measure(t, s)
		return after.goroutines <= before.goroutines+5 && after.descriptors <= before.descriptors+5 && after.hub.HeldCounts == 0
	})
	if after.hub != before.hub {
		t.Errorf("the hub holds %+v, before %+v", after.hub, before.hub)
	}
	if after.heap > before.heap+2<<20 {
		t.Errorf("heap %d KiB, before %d KiB", after.heap>>10, before.heap>>10)
	}
	if n := scrape(t, s, "sockudo_channel_subscriptions_total", `channel_type="presence"`); n < 5_000 {
		t.Errorf("%d presence subscriptions happened: this test shows nothing", n)
	}
	t.Logf("before %+v, after %+v", before, after)
}

// scrape returns the value of the first series of app plain with a name and a label.
func scrape(t *testing.T, s *servertest.Server, name, label string) int {
	t.Helper()
	resp, err := http.Get("http://" + s.MetricsAddr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, name+`{app_id="plain-id"`) && strings.Contains(line, label) {
			var v float64
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &v); err != nil {
				t.Fatal(err)
			}
			return int(v)
		}
	}
	return 0
}
