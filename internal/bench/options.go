package bench

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Options say whom to load, with what, and how it is measured. Each is a flag
// of the command line; Flags tells what they mean.
type Options struct {
	// Whom.
	URLs     []string
	AppID    string
	Key      string
	Secret   string
	Insecure bool
	PIDs     []int

	// What to start.
	Serve     bool
	Nodes     int
	Config    string
	Env       []string
	TLS       bool
	Exec      string
	Floor     bool
	ServerCPU string

	// What.
	Channels    int
	Subscribers int
	Senders     int
	Kind        string
	Source      string
	Rate        float64
	InFlight    int
	Payload     int
	HTTP        int
	Pipeline    int
	Joins       float64
	Joiners     int
	Probes      float64
	Broker      string
	Floods      int
	Drips       int

	// How.
	ConnectRate float64
	Handshakes  int
	Warmup      time.Duration
	Duration    time.Duration
	Drain       time.Duration
	CPU         string
	Lanes       int
	Sources     int
	Stream      bool

	// Program is this program, to start servers with.
	Program string

	// Of all runs together.
	Repeat  int
	Pause   time.Duration
	Cases   []string
	Require []string
	JSON    bool
	Out     string
	Quiet   bool
}

// Where messages come from.
const (
	sourceHTTP   = "http"
	sourceClient = "client"
)

// Defaults returns what every scenario begins with.
func Defaults() Options {
	return Options{
		Nodes: 1, Channels: 1, Subscribers: 1000, Senders: 1, Kind: "public", Source: sourceHTTP, Rate: 20, Payload: 150,
		HTTP: 1, Pipeline: 1, Handshakes: 128, Warmup: 2 * time.Second, Duration: 10 * time.Second, Drain: 10 * time.Second,
		Repeat: 1, Pause: time.Second,
	}
}

// Flags adds the options of a scenario to a set of flags; their values of now
// are the defaults.
func (o *Options) Flags(fs *pflag.FlagSet, s *Scenario) {
	o.targetFlags(fs)
	for _, f := range []struct {
		name string
		add  func()
	}{
		{"subscribers", func() { fs.IntVarP(&o.Subscribers, "subscribers", "n", o.Subscribers, s.Count) }},
		{"channels", func() { fs.IntVar(&o.Channels, "channels", o.Channels, "number of channels") }},
		{"senders", func() {
			fs.IntVar(&o.Senders, "senders", o.Senders, "subscribers of each channel that send, when the source is client")
		}},
		{"kind", func() { fs.StringVar(&o.Kind, "kind", o.Kind, "of channels: public, private, presence") }},
		{"source", func() { fs.StringVar(&o.Source, "source", o.Source, "of messages: http or client (client events)") }},
		{"rate", func() {
			fs.Float64VarP(&o.Rate, "rate", "r", o.Rate, "messages published per second, in all; 0: as many as --in-flight allows")
		}},
		{"in-flight", func() {
			fs.IntVar(&o.InFlight, "in-flight", o.InFlight, "messages on their way at most; 0: no bound, the schedule is kept (open loop)")
		}},
		{"payload", func() { fs.IntVar(&o.Payload, "payload", o.Payload, "bytes of data of each message, at least 18") }},
		{"http", func() { fs.IntVar(&o.HTTP, "http", o.HTTP, "keep-alive HTTP connections to publish through") }},
		{"pipeline", func() {
			fs.IntVar(&o.Pipeline, "pipeline", o.Pipeline, "requests on their way on each HTTP connection, when the rate is 0")
		}},
		{"joins", func() { fs.Float64Var(&o.Joins, "joins", o.Joins, "joins per second, and as many leaves") }},
		{"joiners", func() { fs.IntVar(&o.Joiners, "joiners", o.Joiners, "connections that join and leave") }},
		{"probes", func() {
			fs.Float64Var(&o.Probes, "probes", o.Probes, "queries of the API and pings of an idle client per second meanwhile")
		}},
		{"broker", func() {
			fs.StringVar(&o.Broker, "broker", o.Broker, "redis://, redis-cluster:// or nats:// [USER:PASSWORD@]HOST:PORT of the nodes' broker: its own round trip is measured meanwhile")
		}},
		{"floods", func() {
			fs.IntVar(&o.Floods, "floods", o.Floods, "clients that send pings as fast as they are taken, meanwhile")
		}},
		{"drips", func() {
			fs.IntVar(&o.Drips, "drips", o.Drips, "clients that send pings one byte at a time, 5,000 bytes per second, meanwhile")
		}},
		{"connect-rate", func() {
			fs.Float64Var(&o.ConnectRate, "connect-rate", o.ConnectRate, "connections begun per second; 0: as many as --handshakes allows")
		}},
	} {
		if s.uses(f.name) {
			f.add()
		}
	}
	o.methodFlags(fs)
}

