package consensus

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/blake2b"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// The order of a milestone is that of TIP-2.
func TestOrderIsWhiteFlag(t *testing.T) {
	text, err := os.ReadFile("testdata/white_flag.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct {
			Parents          map[string][]string
			AlreadyConfirmed []string
			Root             string
			Order            []string
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for i, c := range file.Cases {
		nodes := map[string]*node{}
		var build func(name string) *node
		build = func(name string) *node {
			if n := nodes[name]; n != nil {
				return n
			}
			n := &node{id: nameID(name)}
			nodes[name] = n
			if name == "g" || slices.Contains(c.AlreadyConfirmed, name) {
				n.ms = 1
			}
			for _, p := range c.Parents[name] {
				n.up = append(n.up, build(p))
			}
			return n
		}
		var got, want []stardust.BlockID
		for _, n := range postOrder(build(c.Root), 2) {
			got = append(got, n.id)
		}
		for _, name := range c.Order {
			want = append(want, nameID(name))
		}
		if len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("case %d: order %v, want %v", i, got, want)
		}
	}
}

// The median is the least time that half of the weight does not exceed.
func TestMedianIsWeightedAndLower(t *testing.T) {
	for _, tt := range []struct {
		weights []uint32
		said    []uint64
		want    uint64
	}{
		{[]uint32{1, 1, 1}, []uint64{30, 10, 20}, 20},
		{[]uint32{1, 1, 1, 1}, []uint64{40, 30, 20, 10}, 20},
		{[]uint32{1, 1, 3}, []uint64{10, 20, 90}, 90},
		{[]uint32{1, 1, 1}, []uint64{0, 10, 90}, 10},
		{[]uint32{1, 1, 1}, []uint64{0, 0, 0}, 0},
	} {
		if got := median(newEpoch(simFile("m", tt.weights)).weights, tt.said); got != tt.want {
			t.Errorf("median of %v weighing %v = %d, want %d", tt.said, tt.weights, got, tt.want)
		}
	}
}

// A gateway leads as many slots as its weight says.
func TestLeadersAreWeighted(t *testing.T) {
	e := newEpoch(simFile("l", []uint32{1, 2, 5}))
	led := make([]int, 3)
	const rounds = 8000
	for r := uint32(1); r <= rounds; r++ {
		led[e.leader(r)]++
	}
	for g, w := range e.weights {
		if want := rounds * int(w) / int(e.total); led[g] < want*9/10 || led[g] > want*11/10 {
			t.Errorf("gateway %d of weight %d leads %d of %d slots, want about %d", g, w, led[g], rounds, want)
		}
	}
}

// The table of §1.
func TestQuorumTable(t *testing.T) {
	for n, want := range map[int][2]uint64{1: {0, 1}, 2: {0, 2}, 3: {0, 2}, 4: {1, 3}, 5: {1, 4}, 6: {1, 4}, 7: {2, 5}, 10: {3, 7}, 15: {4, 10}, 50: {16, 34}} {
		weights := make([]uint32, n)
		for i := range weights {
			weights[i] = 1
		}
		e := newEpoch(simFile("q", weights))
		if e.byzantine != want[0] || e.quorum != want[1] {
			t.Errorf("n %d: B %d and Q %d, want %v", n, e.byzantine, e.quorum, want)
		}
	}
}

