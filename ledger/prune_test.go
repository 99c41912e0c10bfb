package ledger_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// bodies returns how many votes and other blocks have bodies at a member.
func (m *member) bodies() (votes, payloads int) {
	m.f.t.Helper()
	if err := m.ledger().Blocks(0, func(_ uint64, _ stardust.BlockID, raw []byte, _ time.Time) bool {
		b, err := stardust.ParseBlock(raw)
		if err != nil {
			m.f.t.Fatal(err)
		}
		if consensus.IsVote(b.Payload) {
			votes++
		} else {
			payloads++
		}
		return true
	}); err != nil {
		m.f.t.Fatal(err)
	}
	return votes, payloads
}

// busy attaches a block every 20 ms until there are so many milestones more.
func (f *federation) busy(milestones uint32, at ...*member) (ids []stardust.BlockID) {
	f.t.Helper()
	to := at[0].ledger().Agreed().Milestone + milestones
	for i := 0; at[0].ledger().Agreed().Milestone < to; i++ {
		ids = append(ids, at[i%len(at)].attach(1)...)
		time.Sleep(20 * time.Millisecond)
	}
	return ids
}

// Ages are by the time of milestones: an own clock that is an hour ahead makes
// nothing older.
func TestAPrunedReplicaAgreesWithTheOthers(t *testing.T) {
	f := federate(t, 4, func() ledger.Store { return open(t, t.TempDir()) })
	var hold atomic.Bool
	hold.Store(true)
	g := f.all[0]
	g.stop()
	g.retention = ledger.Retention{Votes: time.Second, Blocks: time.Second, Hold: func(stardust.BlockID) bool { return hold.Load() }}
	g.clock = func() uint64 { return uint64(time.Now().Add(time.Hour).UnixMilli()) }
	g.start()
	ids := f.busy(100, f.all...)
	f.certified(ids, f.all...)
	eventually(t, "votes are pruned and held blocks are not", func() bool {
		f.certified(f.all[1].attach(1), f.all...) // nothing ages while nothing is agreed
		_, payloads := g.bodies()
		return g.ledger().Stats().Pruned > 50 && payloads > len(ids)
	})
	hold.Store(false)
	eventually(t, "blocks are pruned", func() bool {
		f.certified(f.all[1].attach(1), f.all...)
		_, payloads := g.bodies()
		return payloads < len(ids)
	})
	pruned := 0
	for _, id := range ids {
		_, err := g.ledger().Block(id)
		p, failure := g.ledger().Progress(id)
		if failure != nil || !p.Certified {
			t.Errorf("block %v has come to %+v, %v", id, p, failure)
		}
		if errors.Is(err, ledger.ErrPruned) && errors.Is(err, ledger.ErrNotFound) {
			pruned++
		} else if err != nil {
			t.Error(err)
		}
	}
	if pruned == 0 {
		t.Error("no block is pruned")
	}
	votes, _ := g.bodies()
	if a := g.ledger().Agreed(); votes == 0 || a.Certified < a.Milestone-10 {
		t.Errorf("%d votes are kept at %+v", votes, a)
	}

	g.stop() // and it starts from stubs
	g.start()
	f.certified(f.busy(5, f.all...), f.all...)
	f.agree(f.all...)
}

func TestWhatIsNotCertifiedIsNotPruned(t *testing.T) {
	s := newMemory()
	f := federate(t, 1, func() ledger.Store { return s })
	g := f.all[0]
	g.stop()
	g.retention = ledger.Retention{Votes: time.Nanosecond, Blocks: time.Nanosecond}
	var now atomic.Uint64
	g.clock = func() uint64 { return now.Add(3_600_000) } // each vote is an hour after the one before
	g.start()
	ids := f.busy(40, g)
	eventually(t, "something is pruned", func() bool { return g.ledger().Stats().Pruned > 0 })
	f.certified(ids, g)
	time.Sleep(2 * time.Second)
	r, err := s.Pruned()
	a := g.ledger().Agreed()
	if err != nil || r.Votes.Milestone > a.Certified-16 || r.Blocks.Milestone > a.Certified-16 || r.Votes.Milestone < 10 {
		t.Errorf("pruned up to %+v, %v; agreed is %+v", r, err, a)
	}
}

// The first milestone has no time, which does not make its blocks old.
func TestBlocksWithoutATimeAreNotOld(t *testing.T) {
	f := federate(t, 1, memories)
	g := f.all[0]
	g.stop()
	g.retention = ledger.Retention{Votes: time.Hour, Blocks: time.Hour}
	g.start()
	ids := f.busy(40, g)
	f.certified(ids, g)
	time.Sleep(1500 * time.Millisecond) // it looks once a second
	if n := g.ledger().Stats().Pruned; n > 0 {
		t.Errorf("%d blocks of the last seconds are pruned", n)
	}
	if m, err := g.ledger().Milestone(1); err != nil || m.Timestamp != 0 {
		t.Errorf("the first milestone has the time %d, %v", m.Timestamp, err)
	}
}
