package batching

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Whoever follows the batches is told of each once, with its block, whatever
// the ledger answered on the way.
func TestAttachedIsToldOfEveryBatchOnce(t *testing.T) {
	for _, tt := range []struct{ busy, lost int }{{0, 0}, {2, 0}, {0, 1}} {
		inBubble(t, func(t *testing.T) {
			var mu sync.Mutex // each of the attachers tells
			var told []string
			r := newRig(t, func(c *Config) {
				c.Attached = func(runs [][2]uint64, block stardust.BlockID) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, fmt.Sprint(runs, block))
				}
			})
			r.l.busy, r.l.lost = tt.busy, tt.lost
			r.submit("a", "b")
			time.Sleep(10 * time.Second)
			r.submit("c")
			time.Sleep(10 * time.Second)
			if err := r.end(); err != nil {
				t.Fatal(err)
			}
			var want []string
			for i, runs := range r.l.batches(t) {
				id, err := r.l.blocks[i].ID()
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, fmt.Sprint(runs, id))
			}
			if len(want) != 2 || fmt.Sprint(told) != fmt.Sprint(want) {
				t.Errorf("with %+v, told of %v, want %v", tt, told, want)
			}
		})
	}
}

func TestWaitStoredReturnsWhenReadingsAreDurable(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.delay = time.Second
		synctest.Wait()
		if next, err := r.WaitStored(t.Context(), 0); next != 1 || err != nil {
			t.Errorf("WaitStored of an empty journal = %d, %v; want 1", next, err)
		}
		begin := time.Now()
		r.submit("a", "b", "c")
		if next, err := r.WaitStored(t.Context(), 1); next != 4 || err != nil || time.Since(begin) < r.j.delay {
			t.Errorf("WaitStored = %d, %v after %v; want 4 after the commit", next, err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if next, err := r.WaitStored(ctx, 4); next != 4 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("WaitStored for what does not come = %d, %v", next, err)
		}
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
	})
}