// One gateway confirms by its own votes, and each milestone follows the one
// before.
func TestOneGatewayOrdersWhatItVotesFor(t *testing.T) {
	d := &drawing{t: t, s: newTestState(t, 1)}
	d.data("a", "g")
	d.vote("v1", 0, "", "a", "g")
	d.data("b", "a", "v1")
	d.vote("v2", 0, "v1", "b", "v1")
	d.vote("v3", 0, "v2", "v2")
	d.vote("v4", 0, "v3", "v3")
	if len(d.all.Milestones) != 2 {
		t.Fatalf("%d milestones, want 2: %+v", len(d.all.Milestones), d.all.Decisions)
	}
	first, second := d.all.Milestones[0], d.all.Milestones[1]
	names := func(m Milestone) (out []string) {
		for _, e := range m.Blocks {
			out = append(out, string(e.ID[:2]))
		}
		return out
	}
	if got := names(first); !slices.Equal(got, []string{"a\x00", "v1"}) {
		t.Errorf("first milestone orders %q, want a, v1", got)
	}
	if got := names(second); !slices.Equal(got, []string{"b\x00", "v2"}) {
		t.Errorf("second milestone orders %q, want b, v2", got)
	}
	if first.Previous != d.s.genesis || second.Previous != first.ID() {
		t.Errorf("previous ids %x and %x, want the genesis hash and %x", first.Previous, second.Previous, first.ID())
	}
	want := stardust.MerkleRoot([][]byte{first.Blocks[0].ID[:], first.Blocks[1].ID[:]})
	if first.InclusionRoot != want || first.AppliedRoot != stardust.MerkleRoot(nil) {
		t.Errorf("roots %x and %x, want %x and that of nothing", first.InclusionRoot, first.AppliedRoot, want)
	}
	if got := d.s.Position(); got != second.Position() {
		t.Errorf("position %+v, want that after the second milestone, %+v", got, second.Position())
	}
}

// The essence has the bytes of TIP-29.
func TestEssenceFollowsTIP29(t *testing.T) {
	text, err := os.ReadFile("testdata/milestones.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Milestones []struct {
			Name, MilestoneID string
			JSON              struct {
				Index, Timestamp                                            uint32
				PreviousMilestoneID, InclusionMerkleRoot, AppliedMerkleRoot string
				Parents                                                     []stardust.BlockID
				Metadata                                                    string
				Options                                                     []any
			}
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	checked := 0
	for _, m := range file.Milestones {
		if len(m.JSON.Options) > 0 {
			continue // ours have none
		}
		checked++
		e := Essence{
			Index: m.JSON.Index, Timestamp: m.JSON.Timestamp, Parents: m.JSON.Parents,
			Previous:      [32]byte(unhex(m.JSON.PreviousMilestoneID)),
			InclusionRoot: [32]byte(unhex(m.JSON.InclusionMerkleRoot)), AppliedRoot: [32]byte(unhex(m.JSON.AppliedMerkleRoot)),
		}
		got := blake2b.Sum256(e.appendWith(nil, unhex(m.JSON.Metadata)))
		if want := [32]byte(unhex(m.MilestoneID)); got != want {
			t.Errorf("%s: id %x, want %x", m.Name, got, want)
		}
	}
	if checked < 2 {
		t.Errorf("%d vectors checked, want 2", checked)
	}
	e := Essence{Epoch: 1, Slot: 2, NetworkHash: [32]byte{3}}
	if got := e.Metadata(); len(got) != 40 || got[0] != 1 || got[4] != 2 || got[8] != 3 {
		t.Errorf("metadata %x, want epoch 1, slot 2 and the hash 03…", got)
	}
	if e.LedgerRoot = new([32]byte); len(e.Metadata()) != 72 {
		t.Errorf("metadata with a ledger root has %d bytes, want 72", len(e.Metadata()))
	}
}

// The time of a milestone is what the openers of the round before say, and does
// not go back; a clock that is not good says nothing.
func TestTimestampIsTheMedianOfTheRoundBefore(t *testing.T) {
	d := &drawing{t: t, s: newTestState(t, 4)}
	var heads []string
	for round, times := range [][]uint64{{10_000, 30_999, 20_500, 1 << 60}, {7000, 0, 9000, 8000}, {1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}} {
		var next []string
		for g, ms := range times {
			name := fmt.Sprintf("v%d.%d", round+1, g)
			d.timeMs = ms
			if round == 0 {
				d.vote(name, uint8(g), "", "g")
			} else {
				d.vote(name, uint8(g), heads[g], heads...)
			}
			next = append(next, name)
		}
		heads = next
	}
	var got []uint32
	for _, m := range d.all.Milestones {
		got = append(got, m.Timestamp)
	}
	if want := []uint32{0, 20, 20}; !slices.Equal(got, want) {
		t.Errorf("timestamps %v, want %v", got, want)
	}
}
