package consensus

import (
	"crypto/ed25519"
	"errors"
)

// A signing is what a gateway does once.
type signing struct {
	key   [ed25519.PublicKeySize]byte
	index uint32
}

// reseal collects signatures anew after a start, and signs again what is not
// certified.
func (n *simNode) reseal() {
	d := n.disk
	n.certs = NewCertificates(d.sealed)
	if !n.sim.plan.certs {
		return
	}
	for _, e := range d.chain[d.sealed-min(d.sealed, CertWindow) : d.sealed] {
		n.certs.Sealed(&Milestone{Essence: e}, d.files[e.Epoch])
	}
	for _, e := range d.chain[d.sealed:] {
		n.certify(&Milestone{Essence: e})
	}
}

// certify signs a milestone that is durable. An evil node signs what it likes.
func (n *simNode) certify(m *Milestone) {
	s := n.sim
	if !s.plan.certs {
		return
	}
	file := n.disk.files[m.Epoch]
	n.judge(n.certs.Derived(m, file))
	if known := n.disk.certs[m.Index]; known != nil {
		n.hear(known)
	}
	if _, member := file.Index(n.public[:]); member {
		n.signOnce(m)
	}
}

func (n *simNode) signOnce(m *Milestone) {
	s := n.sim
	sig := SignMilestone(n.key, m.Index, m.ID())
	if n.evil {
		switch p := s.rng.Float64(); {
		case p < 0.3: // of another milestone
			other := sig.Milestone
			other[0]++
			sig = SignMilestone(n.key, m.Index, other)
		case p < 0.5: // in somebody else's name
			sig.PublicKey = s.nodes[s.rng.IntN(len(s.nodes))].public
			sig.Milestone[1]++
		case p < 0.6: // of one to come
			sig = SignMilestone(n.key, m.Index+uint32(s.rng.IntN(100)), sig.Milestone)
		case p < 0.7:
			return
		}
	} else {
		s.check.signs(n, &sig)
	}
	n.hear([]Signature{sig})
	for _, to := range s.nodes {
		s.send(n, to, func() { to.hear([]Signature{sig}) })
	}
}

// hear takes signatures of others.
func (n *simNode) hear(signatures []Signature) {
	for _, sig := range signatures {
		st, err := n.certs.Add(sig)
		switch {
		case errors.Is(err, ErrBadSignature):
			n.sim.check.count.forged++
		case err != nil:
			n.sim.check.fail("node %d: signature: %v", n.index, err)
		}
		n.judge(st)
	}
}

func (n *simNode) judge(st Status) {
	d, c := n.disk, n.sim.check
	for _, sig := range st.Doubts {
		n.compare(sig)
	}
	if st.Alarm && !n.evil {
		n.issuer.Halt()
		c.fail("§5: node %d: others contradict its milestone %d", n.index, st.Index)
	}
	if !st.Certified || int(st.Index) > len(d.chain) {
		return
	}
	d.certs[st.Index] = n.certs.Complete(st.Index)
	for d.certs[d.sealed+1] != nil && int(d.sealed) < len(d.chain) {
		d.sealed++
	}
	n.certs.Forget(d.sealed + 1)
	if !n.evil {
		c.certificate(n, st.Index)
	}
}

// compare has the honest signer of what may be another milestone show it.
func (n *simNode) compare(sig Signature) {
	for _, o := range n.sim.nodes {
		if o.evil || o.public != sig.PublicKey || int(sig.Index) > len(o.disk.chain) {
			continue
		}
		e := o.disk.chain[sig.Index-1]
		st, err := n.certs.Rival(&e, sig)
		if err != nil {
			n.sim.check.fail("node %d: rival: %v", n.index, err)
		}
		n.judge(st)
	}
}

// askCertificates asks a peer for the signatures of the oldest milestones that
// have no certificate.
func (n *simNode) askCertificates(peer *simNode) {
	s := n.sim
	if !s.plan.certs || peer.certs == nil {
		return
	}
	from, to := n.disk.sealed+1, min(n.disk.pos.Index, n.disk.sealed+8)
	if from > to {
		return
	}
	s.send(n, peer, func() {
		var out []Signature
		for i := from; i <= to; i++ {
			if done := peer.disk.certs[i]; done != nil {
				out = append(out, done...)
			} else {
				out = append(out, peer.certs.Said(i)...)
			}
		}
		s.send(peer, n, func() { n.hear(out) })
	})
}

// unwritten loses the power of a node between deriving a milestone and writing
// it, block and all. With the plan's rule broken, it was signed before.
func (n *simNode) unwritten(b *simBlock, res *Result) bool {
	s := n.sim
	if !s.plan.certs || !s.chaos || n.evil || len(res.Milestones) == 0 || n.disk.own.Head == b.ID ||
		n.disk.log[len(n.disk.log)-1] != b.ID {
		return false
	}
	if !s.odds(map[bool]float64{true: 0.5, false: 0.01}[s.plan.only != ""]) {
		return false
	}
	if s.plan.early {
		for i := range res.Milestones {
			n.signOnce(&res.Milestones[i])
		}
	}
	delete(n.disk.bodies, b.ID)
	n.disk.log = n.disk.log[:len(n.disk.log)-1]
	n.disk.coins.undo()
	n.crash()
	s.after(100+s.rng.Int64N(1500), n.boot)
	return true
}

// signs holds that an honest gateway signs one milestone of an index.
func (c *checker) signs(n *simNode, sig *Signature) {
	key := signing{n.public, sig.Index}
	if other, ok := c.signed[key]; ok && other != sig.Milestone {
		c.fail("§5 once: node %d signs two milestones of index %d", n.index, sig.Index)
	}
	c.signed[key] = sig.Milestone
}

// certificate holds that complete certificates of one index are of one
// milestone.
func (c *checker) certificate(n *simNode, index uint32) {
	e := &n.disk.chain[index-1]
	id := e.ID()
	if err := VerifyCertificate(n.disk.files[e.Epoch], id, n.disk.certs[index]); err != nil {
		c.fail("§5: certificate of milestone %d at node %d: %v", index, n.index, err)
	}
	if other, ok := c.complete[index]; ok && other != id {
		c.fail("§5: milestone %d has two certificates", index)
	}
	if _, ok := c.complete[index]; !ok {
		c.count.certified++
	}
	c.complete[index] = id
}
