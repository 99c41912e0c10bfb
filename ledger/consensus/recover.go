package consensus

// slack is how far above the highest round known a peer's wish may be.
const slack = 4

// confirmed reports whether enough others have said, since this start, that
// they know of no opener of ours above our own record (§7, every start).
func (i *Issuer) confirmed(g uint8) bool {
	e := i.state.cur
	return e.n == 1 || e.weight(i.reported)+e.weights[g] >= e.quorum
}

// Report takes from a peer the highest round that the peer knows this gateway
// to have opened in the epoch ([State.Highest]). One above the own record counts
// for nothing: fetch that opener, and adding it enters recovering mode.
func (i *Issuer) Report(from int, epoch, round uint32) {
	g, ok := i.enter()
	if !ok || from == int(g) || from < 0 || from >= i.state.cur.n || epoch != i.d.Epoch || round > i.d.Opened {
		return
	}
	i.reported |= bit(uint8(from))
}

// Confirmed reports whether enough peers have reported since the start.
func (i *Issuer) Confirmed() bool {
	_, ok := i.enter()
	return ok && i.checked
}

// Answer returns what this gateway answers a recovering peer: its epoch and the
// highest round that it opened in it. ok is false if it must not answer because
// it is recovering itself or no member.
func (i *Issuer) Answer() (epoch, opened uint32, ok bool) {
	_, ok = i.enter()
	return i.d.Epoch, i.d.Opened, ok && !i.d.Recovering
}

// Recovering reports whether the gateway has to find a round that it cannot
// have opened. It then asks the others for their answers, again and again.
func (i *Issuer) Recovering() bool {
	_, ok := i.enter()
	return ok && i.d.Recovering
}

// Heard takes a peer's answer (§7 b). Those of other epochs do not count.
func (i *Issuer) Heard(from int, epoch, opened uint32) {
	g, ok := i.enter()
	if !ok || !i.d.Recovering || from == int(g) || from < 0 || from >= i.state.cur.n || epoch != i.d.Epoch {
		return
	}
	i.answers[uint8(from)] = max(opened, i.answers[uint8(from)])
}

// Target returns the round to reach, to be told to the others so that they
// assist (§7 c); 0 while too few have answered. Answers above what the own view
// of the DAG allows do not count yet.
func (i *Issuer) Target() uint32 {
	if _, ok := i.enter(); !ok || !i.d.Recovering || i.target != 0 {
		return i.target
	}
	var from uint64
	var most uint32
	for g, opened := range i.answers {
		if opened <= i.state.maxRound+1 {
			from |= bit(g)
			most = max(most, opened)
		}
	}
	if i.state.cur.isQuorum(from) {
		i.target = most + 2
	}
	return i.target
}

// Assist makes the gateway open rounds up to a recovering peer's target even
// if nothing waits. Targets far above the rounds known are ignored.
func (i *Issuer) Assist(epoch, target uint32) {
	if _, ok := i.enter(); ok && epoch == i.d.Epoch && target <= i.state.maxRound+slack {
		i.assist = max(i.assist, target)
	}
}

// tryRecover opens a round from the target on, without self parent (§7 d).
func (i *Issuer) tryRecover(g uint8) Step {
	target := i.Target()
	if target == 0 {
		return Step{}
	}
	c := i.state.choose(g, nil)
	if c.round < target || c.round <= i.d.Opened {
		return Step{}
	}
	return Step{Draft: i.draft(g, c)}
}
