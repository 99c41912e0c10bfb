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

// A place is the body of a request in order: position u64 | id. What is wanted
// comes after the position, and the block there should have this id; the id is
// zero for position 0. If it has not, because the store is an older copy of
// itself, the answer begins at the beginning.
type place struct {
	at uint64
	id stardust.BlockID
}

func (m place) append(b []byte) []byte {
	return append(binary.LittleEndian.AppendUint64(b, m.at), m.id[:]...)
}

func parsePlace(b []byte) (m place, err error) {
	if len(b) != 8+idSize {
		return m, fmt.Errorf("%w: place of %d bytes", errBody, len(b))
	}
	m.at = binary.LittleEndian.Uint64(b)
	copy(m.id[:], b[8:])
	return m, nil
}

// parseAsked reads the body of a request for blocks: their ids.
func parseAsked(b []byte) ([]stardust.BlockID, error) {
	if len(b) == 0 || len(b)%idSize != 0 || len(b)/idSize > maxAsked {
		return nil, fmt.Errorf("%w: ids in %d bytes", errBody, len(b))
	}
	return cutIDs(b), nil
}

// A page is the answer to a request in order:
// store 8 | after u64 | last u64 | id of the last | end u8 | ids or blocks.
type page struct {
	store [8]byte
	after uint64 // the position asked for, or 0 when its block is another one
	last  place  // of the last id or block; after when there is none
	end   bool   // nothing came after it
	rest  []byte
}

func (m page) append(b []byte) []byte {
	b = append(b, m.store[:]...)
	b = binary.LittleEndian.AppendUint64(b, m.after)
	b = m.last.append(b)
	b = append(b, flag(m.end))
	return append(b, m.rest...)
}

func parsePage(b []byte) (m page, err error) {
	const head = 8 + 8 + 8 + idSize + 1
	if len(b) < head || b[head-1] > 1 {
		return m, fmt.Errorf("%w: page of %d bytes", errBody, len(b))
	}
	copy(m.store[:], b)
	m.after = binary.LittleEndian.Uint64(b[8:])
	if m.last, err = parsePlace(b[16 : head-1]); err != nil {
		return m, err
	}
	m.end, m.rest = b[head-1] == 1, b[head:]
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
