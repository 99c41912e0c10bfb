package ledger

import (
	"errors"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// When more of the weight than may be faulty signs another milestone than this
// replica derived, one of the two histories is wrong, and what is confirmed
// here may be undone elsewhere: the gateway votes no more until somebody has
// decided (consensus.md §5). That holds for certified milestones, too.

// Trust makes a store one whose gateway votes again after a milestone conflict:
// somebody has found out that its milestones are the right ones. The error is as
// that of [Store].Commit.
func Trust(s Store) error {
	return s.Commit(Change{Conflict: new(uint32)})
}

// openCertificates opens the last certified milestones for what contradicts
// them. Those of which nothing is kept, below a state sync, are left out.
func (l *Ledger) openCertificates(certified uint32) error {
	certs := consensus.NewCertificates(certified)
	for index := certified - min(certified, consensus.CertWindow) + 1; index <= certified; index++ {
		e, _, err := l.store.Milestone(index)
		if errors.Is(err, ErrNotFound) {
			continue
		} else if err != nil {
			return fmt.Errorf("read milestone %d: %w", index, err)
		}
		certs.Sealed(&consensus.Milestone{Essence: e}, l.agreement.files[e.Epoch])
	}
	l.board.certMu.Lock()
	l.board.certs = certs
	l.board.certMu.Unlock()
	return nil
}

// openConflict halts a gateway that found a conflict before this start.
func (l *Ledger) openConflict() error {
	index, err := l.store.Conflict()
	if err != nil || index == 0 {
		return err
	}
	l.halt(index)
	l.log.Error("others signed another milestone than stands here; this gateway votes no more until somebody has decided which is right",
		"alarm", "milestone_conflict", "milestone", index)
	return nil
}

// conflict has this gateway vote and sign no more: at once, and with the next
// Commit for good, since a restart changes nothing of what others have signed.
func (l *Ledger) conflict(index uint32) {
	a := &l.agreement
	if a.alarmed {
		return
	}
	a.change.Conflict = &index
	l.halt(index)
	l.log.Error("other gateways signed another milestone than this one derived; this gateway votes no more",
		"alarm", "milestone_conflict", "milestone", index)
}

func (l *Ledger) halt(index uint32) {
	a := &l.agreement
	a.alarmed = true
	if a.issuer != nil {
		a.issuer.Halt()
	}
	l.board.mu.Lock()
	l.board.trouble.Conflict = index
	l.board.mu.Unlock()
}

// contradict takes note of a gateway that signed another milestone than this one
// derived. It alone may be lying.
func (l *Ledger) contradict(key network.PublicKey, index uint32) {
	a := &l.agreement
	l.counts.contradictions.Add(1)
	if !a.liars[key] { // once: it may do so at every milestone
		a.liars[key] = true
		l.log.Warn("a gateway signed another milestone than this one derived", "gateway", l.nameOf(key), "milestone", index)
	}
}

// doubt has others asked for what may be another milestone than this one derived,
// unless it stands here, under its own index.
func (l *Ledger) doubt(sig consensus.Signature) {
	if _, err := l.store.MilestoneIndex(sig.Milestone); err == nil || l.agreement.alarmed {
		return
	}
	l.board.mu.Lock()
	defer l.board.mu.Unlock()
	if _, ok := l.board.doubts[sig.PublicKey]; !ok {
		l.board.doubts[sig.PublicKey] = sig
	}
}