func (o *Options) targetFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.URLs, "url", o.URLs, "base URL of the server; repeat it for the nodes of a cluster")
	fs.StringVar(&o.AppID, "app", o.AppID, "id of the app")
	fs.StringVar(&o.Key, "key", o.Key, "key of the app")
	fs.StringVar(&o.Secret, "secret", o.Secret, "secret of the app")
	fs.BoolVar(&o.Insecure, "insecure", o.Insecure, "accept any certificate")
	fs.IntSliceVar(&o.PIDs, "pid", o.PIDs, "process of the server, whose CPU and memory are measured; repeat it for several")
	fs.BoolVar(&o.Serve, "serve", o.Serve, "start this program's own server for every run and stop it afterwards")
	fs.IntVar(&o.Nodes, "nodes", o.Nodes, "how many servers --serve starts")
	fs.StringVar(&o.Config, "serve-config", o.Config, "settings file of the server that --serve starts; its app must be given with --app, --key and --secret")
	fs.StringArrayVar(&o.Env, "serve-env", o.Env, "NAME=VALUE for the environment of the server that is started")
	fs.BoolVar(&o.TLS, "serve-tls", o.TLS, "with --serve: over TLS, with a certificate made for the run")
	fs.StringVar(&o.Exec, "exec", o.Exec, "command that starts the server for every run; it must answer at --url")
	fs.BoolVar(&o.Floor, "floor", o.Floor, "measure a bare loop of send, without WebSocket and HTTP, instead of a server")
	fs.StringVar(&o.ServerCPU, "server-cpu", o.ServerCPU, "CPUs that the started server is bound to, such as 0 or 0,2-3 (Linux)")
}

func (o *Options) methodFlags(fs *pflag.FlagSet) {
	fs.IntVar(&o.Handshakes, "handshakes", o.Handshakes, "connections that are being made at a time")
	fs.DurationVar(&o.Warmup, "warmup", o.Warmup, "time before measuring begins")
	fs.DurationVarP(&o.Duration, "duration", "d", o.Duration, "time that is measured")
	fs.DurationVar(&o.Drain, "drain", o.Drain, "how long to wait at most for messages that are on their way at the end")
	fs.StringVar(&o.CPU, "cpu", o.CPU, "CPUs that the generator is bound to (Linux)")
	fs.IntVar(&o.Lanes, "lanes", o.Lanes, "event loops of the generator; 0: one per CPU it may use")
	fs.IntVar(&o.Sources, "sources", o.Sources, "loopback addresses to connect from, 127.0.0.1 and following; 0: one for every 12,000 connections")
	fs.BoolVar(&o.Stream, "goroutines", o.Stream, "a goroutine per connection in place of event loops, as with TLS")
}

// SharedFlags adds the flags that count for all cases together.
func (o *Options) SharedFlags(fs *pflag.FlagSet) {
	fs.IntVar(&o.Repeat, "repeat", o.Repeat, "runs of each case; medians are shown")
	fs.DurationVar(&o.Pause, "pause", o.Pause, "between two runs")
	fs.StringArrayVar(&o.Cases, "case", o.Cases, "'NAME: FLAGS', a variant to compare; repeat it. The cases take turns: A B A B")
	fs.StringArrayVar(&o.Require, "require", o.Require, "'METRIC<=NUMBER' or '[CASE.]METRIC<=NUMBER*CASE[.METRIC]', checked on the medians; the exit code tells")
	fs.BoolVar(&o.JSON, "json", o.JSON, "print JSON: every run and the medians")
	fs.StringVarP(&o.Out, "out", "o", o.Out, "also write the JSON to a file")
	fs.BoolVarP(&o.Quiet, "quiet", "q", o.Quiet, "no progress")
}

// A UsageError says how the options cannot be meant.
type UsageError struct{ Reason string }

// Error returns the reason.
func (e *UsageError) Error() string { return e.Reason }

var errTarget = errors.New("whom to load is not said: give --url, --serve, --exec with --url, or --floor")

