package ledger_test

import (
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// A key that signs any number of openers of one round costs no disk, and the
// others go on.
func TestAFloodOfOneRoundLeavesNothingBehind(t *testing.T) {
	for name, newStore := range map[string]func() ledger.Store{
		"in memory": memories,
		"on disk": func() ledger.Store {
			s, err := store.Open(t.TempDir(), store.Options{Reserve: 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Check(t.Context()); err != nil {
					t.Error(err)
				}
				_ = s.Close()
			})
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := federate(t, 4, newStore)
			f.all[3].stop()
			f.certified(f.all[0].attach(2), f.all[:3]...)
			var flood [][]byte
			for i := range 600 {
				flood = append(flood, f.vote(3, func(v *consensus.Vote) { v.TimeMs = uint64(1_790_000_000_000 + i) }, stardust.GenesisID))
			}
			hit := f.all[0]
			outcomes, err := hit.ledger().Receive(t.Context(), incoming("g3", flood...))
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range outcomes {
				if o.Err != nil {
					t.Fatal(o.Err)
				}
			}
			stored := func() (n int) {
				for _, raw := range flood {
					if ok, err := hit.ledger().Has(stardust.IDOf(raw)); err != nil {
						t.Fatal(err)
					} else if ok {
						n++
					}
				}
				return n
			}
			f.certified(hit.attach(3), f.all[:3]...)
			eventually(t, "the flood is deleted", func() bool { return stored() <= 6 })
			again, err := hit.ledger().Receive(t.Context(), incoming("g2", flood...))
			if err != nil {
				t.Fatal(err)
			}
			useless := 0
			for _, o := range again {
				if o.Useless {
					useless++
				}
			}
			if useless < len(flood)-6 || stored() > 6 {
				t.Errorf("handed in again, %d of %d are useless and %d stored", useless, len(flood), stored())
			}
			hit.stop()
			hit.start()
			f.certified(hit.attach(3), f.all[:3]...)
			if n := stored(); n < 2 || n > 6 {
				t.Errorf("after a restart %d are stored, of which two are the proof", n)
			}
			f.agree(f.all[:3]...)
		})
	}
}

// A held block keeps those of its parents that have come, although nothing
// stored refers to them.
func TestWhatAHeldBlockRefersToIsNotDeleted(t *testing.T) {
	f := federate(t, 4, memories)
	for _, m := range f.all[1:] {
		m.stop()
	}
	l := f.all[0].ledger()
	vote := func(ms uint64) []byte {
		return f.vote(3, func(v *consensus.Vote) { v.TimeMs = ms }, stardust.GenesisID)
	}
	var flood [][]byte
	for i := range 20 {
		flood = append(flood, vote(uint64(i+1)))
	}
	late := vote(100)
	child := newBlock("child", "of two", stardust.IDOf(flood[10]), stardust.IDOf(late))
	raw, err := child.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := receive(t, l, raw); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Receive(t.Context(), incoming("g3", flood...)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rest is deleted", func() bool {
		ok, err := l.Has(stardust.IDOf(flood[15]))
		return !ok && err == nil
	})
	if ok, err := l.Has(stardust.IDOf(flood[10])); !ok || err != nil {
		t.Fatalf("the parent of a held block is gone: %v", err)
	}
	if err := receive(t, l, late); err != nil {
		t.Fatal(err)
	}
	if ok, err := l.Has(stardust.IDOf(raw)); !ok || err != nil {
		t.Errorf("the child is not stored although both parents came: %v", err)
	}
}

func TestVotesOfLaterEpochsAreParkedOnce(t *testing.T) {
	f := federate(t, 4, memories)
	for _, m := range f.all[1:] {
		m.stop()
	}
	l := f.all[0].ledger()
	next := f.vote(3, func(v *consensus.Vote) { v.Epoch = 1 }, stardust.GenesisID)
	after := f.vote(3, func(v *consensus.Vote) { v.Epoch = 2 }, stardust.GenesisID)
	outcomes, err := l.Receive(t.Context(), incoming("g3", next, next, after))
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		if !o.Later || o.Err != nil {
			t.Errorf("outcome %d is %+v", i, o)
		}
	}
	if n := l.Stats().Parked; n != 1 {
		t.Errorf("%d votes are parked, want that of the next epoch, once", n)
	}
}

// Who goes over the blocks meanwhile is not disturbed.
func TestBlocksThatAreDeletedMeanwhileAreLeftOut(t *testing.T) {
	f := federate(t, 4, memories)
	for _, m := range f.all[1:] {
		m.stop()
	}
	l := f.all[0].ledger()
	f.all[0].attach(3)
	var flood [][]byte
	for i := range 30 {
		flood = append(flood, f.vote(3, func(v *consensus.Vote) { v.TimeMs = uint64(i + 1) }, stardust.GenesisID))
	}
	if _, err := l.Receive(t.Context(), incoming("g3", flood...)); err != nil {
		t.Fatal(err)
	}
	first, seen := true, 0
	if err := l.Blocks(0, func(_ uint64, id stardust.BlockID, _ []byte, _ time.Time) bool {
		if first {
			first = false
			eventually(t, "the flood is deleted", func() bool {
				ok, err := l.Has(stardust.IDOf(flood[15]))
				return !ok && err == nil
			})
		}
		seen++
		return true
	}); err != nil || seen < 3 || seen > 20 {
		t.Errorf("%d blocks, %v", seen, err)
	}
}

// What goes is gone for ever: a clock that everybody else lacks does not make
// everything old.
func TestOneClockAloneMakesNothingOld(t *testing.T) {
	f := federate(t, 4, memories)
	for i, m := range f.all {
		m.stop()
		m.retention = ledger.Retention{Votes: time.Hour, Blocks: time.Hour}
		m.clock = func() uint64 { return 0 }
		if i == 3 {
			m.clock = func() uint64 { return 1 << 63 }
		}
	}
	for _, m := range f.all {
		m.start()
	}
	l := f.all[0].ledger()
	eventually(t, "the milestones have the liar's time", func() bool {
		f.certified(f.all[0].attach(1), f.all...)
		return l.Agreed().Timestamp > 1<<31 && l.Agreed().Milestone > 40
	})
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if n := l.Stats().Pruned; n > 0 {
			t.Fatalf("%d bodies are gone", n)
		}
	}
}
