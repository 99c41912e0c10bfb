package consensus

import "slices"

// evilTry is the Byzantine member: it follows the DAG with the shipped code and
// votes as it likes.
func (n *simNode) evilTry() {
	s := n.sim
	if s.plan.silent && !s.chaos {
		return
	}
	pause := int64(40)
	if !s.chaos {
		pause = 400
	}
	n.plan(pause + s.rng.Int64N(3*pause))
	at, ok := n.state.File().Index(n.public[:])
	if !ok || !n.state.Waiting() {
		return
	}
	g := uint8(at)
	head := n.state.heads[g]
	switch {
	case s.plan.flood && s.chaos:
		n.floodTry(g)
		return
	case s.plan.cunning:
		n.cunningTry(g, head)
		return
	}
	if c := n.state.choose(g, head); c.round > n.opened && n.state.cur.leader(c.round) == int(g) && s.odds(0.8) {
		n.evilPropose(c)
		return
	}
	switch p := s.rng.Float64(); {
	case p < 0.35: // as honest ones do
		n.evilIssue(n.state.choose(g, head), nil, n.everybody())
	case p < 0.60: // two votes of one round, each for some
		some, rest := n.halves()
		first := n.state.choose(g, head)
		second := n.anyChoice(g, head, s.odds(0.5))
		if s.odds(0.3) {
			second = n.state.choose(g, head)
		}
		if first.round != second.round && s.odds(0.7) {
			return
		}
		n.evilIssue(first, nil, some)
		n.evilIssue(second, nil, rest)
	case p < 0.75: // stale parents, no proposal, no self parent
		n.evilIssue(n.anyChoice(g, head, s.odds(0.6)), nil, n.everybody())
	case p < 0.85: // claims that are not true
		n.evilIssue(n.state.choose(g, head), func(v *Vote) {
			if s.odds(0.5) {
				v.Round += 1 + uint32(s.rng.IntN(3))
			} else {
				v.Seen ^= 1 << s.rng.IntN(len(n.state.cur.weights))
			}
		}, n.everybody())
	default: // known to one, or late
		some, _ := n.halves()
		if s.odds(0.5) {
			some = some[:min(1, len(some))]
		}
		n.evilIssue(n.state.choose(g, head), nil, some)
	}
}

// cunningTry votes last in every round, so that it sees whom the others support.
// The first slot of its own it gives two proposals, when all the others wait
// for one: each to one gateway.
func (n *simNode) cunningTry(g uint8, head *node) {
	s, st := n.sim, n.state
	c := st.choose(g, head)
	if c.round <= n.opened {
		return
	}
	if late := n.lateChoice(g, head); late != nil && c.round > n.opened+1 {
		n.evilIssue(late, nil, n.everybody())
		return
	}
	if st.faulty&bit(g) != 0 && s.odds(0.02) {
		n.evilPropose(c)
		return
	}
	r := st.rounds[c.round]
	if r == nil || st.cur.weight(r.opened)+st.cur.weights[g] < st.cur.quorum {
		return
	}
	if st.cur.leader(c.round) != int(g) {
		n.evilIssue(c, nil, n.everybody())
		return
	}
	if st.cur.weight(r.opened)+st.cur.weights[g] < st.cur.total && s.odds(0.9) {
		return // all the others are to wait for it
	}
	// Without the others' votes of the round, which would not wait for it.
	before := st.rounds[r.openers[0].claim.Round-1]
	if c = st.choose(g, nil); head != nil && before != nil {
		c = &choice{self: head}
		c.add(head, st.pos.NextSlot)
		for _, o := range before.openers {
			if o != head && !st.excluded(o) && len(c.parents) < 8 {
				c.add(o, st.pos.NextSlot)
			}
		}
		c.round, c.seen = st.cur.next(g, c.claims)
	}
	epoch := st.pos.Epoch
	n.opened = c.round
	told := 0
	for _, to := range s.nodes {
		switch _, member := st.cur.file.Index(to.public[:]); {
		case to.public == n.public || !member || st.pos.Epoch != epoch:
		case told == 2: // learns of both at once, from those who were told
			to.held = s.now + 60
		default:
			told++
			b := n.sign(n.issuer.draft(g, c), uint64(told))
			n.receive(b)
			s.after(1, func() {
				if to.up {
					to.receive(b)
				}
			})
		}
	}
}

