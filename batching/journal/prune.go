package journal

import (
	"bytes"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
)

const (
	// pruneShare is the part of MaxDisk that windows must have grown by, or
	// give back, to be worth a walk over all of them.
	pruneShare = 32
	// pruneEvery is after how long a full journal looks again in any case:
	// windows that have expired take their space until they are deleted.
	pruneEvery = 10 * time.Minute
)

// A pruner knows when the windows are to be looked through. Its fields are
// guarded by indexMu.
type pruner struct {
	grown int64     // bytes of windows written since at
	at    time.Time // of the last walk; zero: none since Open
}

// prune deletes windows when the journal is near its cap, and reports whether
// it did: those that Recall does not look at because their senders have sent
// enough since, and those that have expired. When that is little, because
// every packet has another sender, windows go with the readings that trim has
// dropped: a reading stored twice is better than one refused.
//
// It takes seconds for millions of windows, and nothing waits for it.
func (j *Journal) prune() (bool, error) {
	free, used, err := j.disk.figures(false)
	if err != nil || free < closeMark {
		return false, nil // trim says so; to delete is to write
	}
	j.life.RLock()
	defer j.life.RUnlock()
	worth := j.opt.MaxDisk / pruneShare
	j.indexMu.Lock()
	due := used-j.dropped > j.opt.MaxDisk/10*9 && (j.pruner.grown >= worth || time.Since(j.pruner.at) >= pruneEvery)
	if due {
		j.pruner = pruner{at: time.Now()}
	}
	j.indexMu.Unlock()
	j.mu.RLock()
	failed, closed, first, stored := j.failed, j.closed, j.first, j.checkpoint.next
	j.mu.RUnlock()
	if !due || failed != nil || closed {
		return false, failed
	}
	n, err := j.pruneWindows(0, stored)
	if err == nil && n < worth {
		var more int64
		more, err = j.pruneWindows(first, stored)
		n += more
	}
	if err != nil {
		return false, j.fail(fmt.Errorf("delete old dedup keys: %w", err))
	}
	j.indexMu.Lock()
	defer j.indexMu.Unlock()
	j.dropped += n
	return true, nil
}

// pruneWindows deletes windows that expired, that hold nothing of a sender's
// last windowSize packets, or that begin below a number, and returns their
// bytes. What begins at number stored or above is the next flush's.
func (j *Journal) pruneWindows(below, stored uint64) (deleted int64, err error) {
	w := j.newWriter()
	defer w.discard()
	p := &pruning{below: below, delete: func(s storedWindow) error {
		deleted += s.bytes
		return w.delete(s.key)
	}}
	err = j.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{prefixWindow}, AllVersions: true})
		defer it.Close()
		var last []byte
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			if bytes.Equal(item.Key(), last) {
				continue // an older version
			}
			last = item.KeyCopy(last[:0])
			_, first, ok := parseWindowKey(last)
			expired := item.IsDeletedOrExpired()
			if !ok || first >= stored || expired && item.ExpiresAt() == 0 { // deleted
				continue
			}
			s := storedWindow{key: bytes.Clone(last), first: first, expired: expired, bytes: int64(len(last)) + item.ValueSize()}
			s.packets = int(item.ValueSize()) / windowEntry
			if err := p.add(s); err != nil {
				return err
			}
		}
		return p.sender()
	})
	if err != nil {
		return deleted, err
	}
	return deleted, w.commit()
}

// A storedWindow is what prune knows of a window.
type storedWindow struct {
	key     []byte
	first   uint64
	packets int // at least
	bytes   int64
	expired bool
}

// A pruning collects the windows of one sender at a time.
type pruning struct {
	below   uint64
	delete  func(storedWindow) error
	windows []storedWindow // oldest first
}

func (p *pruning) add(s storedWindow) error {
	if n := len(p.windows); n > 0 && !bytes.Equal(p.windows[n-1].key[:1+16], s.key[:1+16]) {
		if err := p.sender(); err != nil {
			return err
		}
	}
	p.windows = append(p.windows, s)
	return nil
}

// sender deletes what the sender whose windows were added does not need.
func (p *pruning) sender() error {
	newer := 0 // packets
	for i := len(p.windows) - 1; i >= 0; i-- {
		s := p.windows[i]
		if s.expired || s.first < p.below || newer >= windowSize {
			if err := p.delete(s); err != nil {
				return err
			}
		}
		newer += s.packets
	}
	p.windows = p.windows[:0]
	return nil
}
