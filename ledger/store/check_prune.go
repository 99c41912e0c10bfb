package store

import (
	"bytes"
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger"
)

// pruning reads how far pruning has come.
func (c *checker) pruning() (err error) {
	c.pruned, err = loadPruned(c.txn)
	return err
}

// forgotten reports whether pruning has begun to forget the blocks of a
// milestone.
func (c *checker) forgotten(index uint32) bool {
	r := c.pruned.reached.Stubs
	return index <= r.Milestone || index == r.Milestone+1 && r.Next > 0
}

func (c *checker) stubs() error {
	if err := c.each(prefixStub, func(key, value []byte) error {
		n, rest, err := cutNumber(key[1:])
		if err != nil || len(rest) > 0 || n == 0 {
			return damaged("key %x of a stub", key)
		}
		s, err := decodeStub(n, value)
		if err != nil {
			return err
		}
		c.bare.add(n, s.id)
		c.ordered = append(c.ordered, s.ordered.Milestone)
		return nil
	}); err != nil {
		return err
	}
	if gone, left := c.pruned.bodies, uint64(len(c.bare.ids)); left > gone || left < gone && c.pruned.reached.Stubs == (ledger.Reach{}) {
		return damaged("%d stubs for %d bodies that are gone", left, gone)
	}
	return nil
}

func (c *checker) stubIndex() error {
	found := 0
	err := c.each(prefixStubID, func(key, value []byte) error {
		numbers, err := decodeNumbers(value)
		if err != nil {
			return err
		}
		for i, n := range numbers {
			at, ok := c.bare.find(n)
			if !ok || !bytes.Equal(key[1:], c.bare.ids[at][:stubIDSize]) || slices.Contains(numbers[:i], n) {
				return damaged("stub with an id that begins with %x has number %d", key[1:], n)
			}
		}
		found += len(numbers)
		return nil
	})
	if err == nil && found != len(c.bare.ids) {
		return damaged("%d ids for %d stubs", found, len(c.bare.ids))
	}
	return err
}

// placed checks that stubs are ordered by the milestones that list them, as long
// as there are lists; those of a state sync come before their milestone.
func (c *checker) placed(listed map[uint64]uint32, last uint32) error {
	for i, n := range c.bare.numbers {
		if index := c.ordered[i]; listed[n] != index && index <= last && !c.forgotten(index) {
			return damaged("stub %d is ordered by milestone %d, listed by %d", n, index, listed[n])
		}
	}
	return nil
}
