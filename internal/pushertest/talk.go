package pushertest

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// An Env is what conversations run against.
type Env struct {
	Addrs   []string // of the nodes; clients and calls are spread over them in turn
	Apps    []App    // the first one is in force at the start
	Options Options  // of clients that connect without being told how
	// Settle returns when what one node has done is known to the others. It is
	// called before each line that does something or says that nothing came. nil:
	// there is one node.
	Settle func(testing.TB)
}

// RunTalk runs the conversations of a file, each as a subtest.
func RunTalk(t *testing.T, path string, env Env) {
	t.Helper()
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	talks, err := parseTalk(string(source))
	if err != nil {
		t.Fatalf("%s:%v", path, err)
	}
	for _, talk := range talks {
		t.Run(talk.title, func(t *testing.T) {
			r := &runner{t: t, env: env, path: path, app: env.Apps[0], clients: map[string]*Client{}}
			r.run(talk)
		})
	}
}

// A talk is one conversation.
type talk struct {
	title string
	steps []step
}

// A step is one line: who does or gets (dir > or <) what. The line "app ID" has
// dir 0.
type step struct {
	line int
	who  string
	dir  byte
	what string
}

var stepLine = regexp.MustCompile(`^([a-z][a-z0-9]*)([<>])\s+(.*)$`)

// parseTalk reads a file of conversations; an error begins with the line number.
func parseTalk(source string) ([]talk, error) {
	var talks []talk
	for i, line := range strings.Split(source, "\n") {
		n := i + 1
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if title, ok := strings.CutPrefix(line, "== "); ok {
			talks = append(talks, talk{title: strings.TrimSpace(title)})
			continue
		}
		if len(talks) == 0 {
			return nil, fmt.Errorf("%d: a conversation begins with \"== title\"", n)
		}
		now := &talks[len(talks)-1]
		if line[0] == ' ' || line[0] == '\t' {
			if len(now.steps) == 0 {
				return nil, fmt.Errorf("%d: nothing to continue", n)
			}
			now.steps[len(now.steps)-1].what += trimmed
			continue
		}
		if id, ok := strings.CutPrefix(line, "app "); ok {
			now.steps = append(now.steps, step{line: n, what: strings.TrimSpace(id)})
			continue
		}
		m := stepLine.FindStringSubmatch(strings.TrimRight(line, " \t\r"))
		if m == nil {
			return nil, fmt.Errorf("%d: want NAME> or NAME<, got %q", n, line)
		}
		now.steps = append(now.steps, step{line: n, who: m[1], dir: m[2][0], what: m[3]})
	}
	for _, talk := range talks {
		if len(talk.steps) == 0 {
			return nil, fmt.Errorf("0: conversation %q is empty", talk.title)
		}
	}
	return talks, nil
}

// A runner plays one conversation.
type runner struct {
	t       testing.TB
	env     Env
	path    string
	app     App
	clients map[string]*Client // nil value: refused
	order   []string           // of appearance
	refused map[string]*Response
	calls   int
	answer  *Response // of the last call, nil once it was looked at
}

func (r *runner) run(talk talk) {
	r.t.Helper()
	for _, s := range talk.steps {
		// A failure inside of a client shows where the conversation stood.
		done := false
		func() {
			defer func() {
				if !done {
					r.t.Logf("at %s:%d: %s", r.path, s.line, s.what)
				}
			}()
			if err := r.step(s); err != nil {
				r.t.Fatal(err)
			}
			done = true
		}()
	}
	r.end()
}

// end checks that nothing happened that was not written down.
func (r *runner) end() {
	r.t.Helper()
	if err := r.settle(); err != nil {
		r.t.Fatal(err)
	}
	r.agree()
	for _, who := range r.order {
		if c := r.clients[who]; c != nil {
			r.t.Logf("at the end: %s has to be connected and quiet", who)
			c.Quiet()
		}
	}
}

func (r *runner) agree() {
	r.t.Helper()
	if r.env.Settle != nil {
		r.env.Settle(r.t)
	}
}

// settle looks at an answer that the conversation did not mention.
func (r *runner) settle() error {
	if a := r.answer; a != nil && a.Status != http.StatusOK {
		return fmt.Errorf("the call was answered with %d %s, want 200", a.Status, a.Body)
	}
	r.answer = nil
	return nil
}

func (r *runner) step(s step) error {
	r.t.Helper()
	if s.dir == '>' || s.what == "nothing" {
		r.agree()
	}
	switch {
	case s.dir == 0:
		return r.use(s.what)
	case s.who == "http" && s.dir == '>':
		return r.call(s.what)
	case s.who == "http":
		return r.answered(s.what)
	case s.dir == '>':
		return r.do(s.who, s.what)
	default:
		return r.get(s.who, s.what)
	}
}

