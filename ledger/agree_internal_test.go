package ledger

import (
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
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
		{[]uint32{1, 1, 1, 1}, -1, []uint32{9, 8, 7, 0}, 7}, // no member
		{[]uint32{5, 1, 1}, 0, []uint32{0, 9, 9}, 0},        // a quorum by itself
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
