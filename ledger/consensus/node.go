package consensus

import (
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A node is a solid block that no milestone has ordered, or a recent vote
// that one has (§4).
type node struct {
	id     stardust.BlockID
	kind   Kind
	third  bool
	update *network.File
	up     []*node // parents that had nodes, in the block's order
	ms     uint32  // the milestone that ordered it, or 0
	base   uint32  // the oldest milestone that ordered a parent without a node
	reach  uint32  // at most the oldest milestone that the unordered cone refers to
	at     uint64  // counts what was added
	refs   int     // nodes that have it among up
	isTip  bool
	// outcast: an equivocator's vote of an epoch that has ended without it.
	outcast bool
	suspect bool // is in the list of what may have to be forgotten

	appr     uint64 // gateways with a vote of this epoch above it
	approved bool

	// Of a vote of the epoch in force; an older one is like data.
	vote   bool
	opener bool
	claim  Claim
	timeMs uint64
	child  *node     // the first vote with this one as self parent
	sup    []support // of slots >= nextSlot
	certs  uint64    // of a proposal: gateways whose opener of R+2 certifies it

	// Of an opener.
	told      bool  // what it says of the two slots before its round is known:
	ballot    *node // what it votes on the slot before its round; nil: none
	certifies bool  // some proposal of the slot before that
}

// A support says which gateways are known, in a vote's consensus cone, to
// support a proposal (§3). A vote with the proposal in its cone has one, be it
// of nobody.
type support struct {
	slot     uint32
	proposal *node
	by       uint64
}

// mergeSup adds the supports of from to those of into, leaving out slots below
// least.
func mergeSup(into, from []support, least uint32) []support {
next:
	for _, f := range from {
		if f.slot < least {
			continue
		}
		for i := range into {
			if into[i].proposal == f.proposal {
				into[i].by |= f.by
				continue next
			}
		}
		into = append(into, f)
	}
	return into
}

// onlyProposal returns the proposal of a slot if sup has exactly one, and
// how many there are.
func onlyProposal(sup []support, slot uint32) (only *node, count int) {
	for _, e := range sup {
		if e.slot == slot {
			only = e.proposal
			count++
		}
	}
	if count != 1 {
		return nil, count
	}
	return only, 1
}

// supporters returns who supports a proposal.
func supporters(sup []support, proposal *node) uint64 {
	for _, e := range sup {
		if e.proposal == proposal {
			return e.by
		}
	}
	return 0
}

// A round holds what is known of one round R and of the slot of that number.
type round struct {
	props   []*node   // openers of R by leader(R)
	ballots []ballot  // openers of R+1: what each votes on slot R
	openers []*node   // of R, the first of each gateway
	opened  uint64    // gateways with an opener of R
	first   time.Time // when the first vote of R was added
}

// A ballot is the vote of one opener of round R+1 on slot R.
type ballot struct {
	gateway  uint8
	proposal *node // nil: none
	voter    *node
}
