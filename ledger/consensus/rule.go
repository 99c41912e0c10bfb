package consensus

import "fmt"

// next returns the round and seen set that a vote of gateway g must claim over
// direct parents with these claims, all of the vote's epoch (§2). It is a
// function of the direct parents alone, so that pruned history is never needed.
func (e *epoch) next(g uint8, parents []Claim) (round uint32, seen uint64) {
	top, all := merged(parents)
	if top == 0 || e.isQuorum(all) {
		return top + 1, bit(g)
	}
	return top, all | bit(g)
}

// merged returns the highest round among the claims and who is seen in it.
func merged(claims []Claim) (top uint32, seen uint64) {
	for _, c := range claims {
		if c.Round > top {
			top, seen = c.Round, 0
		}
		if c.Round == top {
			seen |= c.Seen
		}
	}
	return top, seen
}

// merges returns what an honest vote of this round and seen set says of the
// votes that widened nothing; self is nil without a self parent.
func merges(round uint32, seen uint64, self *Claim) uint8 {
	switch {
	case self == nil || self.Round < round:
		return 0
	case self.Seen == seen:
		return self.Merges + 1
	}
	return self.Merges
}

// checkClaim returns nil or the rule of §2 that a vote breaks over parents with
// these claims (those of its own epoch) and self parent. The error wraps
// [ErrInvalid].
func (e *epoch) checkClaim(v *Vote, parents []Claim, self *Claim) error {
	if v.HasSelf && (self == nil || self.Epoch != v.Epoch || self.Gateway != v.Gateway) {
		return fmt.Errorf("%w: parent %d is no vote of the same gateway and epoch", ErrInvalid, v.SelfIndex)
	}
	round, seen := e.next(v.Gateway, parents)
	if v.Round != round || v.Seen != seen {
		return fmt.Errorf("%w: claims round %d and seen %#x, its parents give %d and %#x", ErrInvalid, v.Round, v.Seen, round, seen)
	}
	if m := merges(round, seen, self); v.Merges != m || m > MaxMerges {
		return fmt.Errorf("%w: claims %d merges, want %d of at most %d", ErrInvalid, v.Merges, m, MaxMerges)
	}
	return nil
}
