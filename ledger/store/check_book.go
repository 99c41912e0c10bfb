package store

import (
	"errors"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// agreed checks what the gateways agreed: every milestone follows the one
// before, its roots are those of the blocks that it lists, each block is
// ordered by the milestone that lists it, and certificates are those of a
// quorum.
func (c *checker) agreed() error {
	files, err := c.files()
	if err != nil {
		return err
	}
	var last consensus.Essence
	listed := map[uint64]uint32{} // milestone by block
	if err := c.each(prefixMilestone, func(key, _ []byte) error {
		index, rest, err := cutNumber(key[1:])
		if err != nil || len(rest) > 0 || index != uint64(last.Index)+1 && index > uint64(c.pruned.reached.Stubs.Milestone)+1 {
			return damaged("key %x follows milestone %d", key, last.Index)
		}
		e, signatures, err := loadMilestone(c.txn, uint32(index))
		if err != nil {
			return err
		}
		if int(e.Epoch) >= len(files) {
			return damaged("milestone %d is of epoch %d, of which there is no network file", e.Index, e.Epoch)
		}
		if err := c.milestone(&last, &e, files, listed); err != nil {
			return err
		}
		if signatures != nil {
			if err := consensus.VerifyCertificate(files[e.Epoch], e.ID(), signatures); err != nil {
				return damaged("certificate of milestone %d: %v", e.Index, err)
			}
		}
		last = e
		return nil
	}); err != nil {
		return err
	}
	return c.order(listed, last.Index)
}

// milestone checks one milestone against the one before and its blocks.
func (c *checker) milestone(last, e *consensus.Essence, files []*network.File, listed map[uint64]uint32) error {
	previous := e.Previous // as far as is known after a gap
	switch {
	case e.Index == 1:
		previous = files[0].GenesisHash()
	case e.Index == last.Index+1:
		previous = last.ID()
	}
	if e.Previous != previous || e.NetworkHash != files[e.Epoch].Hash() || e.Timestamp < last.Timestamp {
		return damaged("milestone %d does not follow milestone %d", e.Index, last.Index)
	}
	if n, err := number(c.txn, milestoneIDKey(e.ID())); err != nil || uint32(n) != e.Index {
		return damaged("the id of milestone %d is that of %d", e.Index, n)
	}
	list, err := milestoneList(c.txn, e.Index)
	if err != nil {
		return err
	}
	if c.forgotten(e.Index) {
		for _, p := range list { // some are kept, as evidence
			if _, ok := c.kept.find(p.number); ok {
				listed[p.number] = e.Index
			}
		}
		return nil
	}
	var all, applied [][]byte
	for _, p := range list {
		id, ok := c.id(p.number)
		if !ok || p.number == 0 {
			return damaged("milestone %d lists block %d, which is missing", e.Index, p.number)
		}
		all = append(all, id[:])
		if p.inclusion == consensus.Included {
			applied = append(applied, id[:])
		}
		if listed[p.number] != 0 {
			return damaged("milestones %d and %d list block %v", listed[p.number], e.Index, id)
		}
		listed[p.number] = e.Index
	}
	root, done := stardust.MerkleRoot(all), stardust.MerkleRoot(applied)
	if root != e.InclusionRoot || done != e.AppliedRoot {
		return damaged("milestone %d has other roots than the %d blocks that it lists", e.Index, len(list))
	}
	return nil
}

// order checks the milestones of blocks against the lists.
func (c *checker) order(listed map[uint64]uint32, last uint32) error {
	found := 0
	if err := c.each(prefixOrdered, func(key, value []byte) error {
		n, rest, err := cutNumber(key[1:])
		if err != nil || len(rest) > 0 {
			return damaged("key %x", key)
		}
		index, _, err := decodeOrdered(value)
		if err != nil || index > last {
			return err // not complete, hence not to be seen
		}
		if listed[n] != index {
			return damaged("block %d is ordered by milestone %d, listed by %d", n, index, listed[n])
		}
		if _, ok := c.kept.find(n); !ok {
			return damaged("block %d is ordered by milestone %d and has no body", n, index)
		}
		found++
		return nil
	}); err != nil {
		return err
	}
	low, err := number(c.txn, []byte{prefixLow})
	kept := 0
	for _, n := range c.kept.numbers {
		if listed[n] != 0 {
			kept++
		} else if n < low && err == nil {
			return damaged("block %d below %d is not ordered", n, low)
		}
	}
	if found != kept {
		return damaged("%d blocks are ordered, %d listed", found, kept)
	}
	return errors.Join(err, c.placed(listed, last))
}

// files returns the network files, which must follow each other.
func (c *checker) files() (files []*network.File, err error) {
	var raw []byte
	at := uint64(0)
	add := func() error {
		f, err := network.Parse(raw)
		if err != nil {
			return damaged("network file of epoch %d: %v", len(files), err)
		}
		if n := len(files); n > 0 {
			if err := f.Follows(files[n-1]); err != nil {
				return damaged("network file of epoch %d: %v", n, err)
			}
		}
		files, raw = append(files, f), nil
		return nil
	}
	err = c.each(prefixNetwork, func(key, value []byte) error {
		epoch, _, err := cutNumber(key[1:])
		if err != nil {
			return err
		}
		if epoch != at {
			if err := add(); err != nil {
				return err
			}
			at++
		}
		if epoch != at {
			return damaged("network file of epoch %d is missing", at)
		}
		raw = append(raw, value...)
		return nil
	})
	if err == nil && raw != nil {
		err = add()
	}
	return files, err
}