// use changes the app.
func (r *runner) use(id string) error {
	for _, a := range r.env.Apps {
		if a.ID == id {
			r.app = a
			return nil
		}
	}
	return fmt.Errorf("no app %q", id)
}

func (r *runner) node(i int) string { return r.env.Addrs[i%len(r.env.Addrs)] }

// client returns a client that is connected, connecting it if it is new.
func (r *runner) client(who string) (*Client, error) {
	r.t.Helper()
	c, ok := r.clients[who]
	if ok && c == nil {
		return nil, fmt.Errorf("%s is not connected any more", who)
	}
	if !ok {
		c = Dial(r.t, r.node(len(r.order)), r.app, r.env.Options)
		r.add(who, c)
	}
	return c, nil
}

func (r *runner) add(who string, c *Client) {
	if _, ok := r.clients[who]; !ok {
		r.order = append(r.order, who)
	}
	r.clients[who] = c
}

// open connects as told: PATH?QUERY and one header, both of which may be absent.
func (r *runner) open(who, how string) error {
	r.t.Helper()
	o := r.env.Options
	target, header, _ := strings.Cut(how, " ")
	if target != "" {
		path, query, ok := strings.Cut(target, "?")
		if o.Path, o.Query = path, query; !ok || query == "" {
			o.Query = "-"
		}
	}
	if header != "" {
		name, value, ok := strings.Cut(header, ":")
		if !ok {
			return fmt.Errorf("want a header NAME: VALUE, got %q", header)
		}
		o.Header = http.Header{name: {strings.TrimSpace(value)}}
	}
	c, refused := DialRaw(r.t, r.node(len(r.order)), r.app, o)
	r.add(who, c)
	if refused != nil {
		if r.refused == nil {
			r.refused = map[string]*Response{}
		}
		r.refused[who] = refused
	}
	return nil
}

// do is what a client does.
func (r *runner) do(who, what string) error {
	r.t.Helper()
	word, rest, _ := strings.Cut(what, " ")
	if word == "open" {
		how, err := r.fill(nil, rest)
		if err != nil {
			return err
		}
		return r.open(who, how)
	}
	c, err := r.client(who)
	if err != nil {
		return err
	}
	if rest, err = r.fill(c, rest); err != nil {
		return err
	}
	switch first, data, some := strings.Cut(rest, " "); word {
	case "text":
		c.Send(rest)
	case "subscribe":
		if some {
			c.SendSubscribe(first, data)
		} else {
			c.SendSubscribe(first)
		}
	case "unsubscribe":
		c.Unsubscribe(rest)
	case "signin":
		c.SendSignin(rest)
	case "ping":
		c.Ping(rest)
	case "pong":
		c.Pong(rest)
	case "cut":
		c.Cut()
		r.add(who, nil)
	case "close":
		code, err := strconv.Atoi(rest)
		if err != nil {
			return err
		}
		c.Close(code)
		r.add(who, nil)
	default:
		if !strings.HasPrefix(what, "{") {
			return fmt.Errorf("unknown action %q; \"text\" sends anything", word)
		}
		return r.send(c, what)
	}
	return nil
}

func (r *runner) send(c *Client, frame string) error {
	r.t.Helper()
	filled, err := r.fill(c, frame)
	if err != nil {
		return err
	}
	if filled, err = compile(filled, false); err != nil {
		return err
	}
	c.Send(filled)
	return nil
}

// get is what a client gets.
func (r *runner) get(who, what string) error {
	r.t.Helper()
	word, rest, _ := strings.Cut(what, " ")
	if word == "refused" {
		resp := r.refused[who]
		if resp == nil {
			return fmt.Errorf("%s was not refused", who)
		}
		delete(r.refused, who)
		return r.same(rest, strconv.Itoa(resp.Status))
	}
	if resp := r.refused[who]; resp != nil {
		return fmt.Errorf("the upgrade was answered with %d: %s", resp.Status, resp.Body)
	}
	c, err := r.client(who)
	if err != nil {
		return err
	}
	switch word {
	case "nothing":
		c.Quiet()
	case "ping":
		if got := c.ExpectControlPing(); rest != "" {
			return r.same(rest, got)
		}
	case "pong":
		return r.same(rest, c.ExpectControlPong())
	case "close":
		return r.closed(who, c, rest)
	default:
		return r.frame(c, what)
	}
	return nil
}

func (r *runner) closed(who string, c *Client, rest string) error {
	r.t.Helper()
	number, reason, some := strings.Cut(rest, " ")
	code, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	got := c.ExpectClose(code)
	c.ExpectEnd()
	r.add(who, nil)
	if some && !matchText(reason, got) {
		return fmt.Errorf("closed with reason %q, want %q", got, reason)
	}
	return nil
}

