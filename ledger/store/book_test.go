package store

import (
	"crypto/ed25519"
	"errors"
	"reflect"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A chain makes milestones over the blocks of a grower, in a network of one.
type chain struct {
	key  ed25519.PrivateKey
	file *network.File
	last *consensus.Essence
}

func newChain() *chain {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	return &chain{key: key, file: network.NewOfOne("test", "gw", key.Public().(ed25519.PublicKey))}
}

// next returns the milestone that orders these blocks.
func (c *chain) next(ids []stardust.BlockID) consensus.Milestone {
	m := consensus.Milestone{Essence: consensus.Essence{
		Index: 1, Slot: 1, Previous: c.file.Hash(), NetworkHash: c.file.Hash(),
		Parents: ids[len(ids)-1:], AppliedRoot: stardust.MerkleRoot(nil),
	}}
	if c.last != nil {
		m.Index, m.Slot, m.Previous = c.last.Index+1, c.last.Slot+2, c.last.ID()
	}
	var all [][]byte
	for i := range ids {
		all = append(all, ids[i][:])
		m.Blocks = append(m.Blocks, consensus.Entry{ID: ids[i]})
	}
	m.InclusionRoot = stardust.MerkleRoot(all)
	c.last = &m.Essence
	return m
}

func (c *chain) certificate(m *consensus.Milestone) ledger.Certificate {
	return ledger.Certificate{Index: m.Index, Signatures: []consensus.Signature{consensus.SignMilestone(c.key, m.Index, m.ID())}}
}

// agreed fills a store with n blocks that milestones of the sizes given order,
// all but the rest.
func agreed(t testing.TB, s *Store, n int, sizes ...int) (*grower, []consensus.Milestone) {
	t.Helper()
	var g grower
	for left := n; left > 0; left -= 250 {
		g.commit(t, s, min(left, 250), 100)
	}
	c := newChain()
	change := ledger.Change{Networks: []*network.File{c.file}}
	at := 1
	for _, size := range sizes {
		m := c.next(g.ids[at : at+size])
		at += size
		change.Milestones = append(change.Milestones, m)
		change.Certificates = append(change.Certificates, c.certificate(&m))
		change.Certified = m.Index
	}
	if err := s.Commit(change); err != nil {
		t.Fatal(err)
	}
	return &g, change.Milestones
}

func TestMilestonesAreReadBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	// The second one is more than a transaction takes, with what is left over.
	g, milestones := agreed(t, s, 6000, 3, 2*chunkBlocks+7, 1, 1000)
	for _, s := range []*Store{s, open(t, copyDir(t, dir))} {
		if last, certified := s.Last(); last != 4 || certified != 4 {
			t.Fatalf("Last = %d, %d", last, certified)
		}
		for i := range milestones {
			want := &milestones[i]
			e, signatures, err := s.Milestone(want.Index)
			if !reflect.DeepEqual(e, want.Essence) || len(signatures) != 1 || err != nil {
				t.Errorf("Milestone(%d) = %+v, %d signatures, %v", want.Index, e, len(signatures), err)
			}
			if blocks, err := s.MilestoneBlocks(want.Index); !reflect.DeepEqual(blocks, want.Blocks) || err != nil {
				t.Errorf("milestone %d has %d blocks, %v, want %d", want.Index, len(blocks), err, len(want.Blocks))
			}
			if index, err := s.MilestoneIndex(want.ID()); index != want.Index || err != nil {
				t.Errorf("MilestoneIndex = %d, %v, want %d", index, err, want.Index)
			}
			for _, e := range want.Blocks {
				if p, err := s.Ordered(e.ID); p.Milestone != want.Index || err != nil {
					t.Fatalf("block is ordered by %+v, %v, want %d", p, err, want.Index)
				}
			}
		}
		ordered := 3 + 2*chunkBlocks + 7 + 1 + 1000
		var rest []stardust.BlockID
		if err := s.Unordered(5, func(id stardust.BlockID, raw []byte) bool {
			if stardust.IDOf(raw) != id {
				t.Fatalf("bytes of block %v are those of another", id)
			}
			rest = append(rest, id)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(rest, g.ids[1+ordered:]) {
			t.Errorf("%d blocks are not ordered, want %d", len(rest), 6000-ordered)
		}
		n := 0
		if err := s.Unordered(3, func(stardust.BlockID, []byte) bool { n++; return true }); n != 6000-ordered+1001 || err != nil {
			t.Errorf("%d blocks from milestone 3 on, %v, want %d", n, err, 6000-ordered+1001)
		}
		if p, err := s.Ordered(g.ids[6000]); p.Milestone != 0 || err != nil {
			t.Errorf("an unordered block is ordered by %+v, %v", p, err)
		}
		if _, _, err := s.Milestone(5); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("Milestone(5) = %v", err)
		}
		if _, err := s.MilestoneIndex([32]byte{1}); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("MilestoneIndex of none = %v", err)
		}
		if files, err := s.Networks(); len(files) != 1 || files[0].Hash() != newChain().file.Hash() || err != nil {
			t.Errorf("Networks = %v, %v", files, err)
		}
	}
}

