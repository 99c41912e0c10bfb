package store

import (
	"encoding/binary"
	"errors"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A stub is the decoded value of a stub key: what is left of a block whose body
// is gone.
type stub struct {
	id        stardust.BlockID
	ordered   consensus.Ordered
	inclusion consensus.Inclusion
}

// stubIDSize is how many bytes of an id a key of the stubs' index holds. Ids that
// share them share the key.
const stubIDSize = 8

func stubKey(n uint64) []byte { return appendNumber([]byte{prefixStub}, n) }

func stubIDKey(id stardust.BlockID) []byte { return append([]byte{prefixStubID}, id[:stubIDSize]...) }

func (s *stub) encode() []byte {
	b := append(make([]byte, 0, 48), s.id[:]...)
	b = binary.AppendUvarint(b, uint64(s.ordered.Milestone)<<2|uint64(s.inclusion))
	if s.ordered.Vote {
		c := &s.ordered.Claim
		b = append(b, c.Gateway, c.Merges)
		b = binary.AppendUvarint(b, uint64(c.Epoch))
		b = binary.AppendUvarint(b, uint64(c.Round))
		b = binary.AppendUvarint(b, c.Seen)
	}
	return b
}

func decodeStub(n uint64, v []byte) (*stub, error) {
	s, bad := &stub{}, damaged("stub %d is %x", n, v)
	if len(v) < len(s.id) {
		return nil, bad
	}
	v = v[copy(s.id[:], v):]
	at, size := binary.Uvarint(v)
	if size <= 0 || at>>2 == 0 || at>>34 != 0 || at&3 > uint64(consensus.Conflicting) {
		return nil, bad
	}
	s.ordered.Milestone, s.inclusion = uint32(at>>2), consensus.Inclusion(at&3)
	if v = v[size:]; len(v) == 0 {
		return s, nil
	}
	if len(v) < 5 || v[0] >= network.MaxGateways || v[1] > consensus.MaxMerges {
		return nil, bad
	}
	c := &s.ordered.Claim
	s.ordered.Vote, c.Gateway, c.Merges = true, v[0], v[1]
	v = v[2:]
	for _, field := range []*uint32{&c.Epoch, &c.Round} {
		n, size := binary.Uvarint(v)
		if size <= 0 || n>>32 != 0 {
			return nil, bad
		}
		*field, v = uint32(n), v[size:]
	}
	if c.Seen, size = binary.Uvarint(v); size <= 0 || size != len(v) {
		return nil, bad
	}
	return s, nil
}

// loadStub returns stub n, or badger.ErrKeyNotFound.
func loadStub(txn *badger.Txn, n uint64) (*stub, error) {
	v, err := get(txn, stubKey(n))
	if err != nil {
		return nil, err
	}
	return decodeStub(n, v)
}

// findStub returns a block whose body is gone, or badger.ErrKeyNotFound.
func findStub(txn *badger.Txn, id stardust.BlockID) (n uint64, s *stub, err error) {
	numbers, err := stubNumbers(txn, id)
	if err != nil {
		return 0, nil, err
	}
	for _, n := range numbers {
		s, err := loadStub(txn, n)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return 0, nil, damaged("stub %d is missing", n)
		} else if err != nil {
			return 0, nil, err
		}
		if s.id == id {
			return n, s, nil
		}
	}
	return 0, nil, badger.ErrKeyNotFound
}

// stubNumbers returns the numbers of the stubs that share the index key of id,
// or badger.ErrKeyNotFound.
func stubNumbers(txn *badger.Txn, id stardust.BlockID) (numbers []uint64, err error) {
	v, err := get(txn, stubIDKey(id))
	if err != nil {
		return nil, err
	}
	return decodeNumbers(v)
}

func decodeNumbers(v []byte) (numbers []uint64, err error) {
	for rest := v; len(rest) > 0 || len(numbers) == 0; {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n == 0 {
			return nil, damaged("numbers of stubs are %x", v)
		}
		numbers, rest = append(numbers, n), rest[size:]
	}
	return numbers, nil
}

func encodeNumbers(numbers []uint64) (v []byte) {
	for _, n := range numbers {
		v = binary.AppendUvarint(v, n)
	}
	return v
}