func (r *runner) frame(c *Client, pattern string) error {
	r.t.Helper()
	pattern, err := r.fill(c, pattern)
	if err != nil {
		return err
	}
	f := c.next(pattern)
	if err := match(pattern, f.Raw); err != nil {
		return fmt.Errorf("%w\n got %s\nwant %s", err, f.Raw, pattern)
	}
	if f.Event == "pusher:connection_established" && c.SocketID == "" {
		var data struct {
			SocketID string `json:"socket_id"`
		}
		f.Decode(r.t, &data)
		c.SocketID = data.SocketID
	}
	return nil
}

func (r *runner) same(want, got string) error {
	if want != got {
		return fmt.Errorf("got %q, want %q", got, want)
	}
	return nil
}

// call calls the API: [unsigned] METHOD PATH[?QUERY] [BODY].
func (r *runner) call(what string) error {
	r.t.Helper()
	if err := r.settle(); err != nil {
		return err
	}
	what, err := r.fill(nil, what)
	if err != nil {
		return err
	}
	what, unsigned := strings.CutPrefix(what, "unsigned ")
	method, rest, _ := strings.Cut(what, " ")
	target, body, _ := strings.Cut(rest, " ")
	if strings.HasPrefix(body, "{") {
		if body, err = compile(body, false); err != nil {
			return err
		}
	}
	path, raw, _ := strings.Cut(target, "?")
	values, err := url.ParseQuery(raw)
	if err != nil {
		return err
	}
	query := map[string]string{}
	for key := range values {
		query[key] = values.Get(key)
	}
	resp := NewAPI(r.t, r.node(r.calls), r.app).Do(Call{
		Method: method, Path: path, Query: query, Body: body,
		Unsigned: unsigned || !strings.HasPrefix(path, "/apps/"),
	})
	r.calls++
	r.answer = &resp
	return nil
}

// answered compares the last answer: STATUS [PATTERN].
func (r *runner) answered(what string) error {
	if r.answer == nil {
		return fmt.Errorf("there was no call")
	}
	resp := *r.answer
	r.answer = nil
	what, err := r.fill(nil, what)
	if err != nil {
		return err
	}
	status, pattern, some := strings.Cut(what, " ")
	if status != strconv.Itoa(resp.Status) {
		return fmt.Errorf("got status %d %s, want %s", resp.Status, resp.Body, status)
	}
	if !some {
		return nil
	}
	if !strings.HasPrefix(pattern, "{") && !strings.HasPrefix(pattern, "[") {
		if !matchText(pattern, strings.TrimSpace(resp.Body)) {
			return fmt.Errorf("got body %q, want %q", resp.Body, pattern)
		}
		return nil
	}
	if err := match(pattern, resp.Body); err != nil {
		return fmt.Errorf("%w\n got %s\nwant %s", err, resp.Body, pattern)
	}
	return nil
}

var placeholder = regexp.MustCompile(`\{\{(auth|signin|socket|key|id|repeat)\b`)

// fill replaces the placeholders of a line of client c, which is nil for calls.
func (r *runner) fill(c *Client, text string) (string, error) {
	var out strings.Builder
	for {
		at := placeholder.FindStringIndex(text)
		if at == nil {
			out.WriteString(text)
			return out.String(), nil
		}
		out.WriteString(text[:at[0]])
		rest := text[at[0]+2:]
		end := strings.Index(rest, "}}")
		if end < 0 {
			return "", fmt.Errorf("unfinished placeholder: %s", rest)
		}
		for end+2 < len(rest) && rest[end+2] == '}' {
			end++ // the braces of JSON inside of the placeholder
		}
		value, err := r.value(c, rest[:end])
		if err != nil {
			return "", err
		}
		out.WriteString(value)
		text = rest[end+2:]
	}
}

// value returns what a placeholder stands for.
func (r *runner) value(c *Client, inner string) (string, error) {
	word, rest, _ := strings.Cut(inner, " ")
	first, second, some := strings.Cut(rest, " ")
	switch {
	case word == "key":
		return r.app.Key, nil
	case word == "id":
		return r.app.ID, nil
	case word == "socket":
		other, err := r.client(rest)
		if err != nil {
			return "", err
		}
		return other.SocketID, nil
	case word == "repeat":
		n, err := strconv.Atoi(first)
		if err != nil {
			return "", err
		}
		return strings.Repeat(second, n), nil
	case c == nil:
		return "", fmt.Errorf("nobody to sign for: %s", inner)
	case word == "signin":
		return c.App.SignUser(c.SocketID, rest), nil
	case some:
		return c.App.SignChannel(c.SocketID, first, second), nil
	default:
		return c.App.SignChannel(c.SocketID, first), nil
	}
}
