package ledger_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

var errPower = errors.New("power cut")

// A mortal store ends its ledger at the next vote, once it is told to.
type mortal struct {
	ledger.Store

	mu     sync.Mutex // guards what follows
	armed  bool
	stores bool          // the vote first
	dead   chan struct{} // closed by the cut
}

// arm returns a channel that is closed when the power was cut.
func (s *mortal) arm(stores bool) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed, s.stores, s.dead = true, stores, make(chan struct{})
	return s.dead
}

func (s *mortal) Commit(c ledger.Change) error {
	s.mu.Lock()
	cut, stores := s.armed && c.Own != nil, s.stores
	s.armed = s.armed && !cut
	s.mu.Unlock()
	if !cut {
		return s.Store.Commit(c)
	}
	defer close(s.dead)
	if stores {
		return errors.Join(s.Store.Commit(c), errPower)
	}
	return errPower
}

// A gateway that ends between storing a vote and telling anybody, or just
// before that, votes in no round twice, and everything is certified.
func TestAVoteThatNobodyHeardIsNotGivenAgain(t *testing.T) {
	cuts := 24
	if testing.Short() {
		cuts = 8
	}
	f := federate(t, 4, func() ledger.Store { return &mortal{Store: newMemory()} })
	var ids []stardust.BlockID
	for i := range cuts {
		m := f.all[i%len(f.all)]
		dead := m.store.(*mortal).arm(i/len(f.all)%2 == 0)
		ids = append(ids, f.all[(i+1)%len(f.all)].attach(2)...)
		<-dead
		m.stop()
		m.start()
		ids = append(ids, m.attach(1)...)
	}
	f.certified(ids, f.all...)
	f.agree(f.all...)
	for _, m := range f.all {
		if tr := m.ledger().Trouble(); len(tr.Equivocators) > 0 || tr.Conflict > 0 {
			t.Errorf("gateway %d sees %+v", m.index, tr)
		}
	}
}
