package peer

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// What the bodies of frames hold at most. Every frame stays below the 1 MiB
// that NATS carries.
const (
	maxTips   = 64
	maxAsked  = 1024      // ids in a request for blocks
	maxIDs    = 8192      // ids in one answer
	maxBlocks = 4096      // blocks in one frame
	maxBytes  = 512 << 10 // of blocks in one frame, their lengths included; one block always fits
)

var errBody = errors.New("malformed message")

const idSize = len(stardust.BlockID{})

// A frontier is what a gateway says it has:
// store 8 | position u64 | all u8 | tips u8 | tips.
type frontier struct {
	store    [8]byte // whose order the position is of
	position uint64  // of its last block
	all      bool    // these are all its tips
	tips     []stardust.BlockID
}

func (m frontier) append(b []byte) []byte {
	b = append(b, m.store[:]...)
	b = binary.LittleEndian.AppendUint64(b, m.position)
	b = append(b, flag(m.all), byte(len(m.tips)))
	return appendIDs(b, m.tips)
}

func parseFrontier(b []byte) (m frontier, err error) {
	const head = 8 + 8 + 2
	if len(b) < head || b[16] > 1 || b[17] > maxTips || len(b) != head+int(b[17])*idSize {
		return m, fmt.Errorf("%w: frontier of %d bytes", errBody, len(b))
	}
	copy(m.store[:], b)
	m.position, m.all, m.tips = binary.LittleEndian.Uint64(b[8:]), b[16] == 1, cutIDs(b[head:])
	return m, nil
}

// The body of a request for ids or blocks in order is the position after which
// they are wanted.

func parsePosition(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: position of %d bytes", errBody, len(b))
	}
	return binary.LittleEndian.Uint64(b), nil
}

// parseAsked reads the body of a request for blocks: their ids.
func parseAsked(b []byte) ([]stardust.BlockID, error) {
	if len(b) == 0 || len(b)%idSize != 0 || len(b)/idSize > maxAsked {
		return nil, fmt.Errorf("%w: ids in %d bytes", errBody, len(b))
	}
	return cutIDs(b), nil
}

// A page is the answer to a request in order:
// store 8 | last u64 | end u8 | ids or blocks.
type page struct {
	store [8]byte
	last  uint64 // position of the last id or block, or that asked for when there is none
	end   bool   // nothing came after it
	rest  []byte
}

func (m page) append(b []byte) []byte {
	b = append(b, m.store[:]...)
	b = binary.LittleEndian.AppendUint64(b, m.last)
	b = append(b, flag(m.end))
	return append(b, m.rest...)
}

func parsePage(b []byte) (m page, err error) {
	const head = 8 + 8 + 1
	if len(b) < head || b[16] > 1 {
		return m, fmt.Errorf("%w: page of %d bytes", errBody, len(b))
	}
	copy(m.store[:], b)
	m.last, m.end, m.rest = binary.LittleEndian.Uint64(b[8:]), b[16] == 1, b[head:]
	return m, nil
}

// ids reads the ids of a page.
func (m page) ids() ([]stardust.BlockID, error) {
	if len(m.rest)%idSize != 0 || len(m.rest)/idSize > maxIDs {
		return nil, fmt.Errorf("%w: ids in %d bytes", errBody, len(m.rest))
	}
	return cutIDs(m.rest), nil
}

// appendBlock appends a block: its length u16 and its bytes.
func appendBlock(b, raw []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(raw)))
	return append(b, raw...)
}

// parseBlocks reads blocks up to the end of b, whose memory they share.
func parseBlocks(b []byte) (raws [][]byte, err error) {
	if len(b) > maxBytes+2+stardust.MaxBlockSize {
		return nil, fmt.Errorf("%w: blocks in %d bytes", errBody, len(b))
	}
	for len(b) > 0 {
		if len(b) < 2 || len(raws) == maxBlocks {
			return nil, fmt.Errorf("%w: more after %d blocks", errBody, len(raws))
		}
		n := int(binary.LittleEndian.Uint16(b))
		if b = b[2:]; n == 0 || n > stardust.MaxBlockSize || n > len(b) {
			return nil, fmt.Errorf("%w: block %d has %d bytes", errBody, len(raws), n)
		}
		raws = append(raws, b[:n:n])
		b = b[n:]
	}
	return raws, nil
}

func appendIDs(b []byte, ids []stardust.BlockID) []byte {
	for i := range ids {
		b = append(b, ids[i][:]...)
	}
	return b
}

// cutIDs reads ids that fill b.
func cutIDs(b []byte) []stardust.BlockID {
	ids := make([]stardust.BlockID, len(b)/idSize)
	for i := range ids {
		copy(ids[i][:], b[i*idSize:])
	}
	return ids
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}
