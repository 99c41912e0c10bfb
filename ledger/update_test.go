package ledger_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// update attaches a network file at the gateway.
func (m *member) update(file *network.File) stardust.BlockID {
	m.f.t.Helper()
	text, err := json.Marshal(file)
	if err != nil {
		m.f.t.Fatal(err)
	}
	l := m.ledger()
	id, err := l.Attach(m.f.t.Context(), newBlock(consensus.TagUpdate, string(text), l.Tips()...), nil)
	if err != nil {
		m.f.t.Fatal(err)
	}
	return id
}

func (f *federation) sign(file *network.File) *network.File {
	for _, key := range f.keys {
		file.Sign(key)
	}
	return file
}

// An update that is about to come into force is not paced as blocks of third
// parties are, which open a round every two seconds; one that is void is.
func TestAnUpdateAloneComesIntoForceAtOnce(t *testing.T) {
	f := federate(t, 3, memories)
	f.certified(f.all[0].attach(3), f.all...)
	next := f.file.Next()
	if err := next.SetWeight("g1", 2); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	f.all[0].update(f.sign(next))
	for _, m := range f.all {
		eventually(t, "epoch 1 is in force", func() bool { return m.ledger().Agreed().Epoch == 1 })
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the epoch began after %v", took)
	}
	files := f.all[2].ledger().Networks()
	if len(files) != 2 || files[0].Hash() != f.file.Hash() || files[1].Hash() != next.Hash() {
		t.Errorf("%d network files are known", len(files))
	}
	f.certified(f.all[1].attach(3), f.all...)
	f.agree(f.all...)
	void := f.all[0].update(next.Next()) // nobody signed it
	time.Sleep(500 * time.Millisecond)
	if p, err := f.all[0].ledger().Progress(void); err != nil || p.Milestone != 0 {
		t.Errorf("a void update is paced as if it mattered: %+v, %v", p, err)
	}
}

// Of two updates for one epoch, both signed, one wins everywhere.
func TestOneOfTwoUpdatesWins(t *testing.T) {
	f := federate(t, 3, memories)
	one, other := f.file.Next(), f.file.Next()
	if err := one.SetWeight("g0", 2); err != nil {
		t.Fatal(err)
	}
	other.DataRoundInterval *= 2
	f.all[0].update(f.sign(one))
	f.all[1].update(f.sign(other))
	for _, m := range f.all {
		eventually(t, "epoch 1 is in force", func() bool { return m.ledger().Agreed().Epoch == 1 })
	}
	f.certified(f.all[2].attach(3), f.all...)
	won := f.all[0].ledger().Networks()[1].Hash()
	for _, m := range f.all {
		if files := m.ledger().Networks(); len(files) != 2 || files[1].Hash() != won {
			t.Errorf("g%d has %d files, the last %x, g0 %x", m.index, len(files), files[len(files)-1].Hash(), won)
		}
	}
	f.agree(f.all...)
}

// What a key has voted is nothing to the one that replaces it.
func TestBeginForgetsTheKeyBefore(t *testing.T) {
	store := newMemory()
	if err := store.Commit(ledger.Change{Own: &consensus.Durable{Epoch: 2, Opened: 7, Recovering: true, Sticky: true}}); err != nil {
		t.Fatal(err)
	}
	if err := ledger.Begin(store); err != nil {
		t.Fatal(err)
	}
	if own, err := store.Own(); err != nil || own == nil || *own != (consensus.Durable{}) {
		t.Errorf("the record is %+v, %v", own, err)
	}
}
