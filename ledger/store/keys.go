package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// First bytes of keys; the package comment has the layout.
const (
	prefixBlock  = 'a'
	prefixStub   = 'b'
	prefixChild  = 'c'
	prefixID     = 'i'
	prefixStubID = 'j'
	prefixMark   = 'm'
	prefixName   = 'n'
	prefixShelf  = 's'
	prefixTag    = 't'
	prefixFormat = 'v'
	prefixTips1  = 'p' // the tips, of format 1

	prefixCert         = 'C' // of what the gateways agreed
	prefixEquivocation = 'E'
	prefixConflict     = 'H'
	prefixCertified    = 'K'
	prefixList         = 'L'
	prefixMilestone    = 'M'
	prefixNetwork      = 'N'
	prefixOrdered      = 'O'
	prefixLow          = 'U'
	prefixPruned       = 'P'
	prefixSync         = 'S'
	prefixOwn          = 'W'
	prefixMilestoneID  = 'X'
)

// bucketBits is how many low bits of a parent's number stand in the value of a
// child entry: blocks approve near neighbours, so one entry often holds both
// parents, and a list of children is read from at most 64 blocks' entries.
const bucketBits = 6

// appendNumber appends n so that bytes sort as numbers.
func appendNumber(dst []byte, n uint64) []byte {
	size := (bits.Len64(n) + 7) / 8
	dst = append(dst, byte(size))
	for i := size - 1; i >= 0; i-- {
		dst = append(dst, byte(n>>(8*i)))
	}
	return dst
}

// cutNumber reads what appendNumber wrote.
func cutNumber(b []byte) (n uint64, rest []byte, err error) {
	if len(b) < 1 || b[0] > 8 || len(b) < 1+int(b[0]) || b[0] > 0 && b[1] == 0 {
		return 0, nil, damaged("no number: %x", b)
	}
	for _, c := range b[1 : 1+b[0]] {
		n = n<<8 | uint64(c)
	}
	return n, b[1+b[0]:], nil
}

func blockKey(n uint64) []byte { return appendNumber([]byte{prefixBlock}, n) }

func idKey(id stardust.BlockID) []byte { return append([]byte{prefixID}, id[:]...) }

func childKey(bucket, child uint64) []byte {
	return appendNumber(childPrefix(bucket), child)
}

func childPrefix(bucket uint64) []byte { return appendNumber([]byte{prefixChild}, bucket) }

func tagKey(tag []byte, n uint64) []byte { return appendNumber(tagPrefix(tag), n) }

func tagPrefix(tag []byte) []byte {
	return append([]byte{prefixTag, byte(len(tag))}, tag...)
}

func markKey(last uint64) []byte { return appendNumber([]byte{prefixMark}, last) }

// A block is the decoded value of a block key.
type block struct {
	number   uint64
	attached int64 // Unix ms
	id       stardust.BlockID
	version  byte
	parents  []uint64 // numbers
	rest     []byte   // the block's bytes after its parents
}

const timeSize = 6

func (b *block) encode() []byte {
	out := make([]byte, 0, timeSize+len(b.id)+2+4*len(b.parents)+len(b.rest))
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(b.attached))
	out = append(out, ms[8-timeSize:]...)
	out = append(out, b.id[:]...)
	out = append(out, b.version, byte(len(b.parents)))
	for _, p := range b.parents {
		out = binary.AppendUvarint(out, b.number-p)
	}
	return append(out, b.rest...)
}

// decodeBlock reads the value of block n. The result shares v's memory.
func decodeBlock(n uint64, v []byte) (*block, error) {
	if len(v) < timeSize+len(stardust.BlockID{})+2 {
		return nil, damaged("block %d has %d bytes", n, len(v))
	}
	b := &block{number: n}
	var ms [8]byte
	copy(ms[8-timeSize:], v)
	b.attached = int64(binary.BigEndian.Uint64(ms[:]))
	v = v[timeSize:]
	v = v[copy(b.id[:], v):]
	b.version = v[0]
	count := int(v[1])
	v = v[2:]
	if count < 1 || count > stardust.MaxParents {
		return nil, damaged("block %d has %d parents", n, count)
	}
	b.parents = make([]uint64, count)
	for i := range b.parents {
		back, size := binary.Uvarint(v)
		if size <= 0 || back == 0 || back > n {
			return nil, damaged("block %d: parent %d", n, i)
		}
		b.parents[i] = n - back
		v = v[size:]
	}
	b.rest = v
	return b, nil
}