// check finds what cannot be meant.
func (o *Options) check(s *Scenario) error {
	positive := map[string]int{"subscribers": o.Subscribers, "channels": o.Channels, "senders": o.Senders, "http": o.HTTP, "pipeline": o.Pipeline}
	for name, value := range positive {
		if s.uses(name) && value < 1 {
			return fmt.Errorf("--%s is %d: it must be at least 1", name, value)
		}
	}
	started := 0
	for _, is := range []bool{o.Serve, o.Exec != "", o.Floor} {
		if is {
			started++
		}
	}
	if o.Broker != "" {
		if _, err := parseBroker(o.Broker); err != nil {
			return err
		}
	}
	switch {
	case started > 1:
		return errors.New("--serve, --exec and --floor exclude each other")
	case started == 0 && len(o.URLs) == 0, o.Exec != "" && len(o.URLs) == 0:
		return errTarget
	case (o.Serve || o.Floor) && len(o.URLs) > 0:
		return errors.New("--url is of a server that runs already: leave it out, or --serve and --floor")
	case o.Floor && s.Name != "fanout":
		return fmt.Errorf("--floor is for fanout, not for %s", s.Name)
	case o.Floor && (o.Channels > 1 || o.Source != sourceHTTP):
		return errors.New("--floor sends to everybody: one channel, source http")
	case o.needsApp() && (o.AppID == "" || o.Key == "" || o.Secret == ""):
		return errors.New("the app is not said: give --app, --key and --secret")
	case o.Payload < stampBytes:
		return fmt.Errorf("--payload is %d: at least %d bytes are needed to tell messages apart", o.Payload, stampBytes)
	case s.uses("source") && o.Source != sourceHTTP && o.Source != sourceClient:
		return fmt.Errorf("--source is %q: it must be http or client", o.Source)
	case s.uses("kind") && o.Kind != "public" && o.Kind != "private" && o.Kind != "presence":
		return fmt.Errorf("--kind is %q: it must be public, private or presence", o.Kind)
	case s.uses("senders") && o.Source == sourceClient && o.Senders > o.Subscribers:
		return fmt.Errorf("--senders is %d: a channel has %d subscribers", o.Senders, o.Subscribers)
	case s.uses("source") && o.Source == sourceClient && o.Kind == "public":
		return errors.New("client events need channels of --kind private or presence")
	case s.uses("in-flight") && o.Rate == 0 && o.InFlight == 0:
		return errors.New("--rate 0 publishes as fast as --in-flight allows: give it")
	case o.Floods < 0 || o.Drips < 0:
		return errors.New("--floods and --drips cannot be negative")
	case o.Rate < 0 || o.Joins < 0 || o.Probes < 0 || o.ConnectRate < 0:
		return errors.New("a rate cannot be negative")
	case o.Duration <= 0:
		return errors.New("--duration must be more than 0")
	case o.Handshakes < 1:
		return errors.New("--handshakes must be at least 1")
	}
	return nil
}

// needsApp reports whether the app's credentials have to be given.
func (o *Options) needsApp() bool {
	return !o.Floor && (!o.Serve || o.Config != "")
}

// A variant is one of the cases that are compared.
type variant struct {
	name string
	opts Options
}

// plan returns the cases and the requirements of the options.
func (o *Options) plan(s *Scenario) (all []variant, required []requirement, err error) {
	if o.Repeat < 1 {
		return nil, nil, fmt.Errorf("--repeat is %d: it must be at least 1", o.Repeat)
	}
	for _, text := range o.Require {
		r, err := parseRequirement(text)
		if err != nil {
			return nil, nil, err
		}
		required = append(required, r)
	}
	all, err = o.variants(s)
	return all, required, err
}

// variants returns the cases of the options; there is at least one.
func (o *Options) variants(s *Scenario) ([]variant, error) {
	if len(o.Cases) == 0 {
		return []variant{{o.title(), *o}}, o.check(s)
	}
	var all []variant
	for _, text := range o.Cases {
		name, flags, ok := strings.Cut(text, ":")
		name = strings.TrimSpace(name)
		if !ok || name == "" || strings.ContainsAny(name, " \t.*<>=") {
			return nil, fmt.Errorf("--case %q must be 'NAME: FLAGS'; a name has no spaces and none of . * < > =", text)
		}
		for _, v := range all {
			if v.name == name {
				return nil, fmt.Errorf("--case %q is there twice", name)
			}
		}
		words, err := splitWords(flags)
		if err != nil {
			return nil, fmt.Errorf("--case %q: %w", name, err)
		}
		v := variant{name, *o}
		fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
		v.opts.Flags(fs, s)
		if err := fs.Parse(words); err != nil {
			return nil, fmt.Errorf("--case %q: %w", name, err)
		}
		if fs.NArg() > 0 {
			return nil, fmt.Errorf("--case %q: %q is no flag", name, fs.Arg(0))
		}
		if err := v.opts.check(s); err != nil {
			return nil, fmt.Errorf("--case %q: %w", name, err)
		}
		if v.opts.CPU != o.CPU {
			return nil, fmt.Errorf("--case %q: --cpu binds the generator and is the same for all cases", name)
		}
		all = append(all, v)
	}
	return all, nil
}

// title names the target of a run without cases.
func (o *Options) title() string {
	switch {
	case o.Floor:
		return "floor"
	case o.Serve:
		return "sockudo"
	case len(o.URLs) > 0:
		return strings.Join(o.URLs, ",")
	}
	return "server"
}

// splitWords splits a line as a shell does, with quotes and without anything
// else of a shell.
func splitWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inside, quote := false, rune(0)
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, inside = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inside {
				words = append(words, word.String())
				word.Reset()
				inside = false
			}
		default:
			word.WriteRune(r)
			inside = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %c is not closed", quote)
	}
	if inside {
		words = append(words, word.String())
	}
	return words, nil
}