// A milestone that does not fit one transaction is seen whole or not at all.
func TestACrashWithinALongMilestoneLeavesNothingOfIt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	g, _ := agreed(t, s, 3000, 10)
	c := newChain()
	c.next(g.ids[1:11])
	long := c.next(g.ids[11:3001])
	plain, broken := s.commit, errors.New("power cut")
	writes := 0
	s.commit = func(txn *badger.Txn) error {
		if writes++; writes == 2 {
			return broken
		}
		return plain(txn)
	}
	if err := s.Commit(ledger.Change{Milestones: []consensus.Milestone{long}}); !errors.Is(err, broken) {
		t.Fatalf("Commit = %v", err)
	}
	defer s.failed.Store(nil) // so that it is closed
	after := open(t, copyDir(t, dir))
	if last, _ := after.Last(); last != 1 {
		t.Errorf("the last milestone is %d", last)
	}
	if p, err := after.Ordered(g.ids[20]); p.Milestone != 0 || err != nil {
		t.Errorf("a block of it is ordered by %+v, %v", p, err)
	}
	if err := after.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := after.Commit(ledger.Change{Milestones: []consensus.Milestone{long}}); err != nil {
		t.Fatal(err)
	}
	if p, err := after.Ordered(g.ids[3000]); p.Milestone != 2 || err != nil {
		t.Errorf("the last block of it is ordered by %+v, %v", p, err)
	}
}

func TestTheRecordOfOwnVotesIsStoredWithThem(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if own, err := s.Own(); own != nil || err != nil {
		t.Fatalf("Own of a new store = %v, %v", own, err)
	}
	want := consensus.Durable{Epoch: 2, Opened: 77, Head: stardust.IDOf(nil), Recovering: true, Sticky: true}
	proof := consensus.Equivocation{Key: network.PublicKey{1, 2}, Round: 3, First: stardust.IDOf(nil)}
	if err := s.Commit(ledger.Change{Own: &want, Equivocation: []consensus.Equivocation{proof}}); err != nil {
		t.Fatal(err)
	}
	s = open(t, copyDir(t, dir))
	if own, err := s.Own(); own == nil || *own != want || err != nil {
		t.Errorf("Own = %+v, %v, want %+v", own, err, want)
	}
	if proofs, err := s.Equivocations(); len(proofs) != 1 || proofs[0] != proof || err != nil {
		t.Errorf("Equivocations = %v, %v", proofs, err)
	}
	if err := ledger.Begin(s); err != nil { // another key has taken its place
		t.Fatal(err)
	}
	if own, err := s.Own(); own == nil || *own != (consensus.Durable{}) || err != nil {
		t.Errorf("Begin made %+v of the record, %v", own, err)
	}
}

func TestAConflictIsStoredUntilItIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	stored := func(want uint32) {
		t.Helper()
		for _, s := range []*Store{s, open(t, copyDir(t, dir))} { // as a crash leaves it
			if index, err := s.Conflict(); index != want || err != nil {
				t.Errorf("Conflict = %d, %v, want %d", index, err, want)
			}
			if err := s.Check(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	stored(0)
	if err := s.Commit(ledger.Change{Conflict: new(uint32(912))}); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(ledger.Change{Certified: 1}); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(ledger.Store) error{ledger.Begin, ledger.Distrust} { // not by another key or a restore
		if err := change(s); err != nil {
			t.Fatal(err)
		}
	}
	stored(912)
	if err := ledger.Trust(s); err != nil {
		t.Fatal(err)
	}
	stored(0)
}

func TestCheckFindsDamageOfWhatWasAgreed(t *testing.T) {
	key := func(k []byte) func(*badger.Txn) error { return func(txn *badger.Txn) error { return txn.Delete(k) } }
	put := func(k, v []byte) func(*badger.Txn) error { return func(txn *badger.Txn) error { return txn.Set(k, v) } }
	for name, damage := range map[string]func(*badger.Txn) error{
		"a milestone is missing":              key(milestoneKey(1)),
		"a list is missing":                   key(listKey(2, 0)),
		"a list ends early":                   put(listKey(2, 0), appendPlaced(nil, 0, []placed{{11, 0}})),
		"a list in another order":             put(listKey(1, 0), appendPlaced(nil, 0, []placed{{2, 0}, {1, 0}})),
		"a block is ordered by another":       put(orderedKey(3), []byte{2 << 2}),
		"a block that no list has":            put(orderedKey(90), []byte{2 << 2}),
		"a listed block is not ordered":       key(orderedKey(3)),
		"an id is missing":                    key(milestoneIDKey(secondID(t))),
		"a certificate of nobody":             put(certKey(1), make([]byte, signatureSize)),
		"a certificate that is cut":           put(certKey(1), make([]byte, 5)),
		"the network file is missing":         key(networkKey(0, 0)),
		"a network file that is none":         put(networkKey(0, 0), []byte("{}")),
		"an unordered block below the lowest": put([]byte{prefixLow}, []byte{50}),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.TempDir(), Options{Reserve: 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			agreed(t, s, 100, 10, 20)
			if err := s.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.db.Update(damage); err != nil {
				t.Fatal(err)
			}
			if err := s.Check(t.Context()); !errors.Is(err, ErrDamaged) {
				t.Errorf("Check = %v", err)
			}
		})
	}
}

// secondID is the id of the second milestone of every test store.
func secondID(t *testing.T) [32]byte {
	var g grower
	g.grow(t, 100, 100)
	c := newChain()
	c.next(g.ids[1:11])
	m := c.next(g.ids[11:31])
	return m.ID()
}
