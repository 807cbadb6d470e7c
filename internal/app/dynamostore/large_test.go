package dynamostore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"sockudo/internal/app"
	"sockudo/internal/app/apptest"
	"sockudo/internal/servicetest"
)

// fill makes n items, 25 at once, which is the most that the server takes.
func (s *Store) fill(t testing.TB, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for from := w * 25; from < n; from += 4 * 25 {
				var puts []types.WriteRequest
				for i := from; i < min(from+25, n); i++ {
					puts = append(puts, types.WriteRequest{PutRequest: &types.PutRequest{Item: toItem(apptest.Plain(fmt.Sprintf("app-%d", i)))}})
				}
				for requests := map[string][]types.WriteRequest{s.opts.Table: puts}; len(requests) > 0; {
					out, err := s.db.BatchWriteItem(context.WithoutCancel(t.Context()), &dynamodb.BatchWriteItemInput{RequestItems: requests})
					if err != nil {
						t.Error(err)
						return
					}
					requests = out.UnprocessedItems
				}
			}
		})
	}
	wg.Wait()
}

// TestALargeTable looks at what the server is asked: on the way of a client
// that is one item, however many there are.
func TestALargeTable(t *testing.T) {
	const n = 20_000
	r := newRecorder(t, servicetest.Env(t, servicetest.DynamoDB))
	s := newStore(t, options(t, r.url))
	s.fill(t, n)
	r.take()
	asked := func(what string, want map[string]int) {
		t.Helper()
		if diff := cmp.Diff(want, r.take()); diff != "" {
			t.Errorf("%s asks (-want +got):\n%s", what, diff)
		}
	}
	for i := range 100 {
		name := fmt.Sprintf("app-%d", (i*7919)%n)
		if a, err := s.ByKey(t.Context(), name+"-key"); err != nil || a.ID != name {
			t.Fatalf("by key %s: %v", name, err)
		}
	}
	asked("by key", map[string]int{"Query": 100, "GetItem": 100})
	for i := range 100 {
		if _, err := s.ByID(t.Context(), fmt.Sprintf("nobody-%d", i)); !errors.Is(err, app.ErrNotFound) {
			t.Fatalf("by id: %v", err)
		}
	}
	asked("by id", map[string]int{"GetItem": 100})
	if there, err := s.Any(t.Context()); !there || err != nil {
		t.Errorf("any = %t, %v", there, err)
	}
	asked("any", map[string]int{"Scan": 1})
	if err := s.Upsert(t.Context(), apptest.Plain("app-5000")); err != nil {
		t.Error(err)
	}
	asked("upsert", map[string]int{"GetItem": 1, "PutItem": 1})
	seen := map[string]bool{}
	if err := s.List(t.Context(), func(a *app.App) bool { seen[a.ID] = true; return true }); err != nil || len(seen) != n {
		t.Errorf("listed %d, %v; want %d", len(seen), err, n)
	}
	if scans := r.take()["Scan"]; scans < 2 {
		t.Errorf("the list took %d pages, want that the table has several", scans)
	}
}

func BenchmarkLookup(b *testing.B) {
	s := newStore(b, server(b))
	s.fill(b, 10_000)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := s.ByKey(b.Context(), fmt.Sprintf("app-%d-key", (i*7919)%10_000)); err != nil {
				b.Error(err)
			}
		}
	})
}
