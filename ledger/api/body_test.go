package api

import (
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// slowly starts n submissions whose bodies begin with head and then stop, and
// returns what ends them.
func slowly(s *Server, n int, head string) (end func()) {
	var wg sync.WaitGroup
	var bodies []*io.PipeWriter
	for range n {
		from, to := io.Pipe()
		bodies = append(bodies, to)
		wg.Go(func() {
			r := httptest.NewRequest("POST", blocksPath, io.MultiReader(strings.NewReader(head), from))
			r.Header.Set("Content-Type", mediaJSON)
			s.ServeHTTP(httptest.NewRecorder(), r)
		})
	}
	synctest.Wait()
	return func() {
		for _, b := range bodies {
			b.Close()
		}
		wg.Wait()
	}
}

func TestBodiesThatComeSlowlyTakeNobodysPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(1)
		s := newTest(t, Config{}, l, nil)
		defer slowly(s, 2*maxSubmits, "{")()
		attached(t, l, call(s, "POST", blocksPath, string(block(t, 1, "a")), "Content-Type: "+mediaBytes))
	})
}

func TestLongBodiesAtATimeAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeLedger(1)
		s := newTest(t, Config{}, l, nil)
		long := strings.Repeat(" ", smallBody)
		end := slowly(s, maxLarge, long)
		defer end()
		if w := call(s, "POST", blocksPath, long+"{", "Content-Type: "+mediaJSON); w.Code != 503 {
			t.Errorf("one more long body is answered %d %s, want 503", w.Code, w.Body)
		}
		attached(t, l, call(s, "POST", blocksPath, string(block(t, 1, "a")), "Content-Type: "+mediaBytes))
		end()
		if len(s.large) != 0 {
			t.Errorf("%d long bodies left, want none", len(s.large))
		}
	})
}
