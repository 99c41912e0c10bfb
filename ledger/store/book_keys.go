package store

import (
	"encoding/binary"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

const (
	// chunkBlocks is how many blocks of a milestone one transaction, and one
	// value, takes.
	chunkBlocks = 2048
	// chunkBytes is how much of a network file one value takes.
	chunkBytes = 32 << 10

	signatureSize = 32 + 64
)

func milestoneKey(index uint32) []byte { return appendNumber([]byte{prefixMilestone}, uint64(index)) }

func listKey(index uint32, chunk int) []byte {
	return appendNumber(listPrefix(index), uint64(chunk))
}

func listPrefix(index uint32) []byte { return appendNumber([]byte{prefixList}, uint64(index)) }

func milestoneIDKey(id [32]byte) []byte { return append([]byte{prefixMilestoneID}, id[:8]...) }

func certKey(index uint32) []byte { return appendNumber([]byte{prefixCert}, uint64(index)) }

func orderedKey(n uint64) []byte { return appendNumber([]byte{prefixOrdered}, n) }

func equivocationKey(k network.PublicKey) []byte { return append([]byte{prefixEquivocation}, k[:]...) }

func networkKey(epoch uint32, chunk int) []byte {
	return appendNumber(networkPrefix(epoch), uint64(chunk))
}

func networkPrefix(epoch uint32) []byte { return appendNumber([]byte{prefixNetwork}, uint64(epoch)) }

// A placed is a block and what a milestone did with it.
type placed struct {
	number    uint64
	inclusion consensus.Inclusion
}

// appendPlaced appends blocks of a list: each the difference of its number from
// the one before, zigzag, times 4 plus its inclusion.
func appendPlaced(dst []byte, before uint64, list []placed) []byte {
	for _, p := range list {
		diff := int64(p.number - before)
		zigzag := uint64(diff<<1) ^ uint64(diff>>63)
		dst = binary.AppendUvarint(dst, zigzag<<2|uint64(p.inclusion))
		before = p.number
	}
	return dst
}

func cutPlaced(b []byte, before uint64) (p placed, rest []byte, err error) {
	v, size := binary.Uvarint(b)
	if size <= 0 || v&3 > uint64(consensus.Conflicting) {
		return p, nil, damaged("list of a milestone goes on with %.16x", b)
	}
	zigzag := v >> 2
	diff := int64(zigzag>>1) ^ -int64(zigzag&1)
	return placed{before + uint64(diff), consensus.Inclusion(v & 3)}, b[size:], nil
}

// decodeOrdered reads the value of an ordered key.
func decodeOrdered(v []byte) (index uint32, inclusion consensus.Inclusion, err error) {
	n, size := binary.Uvarint(v)
	if size != len(v) || n>>2 == 0 || n>>34 != 0 || n&3 > uint64(consensus.Conflicting) {
		return 0, 0, damaged("block is ordered by %x", v)
	}
	return uint32(n >> 2), consensus.Inclusion(n & 3), nil
}

// encodeOwn is the value of the record of own votes:
// version 1 | epoch u32 | opened u32 | head 32 | flags (1 recovering, 2 sticky).
func encodeOwn(d *consensus.Durable) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{1}, d.Epoch)
	b = binary.LittleEndian.AppendUint32(b, d.Opened)
	b = append(b, d.Head[:]...)
	var flags byte
	if d.Recovering {
		flags |= 1
	}
	if d.Sticky {
		flags |= 2
	}
	return append(b, flags)
}

func decodeOwn(v []byte) (*consensus.Durable, error) {
	if len(v) != 42 || v[0] != 1 || v[41] > 3 {
		return nil, damaged("record of own votes is %x", v)
	}
	d := &consensus.Durable{
		Epoch: binary.LittleEndian.Uint32(v[1:]), Opened: binary.LittleEndian.Uint32(v[5:]),
		Recovering: v[41]&1 != 0, Sticky: v[41]&2 != 0,
	}
	copy(d.Head[:], v[9:])
	return d, nil
}
