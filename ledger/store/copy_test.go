package store

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

type pair struct{ key, value []byte }

func pairsOf(t *testing.T, n *Snapshot) (all []pair) {
	t.Helper()
	err := n.Each(func(key, value []byte, _ uint64) error {
		all = append(all, pair{bytes.Clone(key), bytes.Clone(value)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// nextOf returns the pairs as Import wants them.
func nextOf(all []pair) func() (key, value []byte, expires uint64, err error) {
	return func() (key, value []byte, expires uint64, err error) {
		if len(all) == 0 {
			return nil, nil, 0, io.EOF
		}
		p := all[0]
		all = all[1:]
		return p.key, p.value, 0, nil
	}
}

func TestAnImportedSnapshotIsTheStoreOfItsMomentUnderAnotherID(t *testing.T) {
	s, g := open(t, t.TempDir()), grower{seq: 1}
	own := consensus.Durable{Epoch: 1, Opened: 7}
	g.commit(t, s, 200, 300)
	if err := s.Commit(ledger.Change{Own: &own}); err != nil {
		t.Fatal(err)
	}
	ids := slices.Clone(g.ids[1:])
	n := s.Snapshot()
	defer n.Close()
	g.commit(t, s, 200, 300) // is not in it
	dir := filepath.Join(t.TempDir(), "ledger")
	all := pairsOf(t, n)
	if err := Import(dir, nextOf(all), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	copied := open(t, dir)
	if count, _, _, _ := copied.Count(); count != 200 {
		t.Errorf("%d blocks, want 200", count)
	}
	var got []stardust.BlockID
	if err := copied.Order(0, func(_ uint64, id stardust.BlockID) bool { got = append(got, id); return true }); err != nil || !slices.Equal(got, ids) {
		t.Errorf("other blocks, in another order, or %v", err)
	}
	if d, err := copied.Own(); err != nil || d == nil || *d != own {
		t.Errorf("record of own votes %+v, %v; want %+v", d, err, own)
	}
	if copied.ID() == s.ID() {
		t.Error("the copy has the id of the original, whose positions it does not have")
	}
	if err := Import(dir, nextOf(all), nil); err == nil {
		t.Error("imported into a store that is there")
	}
}

func TestAnImportThatEndsEarlySaysWhy(t *testing.T) {
	cut := errors.New("cut")
	next := func() (key, value []byte, expires uint64, err error) { return nil, nil, 0, cut }
	err := Import(filepath.Join(t.TempDir(), "ledger"), next, slog.New(slog.DiscardHandler))
	if !errors.Is(err, cut) {
		t.Errorf("%v, want %v", err, cut)
	}
}
