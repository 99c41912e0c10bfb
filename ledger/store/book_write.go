package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// book writes what a change says of the agreement, but for the blocks of
// milestones that [Store.spill] has written.
func (w *writer) book(c *ledger.Change) error {
	if c.Own != nil {
		if err := w.set([]byte{prefixOwn}, encodeOwn(c.Own)); err != nil {
			return err
		}
	}
	if c.Conflict != nil {
		if err := w.set([]byte{prefixConflict}, binary.AppendUvarint(nil, uint64(*c.Conflict))); err != nil {
			return err
		}
	}
	for i := range c.Milestones {
		if err := w.milestone(&c.Milestones[i]); err != nil {
			return fmt.Errorf("milestone %d: %w", c.Milestones[i].Index, err)
		}
	}
	for _, cert := range c.Certificates {
		v := make([]byte, 0, len(cert.Signatures)*signatureSize)
		for _, sig := range cert.Signatures {
			v = append(append(v, sig.PublicKey[:]...), sig.Signature[:]...)
		}
		if err := w.set(certKey(cert.Index), v); err != nil {
			return err
		}
	}
	if c.Certified > 0 {
		if err := w.set([]byte{prefixCertified}, binary.AppendUvarint(nil, uint64(c.Certified))); err != nil {
			return err
		}
	}
	for _, e := range c.Equivocation {
		v := binary.LittleEndian.AppendUint32(nil, e.Epoch)
		v = binary.LittleEndian.AppendUint32(v, e.Round)
		v = append(append(v, e.First[:]...), e.Second[:]...)
		if err := w.set(equivocationKey(e.Key), v); err != nil {
			return err
		}
	}
	if len(c.Milestones) > 0 { // as it was before: it only says where a start has to look
		if err := w.set([]byte{prefixLow}, binary.AppendUvarint(nil, w.low)); err != nil {
			return err
		}
	}
	if err := w.sync(c.Sync); err != nil {
		return err
	}
	return w.networks(c.Networks)
}

func (w *writer) sync(c *ledger.SyncChange) error {
	if c == nil {
		return nil
	}
	w.pruned.reached = c.Reached
	if err := w.set([]byte{prefixPruned}, w.pruned.encode()); err != nil {
		return err
	}
	if !c.Going {
		return w.txn.Delete([]byte{prefixSync})
	}
	return w.set([]byte{prefixSync}, nil)
}

func (w *writer) networks(files []*network.File) error {
	for _, f := range files {
		raw, err := json.Marshal(f)
		if err != nil {
			return err
		}
		for chunk := 0; len(raw) > 0; chunk++ {
			n := min(len(raw), chunkBytes)
			if err := w.set(networkKey(f.Epoch, chunk), raw[:n]); err != nil {
				return err
			}
			raw = raw[n:]
		}
	}
	return nil
}

// milestone writes a milestone whose last blocks are in this transaction.
func (w *writer) milestone(m *consensus.Milestone) error {
	if err := w.set(milestoneKey(m.Index), m.AppendBinary(nil)); err != nil {
		return err
	}
	if err := w.set(milestoneIDKey(m.ID()), binary.AppendUvarint(nil, uint64(m.Index))); err != nil {
		return err
	}
	w.lastMilestone = m.Index
	first := len(m.Blocks) / chunkBlocks * chunkBlocks
	return w.order(m, first, len(m.Blocks))
}

// order writes that the milestone orders its blocks from one index to another,
// at most [chunkBlocks] of them.
func (w *writer) order(m *consensus.Milestone, from, to int) error {
	list, before := make([]placed, 0, to-from), uint64(0)
	if from > 0 {
		n, err := w.number(m.Blocks[from-1].ID)
		if err != nil {
			return err
		}
		before = n
	}
	for _, e := range m.Blocks[from:to] {
		n, err := w.number(e.ID)
		if err != nil {
			return err
		}
		list = append(list, placed{n, e.Inclusion})
		if bare, err := w.isStub(n); err != nil {
			return err
		} else if bare {
			continue
		}
		v := binary.AppendUvarint(nil, uint64(m.Index)<<2|uint64(e.Inclusion))
		if err := w.set(orderedKey(n), v); err != nil {
			return err
		}
		w.ordered = append(w.ordered, n)
	}
	if len(list) == 0 {
		return nil
	}
	return w.set(listKey(m.Index, from/chunkBlocks), appendPlaced(nil, before, list))
}

// isStub reports whether block n came as a stub.
func (w *writer) isStub(n uint64) (bool, error) {
	if w.pruned == nil {
		return false, nil
	}
	_, err := w.txn.Get(stubKey(n))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return false, nil
	}
	return err == nil, err
}

func blocksOf(milestones []consensus.Milestone) (n int) {
	for i := range milestones {
		n += len(milestones[i].Blocks)
	}
	return n
}

// spill writes the blocks of milestones that one transaction cannot take,
// in several. Nobody reads that before the milestone itself is there: after a
// crash in between the same is written again.
func (s *Store) spill(c *ledger.Change) (ordered []uint64, err error) {
	for i := range c.Milestones {
		m := &c.Milestones[i]
		for from := 0; from+chunkBlocks <= len(m.Blocks); from += chunkBlocks {
			txn := s.db.NewTransaction(true)
			w := s.writer(txn)
			if c.Sync != nil {
				w.pruned = &pruned{} // it is not written here
			}
			err := w.order(m, from, from+chunkBlocks)
			if err == nil {
				err = s.commit(txn)
			}
			txn.Discard()
			if err != nil {
				return nil, fmt.Errorf("write blocks %d and on of milestone %d: %w", from, m.Index, err)
			}
			s.guard.wrote(w.bytes)
			ordered = append(ordered, w.ordered...)
		}
	}
	return ordered, nil
}

// advance takes note of blocks that were stored, up to the last one, and of
// those that milestones have ordered.
func (s *Store) advance(last uint64, bodies, ordered []uint64) {
	for _, n := range bodies {
		s.open[n] = true
	}
	for _, n := range ordered {
		delete(s.open, n)
	}
	for s.low <= last && !s.open[s.low] {
		s.low++
	}
}
