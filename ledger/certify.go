package ledger

import (
	"cmp"
	"crypto/ed25519"
	"slices"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// derived takes a durable milestone among those that want signatures, signs it,
// and tells that.
func (l *Ledger) derived(m *consensus.Milestone, file *network.File, tell bool) {
	a := &l.agreement
	l.board.certMu.Lock()
	l.judge(l.board.certs.Derived(m, file))
	l.board.certMu.Unlock()
	if a.key == nil || a.alarmed {
		return
	}
	if _, ok := file.Index(a.key.Public().(ed25519.PublicKey)); !ok {
		return
	}
	sig := consensus.SignMilestone(a.key, m.Index, m.ID())
	l.certify([]signed{{Signature: sig}})
	if tell {
		l.publish(sig)
	}
}

// judge acts on what signatures say of a milestone. The caller holds certMu.
func (l *Ledger) judge(st consensus.Status) {
	a := &l.agreement
	for _, key := range st.Against {
		l.contradict(key, st.Index)
	}
	for _, sig := range st.Doubts {
		l.doubt(sig)
	}
	if st.Alarm {
		l.conflict(st.Index)
	}
	if !st.Certified {
		return
	}
	if len(a.change.Certificates) == 0 {
		a.certAt = time.Now()
	}
	a.change.Certificates = append(a.change.Certificates, Certificate{st.Index, l.board.certs.Complete(st.Index)})
	a.sealed[st.Index] = true
	l.certifyTo()
}

// certifyTo finds out up to where all milestones are certified. One without a
// certificate is by one above, whose id is over it, once the others have dropped
// its own, as nothing is left that it would prove. The caller holds certMu.
func (l *Ledger) certifyTo() {
	a := &l.agreement
	at, pruned := max(l.board.agreed.Certified, a.change.Certified), l.prunedByOthers()
	for a.sealed[at+1] || len(a.sealed) > 0 && at < pruned {
		delete(a.sealed, at+1)
		at++
		a.change.Certified = at
	}
}

// prunedByOthers returns the milestone up to which so many of the others say that
// they have pruned that these make a quorum with this gateway: one alone may lie,
// and what others still have is to be asked for.
func (l *Ledger) prunedByOthers() uint32 {
	file, me := l.agreement.state.File(), -1
	if l.key != nil {
		if g, ok := file.Index(l.key.Public().(ed25519.PublicKey)); ok {
			me = g
		}
	}
	return prunedByQuorum(file, me, l.agreement.wholes)
}

// prunedByQuorum returns the highest milestone that gateways other than number me
// name which make a quorum with that one, if it is one, and of which one at least
// is honest; 0: none.
func prunedByQuorum(file *network.File, me int, says map[network.PublicKey]uint32) uint32 {
	needed := file.Quorum()
	if me >= 0 {
		needed -= min(needed, uint64(file.Gateways[me].Weight))
	}
	if needed > 0 {
		needed = max(needed, uint64(file.ByzantineWeight)+1)
	}
	others := slices.Clone(file.Gateways)
	slices.SortFunc(others, func(x, y network.Gateway) int { return cmp.Compare(says[y.PublicKey], says[x.PublicKey]) })
	for _, g := range others {
		if needed == 0 {
			return 0 // it needs none of them
		}
		if needed -= min(needed, uint64(g.Weight)); needed == 0 {
			return says[g.PublicKey]
		}
	}
	return 0
}

// certify takes in what others signed.
func (l *Ledger) certify(signatures []signed) {
	l.board.certMu.Lock()
	defer l.board.certMu.Unlock()
	for _, sig := range signatures {
		var st consensus.Status
		var err error
		if sig.shown == nil {
			st, err = l.board.certs.Add(sig.Signature)
		} else {
			st, err = l.board.certs.Rival(sig.shown, sig.Signature)
		}
		if err != nil {
			l.counts.badSignatures.Add(1)
			l.log.Debug("signature of a milestone dropped", "err", err)
			continue
		}
		l.judge(st)
	}
}
