package ledger

import (
	"crypto/ed25519"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// hear takes in what another gateway said of its part.
func (l *Ledger) hear(from network.PublicKey, w *Word) {
	a := &l.agreement
	if _, member := a.state.File().Index(from[:]); member && w.Whole > a.wholes[from] {
		a.wholes[from] = w.Whole
		l.board.certMu.Lock()
		l.certifyTo()
		l.board.certMu.Unlock()
	}
	if a.issuer == nil {
		return
	}
	file := a.state.File()
	g, ok := file.Index(from[:])
	me, member := file.Index(a.key.Public().(ed25519.PublicKey))
	if !ok || !member {
		return
	}
	if me < len(w.Highest) {
		a.issuer.Report(g, w.Epoch, w.Highest[me])
	}
	if w.Answers {
		a.issuer.Heard(g, w.Epoch, w.Opened)
	}
	if w.Target > 0 {
		a.issuer.Assist(w.Epoch, w.Target)
	}
}

// tell shows what the others are to be told.
func (l *Ledger) tell() {
	a := &l.agreement
	file := a.state.File()
	recovering := false
	w := Word{Epoch: file.Epoch, Off: a.alarmed || l.syncing.Load(), Highest: make([]uint32, len(file.Gateways))}
	for i, g := range file.Gateways {
		w.Highest[i], _ = a.state.Highest(g.PublicKey)
	}
	if a.issuer != nil {
		_, w.Opened, w.Answers = a.issuer.Answer()
		w.Target = a.issuer.Target()
		recovering = a.issuer.Recovering()
	}
	l.board.mu.Lock()
	defer l.board.mu.Unlock()
	w.Milestone, w.Certified = l.board.agreed.Milestone, l.board.agreed.Certified
	w.Whole, w.Payloads = l.pruner.reached.Whole(), l.pruner.reached.Payloads()
	l.board.word, l.board.trouble.Recovering = w, recovering
}
