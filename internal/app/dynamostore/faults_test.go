package dynamostore

import (
	"errors"
	"net/url"
	"sync"
	"testing"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/servicetest"
)

func TestFaultsOfTheNetwork(t *testing.T) {
	opts := server(t)
	apptest.RunFaults(t, parse(t, opts.Endpoint).Host, func(t *testing.T, addr string) app.Backend {
		opts.Endpoint, opts.Timeout, opts.MaxConns = "http://"+addr, apptest.CallTimeout, 8
		return newStore(t, opts)
	})
}

func parse(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestTheServerEndsAndComesBack(t *testing.T) {
	group := servicetest.Start(t, servicetest.Options{}, "dynamodb")
	opts := options(t, group.Env(t, servicetest.DynamoDB))
	opts.Timeout = apptest.CallTimeout
	apptest.RunRestart(t, group, "dynamodb", newStore(t, opts))
}

func TestASlowServerHoldsNobodyLong(t *testing.T) {
	r := newRecorder(t, servicetest.Env(t, servicetest.DynamoDB))
	opts := options(t, r.url)
	opts.Timeout, opts.MaxConns = apptest.CallTimeout, 2
	s := newStore(t, opts)
	if err := s.Create(t.Context(), apptest.Plain("app-1")); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	r.answers(func(string) (int, string) { <-release; return 0, "" })
	var wg sync.WaitGroup
	for range 50 { // for two connections
		wg.Go(func() {
			if _, err := s.ByID(t.Context(), "app-1"); !errors.Is(err, app.ErrUnavailable) {
				t.Errorf("err = %v, want %v", err, app.ErrUnavailable)
			}
		})
	}
	wg.Wait()
	close(release)
	apptest.Check(t, s, apptest.Plain("app-1"))
}