// raw puts the block's bytes together.
func (b *block) raw(parents []stardust.BlockID) []byte {
	out := make([]byte, 0, 2+len(parents)*len(stardust.BlockID{})+len(b.rest))
	out = append(out, b.version, byte(len(parents)))
	for _, p := range parents {
		out = append(out, p[:]...)
	}
	return append(out, b.rest...)
}

// get returns a copy of a value, or badger.ErrKeyNotFound.
func get(txn *badger.Txn, key []byte) ([]byte, error) {
	item, err := txn.Get(key)
	if err != nil {
		return nil, err
	}
	return item.ValueCopy(nil)
}

// loadBlock returns block n, which must be there.
func loadBlock(txn *badger.Txn, n uint64) (*block, error) {
	v, err := get(txn, blockKey(n))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, damaged("block %d is missing", n)
	} else if err != nil {
		return nil, err
	}
	return decodeBlock(n, v)
}

// idOf returns the id of block n, stub or not, which must be there.
func idOf(txn *badger.Txn, n uint64) (stardust.BlockID, error) {
	id, err := lookID(txn, n)
	if errors.Is(err, badger.ErrKeyNotFound) {
		err = damaged("block %d is missing", n)
	}
	return id, err
}

// lookID returns the id of block n, stub or not, or badger.ErrKeyNotFound.
func lookID(txn *badger.Txn, n uint64) (id stardust.BlockID, err error) {
	if n == 0 {
		return stardust.GenesisID, nil
	}
	v, err := get(txn, blockKey(n))
	switch {
	case errors.Is(err, badger.ErrKeyNotFound):
		s, err := loadStub(txn, n)
		if err != nil {
			return id, err
		}
		return s.id, nil
	case err != nil:
		return id, err
	case len(v) < timeSize+len(id):
		return id, damaged("block %d has %d bytes", n, len(v))
	}
	copy(id[:], v[timeSize:])
	return id, nil
}

// numberOf returns the number of a block, stub or not, or
// badger.ErrKeyNotFound.
func numberOf(txn *badger.Txn, id stardust.BlockID) (uint64, error) {
	if id == stardust.GenesisID {
		return 0, nil
	}
	n, err := keptNumber(txn, id)
	if errors.Is(err, badger.ErrKeyNotFound) {
		n, _, err = findStub(txn, id)
	}
	return n, err
}

// keptNumber returns the number of a block with a body, or
// badger.ErrKeyNotFound.
func keptNumber(txn *badger.Txn, id stardust.BlockID) (uint64, error) {
	v, err := get(txn, idKey(id))
	if err != nil {
		return 0, err
	}
	n, size := binary.Uvarint(v)
	if size != len(v) || n == 0 {
		return 0, damaged("number of block %v is %x", id, v)
	}
	return n, nil
}

// decodeMark reads a mark. Number 0, the genesis, stands for a block of another
// replica.
func decodeMark(key, value []byte) (run [2]uint64, n uint64, err error) {
	last, rest, err := cutNumber(key[1:])
	if err != nil || len(rest) > 0 {
		return run, 0, damaged("mark key %x", key)
	}
	width, size := binary.Uvarint(value)
	if size <= 0 || width > last {
		return run, 0, damaged("mark that ends at %d: %x", last, value)
	}
	n, more := binary.Uvarint(value[size:])
	if more <= 0 || size+more != len(value) {
		return run, 0, damaged("mark that ends at %d: %x", last, value)
	}
	return [2]uint64{last - width, last}, n, nil
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

func text(format string, args []any) string {
	return strings.TrimSpace(fmt.Sprintf(format, args...))
}
