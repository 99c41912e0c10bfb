package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Check reads the whole store and returns nil if it agrees with itself: every
// block hashes to its id and has its parents before it, every index lists
// exactly the blocks it should, marks do not overlap, milestones follow
// each other and order what they say, what is gone may be gone, and the files'
// checksums fit. What stands on a
// [Shelf] is its owner's to check. The error wraps ErrDamaged, or is that of
// ctx. It may run beside everything else, takes about 40 bytes of memory per
// block or stub, and sees the store of one moment.
func (s *Store) Check(ctx context.Context) error {
	if err := checkSums(s.db); err != nil {
		return fmt.Errorf("check ledger store: %w", err)
	}
	err := s.db.View(func(txn *badger.Txn) error {
		c := checker{
			stopped: func() error { return context.Cause(ctx) },
			txn:     txn,
		}
		for _, step := range []func() error{
			c.pruning, c.stubs, c.stubIndex, c.blocks, c.idIndex, c.children, c.tags, c.marks, c.agreed, c.rest,
		} {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("check ledger store: %w", err)
	}
	return nil
}

type checker struct {
	stopped func() error // why Check shall end, or nil
	txn     *badger.Txn
	pruned  pruned
	kept    numbered // blocks with bodies
	bare    numbered // stubs
	ordered []uint32 // by stub, the milestone
	edges   int      // block to parent
	tagged  int      // blocks with a tag
	steps   int
}

// numbered are blocks by ascending number.
type numbered struct {
	numbers []uint64
	ids     []stardust.BlockID
}

func (l *numbered) add(n uint64, id stardust.BlockID) {
	l.numbers, l.ids = append(l.numbers, n), append(l.ids, id)
}

// find returns the place of block n in the list.
func (l *numbered) find(n uint64) (i int, ok bool) { return slices.BinarySearch(l.numbers, n) }

// id returns that of block n, stub or not.
func (c *checker) id(n uint64) (id stardust.BlockID, ok bool) {
	if n == 0 {
		return stardust.GenesisID, true
	}
	for _, l := range []*numbered{&c.kept, &c.bare} {
		if i, ok := l.find(n); ok {
			return l.ids[i], true
		}
	}
	return id, false
}

// each is scan over one kind of key that ends when Check shall.
func (c *checker) each(prefix byte, f func(key, value []byte) error) error {
	p := []byte{prefix}
	return scan(c.txn, p, p, func(key, value []byte) (bool, error) {
		if c.steps++; c.steps%1024 == 0 {
			if err := c.stopped(); err != nil {
				return false, err
			}
		}
		return true, f(key, value)
	})
}

func (c *checker) blocks() error {
	return c.each(prefixBlock, func(key, value []byte) error {
		n, rest, err := cutNumber(key[1:])
		if err != nil || len(rest) > 0 {
			return damaged("key %x of a block", key)
		}
		b, err := decodeBlock(n, value)
		if err != nil {
			return err
		}
		parsed, err := c.parse(b)
		if err != nil {
			return err
		}
		if _, both := c.bare.find(n); both {
			return damaged("block %d is a stub, too", n)
		}
		c.kept.add(n, b.id)
		c.edges += len(b.parents)
		if _, ok := parsed.Payload.(*stardust.TaggedData); ok {
			c.tagged++
		}
		return nil
	})
}

// parse puts the block's bytes together and checks them. All of its parents
// must have been found.
func (c *checker) parse(b *block) (*stardust.Block, error) {
	parents := make([]stardust.BlockID, len(b.parents))
	for i, p := range b.parents {
		var ok bool
		if parents[i], ok = c.id(p); !ok {
			return nil, damaged("block %d: its parent %d is missing", b.number, p)
		}
	}
	raw := b.raw(parents)
	if id := stardust.IDOf(raw); id != b.id {
		return nil, damaged("block %d hashes to %v, its id is %v", b.number, id, b.id)
	}
	parsed, err := stardust.ParseBlock(raw)
	if err != nil {
		return nil, damaged("block %v: %v", b.id, err)
	}
	return parsed, nil
}

// block returns block n, which an index entry names.
func (c *checker) block(n uint64, what string) (*block, error) {
	if _, ok := c.kept.find(n); !ok {
		return nil, damaged("%s names block %d, which has no body", what, n)
	}
	return loadBlock(c.txn, n)
}

func (c *checker) idIndex() error {
	found := 0
	err := c.each(prefixID, func(key, value []byte) error {
		n, size := binary.Uvarint(value)
		i, ok := c.kept.find(n)
		if size != len(value) || !ok || !bytes.Equal(key[1:], c.kept.ids[i][:]) {
			return damaged("id %x has number %x", key[1:], value)
		}
		found++
		return nil
	})
	if err == nil && found != len(c.kept.ids) {
		return damaged("%d ids for %d blocks", found, len(c.kept.ids))
	}
	return err
}

func (c *checker) children() error {
	found := 0
	err := c.each(prefixChild, func(key, value []byte) error {
		bucket, rest, err := cutNumber(key[1:])
		if err != nil {
			return err
		}
		n, rest, err := cutNumber(rest)
		if err != nil || len(rest) > 0 || len(value) == 0 {
			return damaged("child entry %x: %x", key, value)
		}
		b, err := c.block(n, "children index")
		if err != nil {
			return err
		}
		for i, low := range value {
			parent := bucket<<bucketBits | uint64(low)
			if low >= 1<<bucketBits || !slices.Contains(b.parents, parent) || slices.Contains(value[:i], low) {
				return damaged("block %d is listed as child of %d", n, parent)
			}
		}
		found += len(value)
		return nil
	})
	if err == nil && found != c.edges {
		return damaged("children index has %d of %d edges", found, c.edges)
	}
	return err
}

func (c *checker) tags() error {
	found := 0
	err := c.each(prefixTag, func(key, value []byte) error {
		if len(key) < 2 || len(key) < 2+int(key[1]) || len(value) > 0 {
			return damaged("tag entry %x: %x", key, value)
		}
		tag := key[2 : 2+key[1]]
		n, rest, err := cutNumber(key[2+key[1]:])
		if err != nil || len(rest) > 0 {
			return damaged("tag entry %x", key)
		}
		b, err := c.block(n, "tag index")
		if err != nil {
			return err
		}
		parsed, err := c.parse(b)
		if err != nil {
			return err
		}
		p, ok := parsed.Payload.(*stardust.TaggedData)
		if !ok || !bytes.Equal(p.Tag, tag) {
			return damaged("block %d is listed under tag %x", n, tag)
		}
		found++
		return nil
	})
	if err == nil && found != c.tagged {
		return damaged("tag index has %d of %d blocks", found, c.tagged)
	}
	return err
}

func (c *checker) marks() error {
	var before *[2]uint64
	return c.each(prefixMark, func(key, value []byte) error {
		run, n, err := decodeMark(key, value)
		if err != nil {
			return err
		}
		if _, ok := c.id(n); !ok && c.pruned.reached.Stubs == (ledger.Reach{}) {
			return damaged("mark %d-%d names block %d, which is missing", run[0], run[1], n)
		}
		if before != nil && run[0] <= before[1] {
			return damaged("marks %d-%d and %d-%d overlap", before[0], before[1], run[0], run[1])
		}
		before = &run
		return nil
	})
}

// rest finds keys that belong to nothing.
func (c *checker) rest() error {
	it := c.txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	known := []byte{
		prefixBlock, prefixChild, prefixID, prefixMark, prefixShelf, prefixTag, prefixName, prefixFormat,
		prefixCert, prefixEquivocation, prefixCertified, prefixList, prefixMilestone, prefixNetwork, prefixOrdered,
		prefixLow, prefixOwn, prefixMilestoneID, prefixTips1, prefixStub, prefixStubID, prefixPruned, prefixSync,
		prefixConflict,
	}
	for it.Rewind(); it.Valid(); {
		first := it.Item().Key()[0]
		if !slices.Contains(known, first) {
			return damaged("key %x belongs to nothing", it.Item().Key())
		}
		it.Seek([]byte{first + 1})
	}
	return nil
}
