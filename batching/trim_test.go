package batching

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// certify makes the ledger one in which these blocks are certified and no other.
func (l *memLedger) certify(blocks ...stardust.BlockID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.certified == nil {
		l.certified = map[stardust.BlockID]bool{}
	}
	for _, id := range blocks {
		l.certified[id] = true
	}
}

// mark marks the readings from first to last.
func (l *memLedger) mark(first, last uint64, block stardust.BlockID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for seq := first; seq <= last; seq++ {
		l.marks[seq] = block
	}
}

// wantTrimmed waits until the journal has heard what it may drop.
func (r *rig) wantTrimmed(when string, want uint64) {
	r.t.Helper()
	<-time.After(2 * trimEvery)
	synctest.Wait()
	r.j.mu.Lock()
	got := r.j.trimmed
	r.j.mu.Unlock()
	if got != want {
		r.t.Errorf("%s the journal may drop readings up to %d, want %d", when, got, want)
	}
}

// What is attached and not certified may stand in no other place than this
// box's ledger: one that is never certified holds all that follow it.
func TestTheJournalMayDropNoMoreThanWhatIsCertified(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		j, l := newMemJournal(), newMemLedger()
		l.certify() // nothing
		r := startRig(t, j, l, &memProver{}, func(c *Config) { c.MaxReadings = 10 })
		for _, rec := range r.submitMany(30) {
			<-rec.Done()
		}
		<-time.After(DefaultMaxAge + time.Second)
		synctest.Wait()
		if r.Stats().LowWater != 30 || len(l.blocks) != 3 {
			t.Fatalf("attached up to %d in %d blocks, want 30 in 3", r.Stats().LowWater, len(l.blocks))
		}
		block := func(seq uint64) stardust.BlockID {
			id, _, err := l.Marked(seq)
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		r.wantTrimmed("without a certificate", 0)
		l.certify(block(30))
		r.wantTrimmed("with the last block certified", 0)
		l.certify(block(1))
		r.wantTrimmed("with the first and the last block certified", 10)
		l.certify(block(20))
		r.wantTrimmed("with all blocks certified", 30)
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// Two policies share the numbers: a run in the middle holds what follows it.
func TestARunOfAnotherBlockHoldsTheTrim(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		j, l := newMemJournal(), newMemLedger()
		feed(t, j, 12)
		l.mark(1, 12, stardust.BlockID{1})
		l.mark(5, 6, stardust.BlockID{2})
		l.certify(stardust.BlockID{1})
		r := startRig(t, j, l, &memProver{}, nil)
		r.wantTrimmed("at first", 4)
		l.certify(stardust.BlockID{2})
		r.wantTrimmed("at last", 12)
		r.end()
	})
}

// A restart looks at the blocks of what the journal keeps, at each once, and in
// steps; it does not look at those of what has been dropped.
func TestARestartFindsWhatIsCertified(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		j, l := newMemJournal(), newMemLedger()
		const readings, dropped, each = 3 * trimMarks, 1000, 4
		j.next = readings + 1
		for seq := uint64(dropped + 1); seq <= readings; seq++ {
			j.rs = append(j.rs, reading.Reading{Device: "d", Name: "n", Seq: seq})
		}
		for first := uint64(1); first <= readings; first += each {
			id := stardust.BlockID{byte(first >> 16), byte(first >> 8), byte(first), 1}
			l.mark(first, first+each-1, id)
			if first > dropped && first <= readings-10*each {
				l.certify(id)
			}
		}
		r := startRig(t, j, l, &memProver{}, nil)
		r.wantTrimmed("after the restart", readings-10*each)
		if most := (readings-dropped)/each + 10; l.asked > most {
			t.Errorf("asked of %d blocks, want at most %d", l.asked, most)
		}
		r.end()
	})
}

// Drops of an earlier program did not wait for certificates, and may have ended
// within a batch.
func TestAReadingHoldsTheTrimAlsoWhenOthersOfItsBlockAreGone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		j, l := newMemJournal(), newMemLedger()
		feed(t, j, 10)
		j.rs = j.rs[5:]
		l.mark(1, 10, stardust.BlockID{1})
		l.certify()
		r := startRig(t, j, l, &memProver{}, nil)
		r.wantTrimmed("with half a batch left", 5)
		r.end()
	})
}

func TestTheJournalDropsNothingWhileCertificatesCannotBeRead(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		j, l := newMemJournal(), newMemLedger()
		feed(t, j, 10)
		l.mark(1, 10, stardust.BlockID{1})
		l.unread = errBoom
		r := startRig(t, j, l, &memProver{}, nil)
		r.wantTrimmed("with a ledger that cannot be read", 0)
		rec := r.submit("x")
		if <-rec.Done(); rec.Err() != nil {
			t.Errorf("a reading meanwhile: %v", rec.Err())
		}
		l.mu.Lock()
		l.unread = nil
		l.mu.Unlock()
		r.wantTrimmed("when it can be read again", 11)
		r.end()
	})
}

// Whatever the order in which batches are certified, and whenever the process
// is started anew, the journal keeps each reading until its block is certified.
func TestNoOrderOfCertificatesLetsAReadingGoEarly(t *testing.T) {
	for seed := range uint64(40) {
		inBubble(t, func(t *testing.T) {
			const batches, each = 12, 3
			j, l := newMemJournal(), newMemLedger()
			feed(t, j, batches*each)
			l.certify()
			for n := range uint64(batches) {
				l.mark(n*each+1, n*each+each, stardust.BlockID{byte(n), 1})
			}
			for i, n := range rand.New(rand.NewPCG(seed, 1)).Perm(batches) {
				l.certify(stardust.BlockID{byte(n), 1})
				want := uint64(0)
				for l.certified[stardust.BlockID{byte(want / each), 1}] {
					want += each
				}
				r := startRig(t, j, l, &memProver{}, nil)
				r.wantTrimmed(fmt.Sprintf("seed %d: after %d certificates", seed, i+1), want)
				r.end()
				j.rs = slices.DeleteFunc(j.rs, func(r reading.Reading) bool { return r.Seq <= want })
			}
		})
	}
}