// lateChoice takes the round after its last opener as well, when others are
// beyond that: with as many of their openers as leave it in that round.
func (n *simNode) lateChoice(g uint8, head *node) *choice {
	st := n.state
	r := st.rounds[n.opened+1]
	if head == nil || r == nil || head.claim.Round > n.opened {
		return nil
	}
	c := &choice{self: head}
	c.add(head, st.pos.NextSlot)
	for _, o := range r.openers {
		if _, seen := merged(append(slices.Clone(c.claims), o.claim)); o.claim.Gateway != g && len(c.parents) < 8 && !st.cur.isQuorum(seen) {
			c.add(o, st.pos.NextSlot)
		}
	}
	if c.round, c.seen = st.cur.next(g, c.claims); c.round != n.opened+1 {
		return nil
	}
	return c
}

// evilPropose makes two proposals of one slot, each for half of the others.
func (n *simNode) evilPropose(c *choice) {
	at, _ := n.state.File().Index(n.public[:])
	n.opened = c.round
	epoch := n.state.pos.Epoch
	halves := [2][]*simNode{}
	halves[0], halves[1] = n.halves()
	for i, to := range halves {
		if n.state.pos.Epoch != epoch {
			return
		}
		b := n.sign(n.issuer.draft(uint8(at), c), uint64(i+1))
		n.receive(b)
		for _, t := range to {
			n.sim.send(n, t, func() { t.gossip(b) })
		}
	}
}

func (n *simNode) everybody() []*simNode { return n.sim.nodes }

func (n *simNode) halves() (a, b []*simNode) {
	for _, to := range n.sim.nodes {
		if n.sim.odds(0.5) {
			a = append(a, to)
		} else {
			b = append(b, to)
		}
	}
	return a, b
}

// anyChoice takes random votes of the last rounds as parents; avoiding leaves
// out whoever knows the proposal of the last round.
func (n *simNode) anyChoice(g uint8, head *node, avoid bool) *choice {
	s, st := n.sim, n.state
	var from []*node
	for r := st.maxRound; r > 0 && r+3 > st.maxRound; r-- {
		if st.rounds[r] != nil {
			from = append(from, st.rounds[r].openers...)
		}
	}
	for _, h := range st.heads {
		if h != nil && !slices.Contains(from, h) {
			from = append(from, h)
		}
	}
	if avoid {
		slot := st.maxRound - uint32(s.rng.IntN(2))
		from = slices.DeleteFunc(from, func(v *node) bool {
			_, k := onlyProposal(v.sup, slot)
			return k > 0 && v != head
		})
	}
	from = slices.DeleteFunc(from, func(v *node) bool { return !v.vote })
	s.rng.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
	c := &choice{}
	if head != nil && head.vote && s.odds(0.6) {
		c.self = head
		c.add(head, st.pos.NextSlot)
	}
	for _, v := range from {
		if len(c.parents) < 7 && !c.has(v) {
			c.add(v, st.pos.NextSlot)
		}
	}
	if len(c.parents) == 0 {
		return st.choose(g, nil)
	}
	c.round, c.seen = st.cur.next(g, c.claims)
	return c
}

func (n *simNode) evilIssue(c *choice, lie func(*Vote), to []*simNode) {
	s := n.sim
	at, ok := n.state.File().Index(n.public[:])
	if !ok || len(c.claims) > 0 && c.claims[0].Epoch != n.state.pos.Epoch {
		return // the vote before has ended the epoch
	}
	if c.round <= n.opened && s.odds(0.8) && lie == nil && c.round < n.state.maxRound {
		return
	}
	n.opened = max(n.opened, c.round)
	d := n.issuer.draft(uint8(at), c)
	if d.Vote.Merges > MaxMerges {
		return
	}
	if lie != nil {
		lie(&d.Vote)
	}
	b := n.sign(d, uint64(s.rng.Int64N(1<<40))<<s.rng.IntN(3))
	delay := int64(0)
	if s.odds(0.2) {
		delay = s.rng.Int64N(3000)
	}
	n.receive(b)
	s.after(delay, func() {
		for _, t := range to {
			s.send(n, t, func() { t.gossip(b) })
		}
	})
}
