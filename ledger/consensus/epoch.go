package consensus

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/crypto/blake2b"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// An epoch is what consensus needs of one network file (§1).
type epoch struct {
	file      *network.File
	number    uint32
	hash      [32]byte
	networkID uint64
	n         int
	weights   []uint64
	total     uint64 // W
	byzantine uint64 // B
	quorum    uint64 // Q
}

func newEpoch(f *network.File) *epoch {
	e := &epoch{
		file: f, number: f.Epoch, hash: f.Hash(), networkID: f.NetworkID(),
		n: len(f.Gateways), total: f.Weight(), byzantine: uint64(f.ByzantineWeight), quorum: f.Quorum(),
	}
	for _, g := range f.Gateways {
		e.weights = append(e.weights, uint64(g.Weight))
	}
	return e
}

// weight returns the weight of a set of gateways.
func (e *epoch) weight(set uint64) (w uint64) {
	for ; set != 0; set &= set - 1 {
		if g := bits.TrailingZeros64(set); g < e.n {
			w += e.weights[g]
		}
	}
	return w
}

// isQuorum reports whether the set weighs at least Q.
func (e *epoch) isQuorum(set uint64) bool { return e.weight(set) >= e.quorum }

// leader returns the gateway whose openers of the round are the proposals of
// that slot (§3): the one at the weighted position H(networkId|e|R) mod W.
func (e *epoch) leader(round uint32) int {
	buf := make([]byte, 0, 16)
	buf = binary.LittleEndian.AppendUint64(buf, e.networkID)
	buf = binary.LittleEndian.AppendUint32(buf, e.number)
	buf = binary.LittleEndian.AppendUint32(buf, round)
	h := blake2b.Sum256(buf)
	at := binary.LittleEndian.Uint64(h[:]) % e.total
	for g, w := range e.weights {
		if at < w {
			return g
		}
		at -= w
	}
	panic("consensus: weights do not add up")
}

func bit(g uint8) uint64 { return 1 << (g & 63) }
