package ledger

import (
	"crypto/ed25519"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestWhatAQuorumHasPruned(t *testing.T) {
	key := func(i int) (k network.PublicKey) { k[0] = byte(i); return k }
	for _, c := range []struct {
		weights []uint32
		me      int
		says    []uint32
		want    uint32
	}{
		{[]uint32{1}, 0, []uint32{0}, 0},
		{[]uint32{1, 1}, 0, []uint32{0, 7}, 7},
		{[]uint32{1, 1, 1, 1}, 0, []uint32{0, 1 << 31, 0, 0}, 0},
		{[]uint32{1, 1, 1, 1}, 0, []uint32{0, 1 << 31, 8, 0}, 8},
		{[]uint32{1, 1, 1, 1}, 0, []uint32{0, 9, 8, 7}, 8},
		{[]uint32{1, 1, 1, 1}, -1, []uint32{9, 8, 7, 0}, 7},      // no member
		{[]uint32{5, 1, 1}, 0, []uint32{0, 9, 9}, 0},             // a quorum by itself
		{[]uint32{3, 1, 1, 1}, 0, []uint32{0, 1 << 31, 0, 0}, 0}, // which may be a liar
		{[]uint32{3, 1, 1, 1}, 0, []uint32{0, 1 << 31, 6, 0}, 6},
		{[]uint32{1, 5, 1}, 0, []uint32{0, 9, 3}, 9},
	} {
		var gateways []network.Gateway
		says := map[network.PublicKey]uint32{}
		for i, w := range c.weights {
			gateways = append(gateways, network.Gateway{Name: string(rune('a' + i)), PublicKey: key(i), Weight: w})
			says[key(i)] = c.says[i]
		}
		file := network.Create("test", gateways)
		me := c.me
		if me >= 0 {
			k := key(me)
			me, _ = file.Index(k[:])
		}
		if got := prunedByQuorum(file, me, says); got != c.want {
			t.Errorf("weights %v, gateway %d, pruned %v: %d, want %d", c.weights, c.me, c.says, got, c.want)
		}
	}
}

// A markStore has marks and nothing else.
type markStore struct {
	Store
	marks []stardust.BlockID
}

func (s markStore) Marks(_ uint64, yield func([2]uint64, stardust.BlockID) bool) error {
	for i, id := range s.marks {
		if !yield([2]uint64{uint64(i), uint64(i)}, id) {
			break
		}
	}
	return nil
}

// A batch that no milestone will order may be the only place of its readings,
// whatever the name and key that the gateway has now.
func TestWhatMarksNameIsNotDeleted(t *testing.T) {
	vote, guest, own := stardust.BlockID{1}, stardust.BlockID{2}, stardust.BlockID{3}
	l := &Ledger{store: markStore{marks: []stardust.BlockID{{9}, own}}}
	got, err := l.unmarked([]stardust.BlockID{vote, guest, own})
	if err != nil || !slices.Equal(got, []stardust.BlockID{vote, guest}) {
		t.Errorf("%v, %v", got, err)
	}
	if time.Until(l.pruner.payloads) < prunePayloads/2 {
		t.Error("all marks are looked at again at once")
	}
}

// The certificate of a milestone may be complete when the milestone is derived,
// in the same change that makes the one before it certified.
func TestAMilestoneThatIsSignedBeforehandIsCertifiedAtOnce(t *testing.T) {
	var keys []ed25519.PrivateKey
	var gateways []network.Gateway
	for i := range 4 {
		key := ed25519.NewKeyFromSeed(append(make([]byte, 31), byte(i+1)))
		keys = append(keys, key)
		gateways = append(gateways, network.Gateway{Name: string(rune('a' + i)), PublicKey: network.PublicKey(key.Public().(ed25519.PublicKey)), Weight: 1})
	}
	file := network.Create("test", gateways)
	l := &Ledger{onEpoch: func(*network.File) {}}
	l.board.init()
	l.board.certs = consensus.NewCertificates(1)
	a := &l.agreement
	a.files, a.sealed, a.ordered = []*network.File{file}, map[uint32]bool{}, map[stardust.BlockID]uint32{}
	var err error
	if a.state, err = consensus.New(a.files, consensus.Position{}, consensusView{l}, noValue{}, nil); err != nil {
		t.Fatal(err)
	}
	second := consensus.Milestone{Essence: consensus.Essence{Index: 2}}
	for _, key := range keys[:3] {
		l.certify([]signed{{Signature: consensus.SignMilestone(key, 2, second.ID())}})
	}
	l.settle(Change{Milestones: []consensus.Milestone{second}, Certified: 1})
	if a.change.Certified != 2 || len(a.change.Certificates) != 1 {
		t.Errorf("certified up to %d with %d certificates, want 2 with 1", a.change.Certified, len(a.change.Certificates))
	}
}
