package consensus

import (
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// sync tells a random peer what this node has, asks for what it misses, and
// does its part in recovery.
func (n *simNode) sync() {
	s := n.sim
	if n.resync {
		n.snapshot()
		return
	}
	peer := s.nodes[s.rng.IntN(len(s.nodes))]
	ids := n.state.Tips()
	for _, h := range n.state.heads {
		if h != nil {
			ids = append(ids, h.id)
		}
	}
	ids = append(ids, n.offers()...)
	s.send(n, peer, func() {
		for _, id := range ids {
			if id != stardust.GenesisID && !peer.knows(id) {
				peer.ask(n, id)
			}
		}
	})
	for i, id := range n.missed() {
		if i == 30 {
			break
		}
		n.want(id)
	}
	n.giveUp()
	n.askCertificates(peer)
	n.askAbout()
	n.plan(0)
}

// giveUp drops what has long waited for a parent, which may be what everybody
// else has forgotten.
func (n *simNode) giveUp() {
	var old []*simBlock
	for id, at := range n.came {
		if at+20_000 < n.sim.now {
			old = append(old, n.inbox[id])
		}
	}
	for _, b := range old {
		n.drop(b)
	}
	if len(old) > 0 {
		n.evict()
	}
}

func (n *simNode) knows(id stardust.BlockID) bool {
	_, ok := n.disk.ordered[id]
	return ok || n.disk.bodies[id] || n.inbox[id] != nil || n.bad[id]
}

// missed returns the parents that blocks wait for, in a fixed order.
func (n *simNode) missed() (ids []stardust.BlockID) {
	for id := range n.waiting {
		if !n.knows(id) {
			ids = append(ids, id)
		}
	}
	// The parents of parked votes are in the inbox or known; those of blocks
	// that wait for another parent are asked for one after the other.
	slices.SortFunc(ids, stardust.BlockID.Compare)
	return ids
}

func (n *simNode) want(id stardust.BlockID) {
	n.ask(n.sim.nodes[n.sim.rng.IntN(len(n.sim.nodes))], id)
}

// ask requests a block and some of what lies below it.
func (n *simNode) ask(peer *simNode, id stardust.BlockID) {
	s := n.sim
	s.send(n, peer, func() {
		if !peer.disk.bodies[id] && peer.inbox[id] == nil {
			if _, ordered := peer.disk.ordered[id]; ordered && !peer.evil {
				s.send(peer, n, func() { // pruned
					if !n.knows(id) {
						n.resync = true
					}
				})
			}
			return
		}
		out := []*simBlock{s.blocks[id]}
		for i := 0; i < len(out) && len(out) < 20; i++ {
			for _, p := range out[i].Parents {
				if q := s.blocks[p]; q != nil && peer.disk.bodies[p] && !slices.Contains(out, q) {
					out = append(out, q)
				}
			}
		}
		s.send(peer, n, func() {
			for _, b := range slices.Backward(out) {
				n.receive(b)
			}
		})
	})
}

// snapshot takes the ledger of an honest peer at its last milestone, which
// stands for a certified one, and keeps the own unordered blocks (§7, §8).
func (n *simNode) snapshot() {
	s := n.sim
	peer := s.nodes[s.rng.IntN(len(s.nodes))]
	if peer == n || peer.evil || !peer.up || peer.resync || s.chaos && s.groups[peer.index] != s.groups[n.index] {
		return
	}
	if peer.disk.pos.Index < n.disk.pos.Index {
		return
	}
	old := n.disk
	d := peer.disk.clone()
	d.own, d.coins.sim = old.own, s
	d.prune(max(1, d.pos.Index) - 1)
	// What the peer has not ordered is not part of a snapshot.
	d.log = slices.DeleteFunc(d.log, func(id stardust.BlockID) bool {
		_, ok := d.ordered[id]
		if !ok {
			delete(d.bodies, id)
		}
		return !ok
	})
	for _, id := range old.log {
		if _, ok := d.ordered[id]; ok {
			continue
		}
		known := true
		for _, p := range s.blocks[id].Parents {
			_, ok := d.ordered[p]
			known = known && (ok || d.bodies[p] || p == stardust.GenesisID)
		}
		if known && !d.bodies[id] {
			d.bodies[id] = true
			d.log = append(d.log, id)
		}
	}
	n.disk, n.resync = d, false
	s.check.count.snapshots++
	s.check.snapshot(n)
	n.crash()
	n.boot()
}

// askAbout asks all others what §7 wants to know.
func (n *simNode) askAbout() {
	s := n.sim
	if n.evil && !n.twin {
		return
	}
	if n.issuer.Recovering() {
		target, epoch := n.issuer.Target(), n.state.pos.Epoch
		for _, to := range s.nodes {
			s.send(n, to, func() {
				if to.evil && s.odds(0.5) {
					return
				}
				if target != 0 {
					to.issuer.Assist(epoch, target)
					to.plan(0)
				}
				epoch, opened, ok := to.issuer.Answer()
				if to.evil {
					opened, ok = uint32(s.rng.IntN(50)), true
				}
				from, member := to.state.File().Index(to.public[:])
				if ok && member {
					s.send(to, n, func() { n.issuer.Heard(from, epoch, opened); n.plan(0) })
				}
			})
		}
	}
	if !n.issuer.Confirmed() {
		for _, to := range s.nodes {
			s.send(n, to, func() {
				round, _ := to.state.Highest(n.public)
				epoch := to.state.pos.Epoch
				if from, member := to.state.File().Index(to.public[:]); member {
					s.send(to, n, func() { n.issuer.Report(from, epoch, round); n.plan(0) })
				}
			})
		}
	}
}
