package batching

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

var errKilled = errors.New("killed")

// A life is one process over fakes that outlive it. The process dies at a
// certain step: either before the step does anything, or when it is done but
// nobody hears of it. Afterwards nothing it does has any effect.
type life struct {
	*memJournal
	*memLedger
	*memProver

	mu    sync.Mutex
	left  int  // steps to live
	after bool // the last step still has its effect
	dead  chan struct{}
}

// step runs one step of the process, or not.
func (p *life) step(f func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left < 0 {
		return errKilled
	}
	if p.left--; p.left >= 0 {
		return f()
	}
	close(p.dead)
	if p.after {
		_ = f() // nobody hears
	}
	return errKilled
}

type lifeJournal struct{ *life }

func (p lifeJournal) Append(packets []Packet, at Stamp) (first uint64, err error) {
	err = p.step(func() error {
		first, err = p.memJournal.Append(packets, at)
		return err
	})
	return first, err
}

func (p lifeJournal) Recall(key Key, within time.Duration, now int64) (uint64, bool) {
	return p.memJournal.Recall(key, within, now)
}

func (p lifeJournal) Read(from uint64, limit int) (rs []reading.Reading, err error) {
	err = p.step(func() error {
		rs, err = p.memJournal.Read(from, limit)
		return err
	})
	return rs, err
}

func (p lifeJournal) Next() uint64              { return p.memJournal.Next() }
func (p lifeJournal) SkipTo(n uint64) error     { return p.memJournal.SkipTo(n) }
func (p lifeJournal) Incarnation() [8]byte      { return p.memJournal.Incarnation() }
func (p lifeJournal) Trim(through uint64) error { return p.memJournal.Trim(through) }
func (p lifeJournal) Ready() error              { return nil }

type lifeLedger struct{ *life }

func (p lifeLedger) Tips() []stardust.BlockID { return p.memLedger.Tips() }
func (p lifeLedger) MinPoWScore() uint32      { return p.memLedger.MinPoWScore() }

func (p lifeLedger) Attach(ctx context.Context, b *stardust.Block, runs [][2]uint64) (id stardust.BlockID, err error) {
	err = p.step(func() error {
		id, err = p.memLedger.Attach(ctx, b, runs)
		return err
	})
	return id, err
}

func (p lifeLedger) MarksFrom(from uint64, yield func([2]uint64, stardust.BlockID) bool) error {
	return p.memLedger.MarksFrom(from, yield)
}

func (p lifeLedger) Certified(block stardust.BlockID) (bool, error) {
	return p.memLedger.Certified(block)
}

func (p lifeLedger) Marked(seq uint64) (stardust.BlockID, bool, error) {
	return p.memLedger.Marked(seq)
}

func (p *life) Prove(ctx context.Context, digest [32]byte, zeros int) (nonce uint64, err error) {
	err = p.step(func() error { return nil })
	if err != nil {
		return 0, err
	}
	return p.memProver.Prove(ctx, digest, zeros)
}

// A device sends every message until it is acknowledged. The gateway is
// killed between any two steps, again and again. In the end every message
// stands on the ledger exactly once.
func TestKillAtAnyStepNeitherLosesNorDoubles(t *testing.T) {
	for seed := range uint64(150) {
		inBubble(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			j, l := newMemJournal(), newMemLedger()
			const messages = 60
			acked := map[int]bool{}
			for run := 0; len(acked) < messages || l.attached() < messages; run++ {
				if run > 30 {
					t.Fatalf("seed %d: %d acknowledged, %d attached of %d", seed, len(acked), l.attached(), messages)
				}
				p := &life{memJournal: j, memLedger: l, memProver: &memProver{takes: 3 * time.Millisecond},
					left: random.IntN(30), after: random.IntN(2) == 0, dead: make(chan struct{})}
				if run > 20 {
					p.left = 1 << 30
				}
				runOnce(t, p, random, messages, acked)
			}
			for i := range messages {
				if n := l.seen[fmt.Sprintf("m%d", i)]; n != 1 {
					t.Errorf("seed %d: message %d stands on the ledger %d times", seed, i, n)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}

// runOnce is one life of the gateway: the device sends what was not
// acknowledged yet, in any order and pace.
func runOnce(t *testing.T, p *life, random *rand.Rand, messages int, acked map[int]bool) {
	t.Helper()
	cfg := Config{Gateway: "barn-7", Key: testKey, Genesis: testGenesis, MaxReadings: 7, MaxAge: 20 * time.Millisecond}
	s, err := New(cfg, lifeJournal{p}, p, lifeLedger{p})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	receipts := map[int]*Receipt{}
	for _, i := range random.Perm(messages) {
		if acked[i] {
			continue
		}
		v, err := reading.String(fmt.Sprintf("m%d", i))
		if err != nil {
			t.Fatal(err)
		}
		sub := Submission{Recall: true, Within: time.Hour}
		sub.Key.Message = [16]byte{byte(i), 1}
		sub.Readings = []reading.Reading{{Device: "d", Name: "n", Value: v}}
		r, err := s.Submit(sub)
		if errors.Is(err, ErrClosed) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		receipts[i] = r
		if random.IntN(4) == 0 {
			<-time.After(time.Duration(random.IntN(5)) * time.Millisecond)
		}
	}
	select {
	case <-p.dead:
	case <-time.After(time.Second):
	}
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, errKilled) {
		t.Fatalf("Run: %v", err)
	}
	synctest.Wait()
	for i, r := range receipts {
		if <-r.Done(); r.Err() == nil {
			acked[i] = true
		}
	}
}
