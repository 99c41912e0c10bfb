package consensus

import (
	"errors"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// ErrChain is wrapped by the errors about milestones that are not those below a
// certified one.
var ErrChain = errors.New("not the milestones below a certified one")

// chainStep is how many milestones lie between two ids that a [Chain] keeps.
const chainStep = 1024

// A Chain proves milestones by a certified one above them: each names the id of
// the one before it (§8, Joining). It is first led down from the top, and then
// checks the milestones that come again from below, of which it keeps next to
// nothing. It is used by one goroutine at a time.
type Chain struct {
	files  []*network.File
	top    uint32
	lowest Essence
	kept   map[uint32][32]byte // ids of the top and of every chainStep-th
	next   uint32              // to be checked
	before [32]byte            // id of the one below that
}

// NewChain returns the chain below a milestone whose signatures are those of a
// quorum. files are those of the epochs from 0 on, which follow each other. The
// error wraps [ErrChain] or [ErrBadSignature].
func NewChain(files []*network.File, top *Essence, signatures []Signature) (*Chain, error) {
	c := &Chain{files: files, top: top.Index, lowest: *top, kept: map[uint32][32]byte{top.Index: top.ID()}}
	if err := c.inEpoch(top); err != nil {
		return nil, err
	}
	if err := VerifyCertificate(files[top.Epoch], top.ID(), signatures); err != nil {
		return nil, fmt.Errorf("certificate of milestone %d: %w", top.Index, err)
	}
	return c, nil
}

func (c *Chain) inEpoch(e *Essence) error {
	if e.Index == 0 || len(e.Parents) != 1 || int(e.Epoch) >= len(c.files) || e.NetworkHash != c.files[e.Epoch].Hash() {
		return fmt.Errorf("%w: milestone %d of epoch %d names another network file", ErrChain, e.Index, e.Epoch)
	}
	return nil
}

// Top returns the index of the certified milestone.
func (c *Chain) Top() uint32 { return c.top }

// Lowest returns the index down to which the chain was led, and the id that is
// named for the milestone before.
func (c *Chain) Lowest() (index uint32, previous [32]byte) { return c.lowest.Index, c.lowest.Previous }

// Down leads the chain to the milestone before the lowest. The error wraps
// [ErrChain].
func (c *Chain) Down(e *Essence) error {
	id := e.ID()
	if e.Index+1 != c.lowest.Index || id != c.lowest.Previous || e.Epoch > c.lowest.Epoch || e.Timestamp > c.lowest.Timestamp {
		return fmt.Errorf("%w: %d does not come before %d", ErrChain, e.Index, c.lowest.Index)
	}
	if err := c.inEpoch(e); err != nil {
		return err
	}
	if e.Index == 1 && e.Previous != c.files[0].GenesisHash() {
		return fmt.Errorf("%w: the first is of another network", ErrChain)
	}
	if e.Index%chainStep == 0 {
		c.kept[e.Index] = id
	}
	c.lowest = *e
	return nil
}

// Up checks ascending milestones, which begin with the lowest and then with the
// one after the last checked, and end with the top or a multiple of 1024. The
// error wraps [ErrChain].
func (c *Chain) Up(es []Essence) error {
	at, before := c.next, c.before
	if at == 0 {
		at, before = c.Lowest()
	}
	for i := range es {
		e := &es[i]
		if e.Index != at || e.Previous != before {
			return fmt.Errorf("%w: %d instead of %d", ErrChain, e.Index, at)
		}
		at, before = at+1, e.ID()
	}
	if len(es) == 0 || before != c.kept[at-1] {
		return fmt.Errorf("%w: those up to %d", ErrChain, at-1)
	}
	c.next, c.before = at, before
	return nil
}

// Span returns the indexes of the first and the last milestone that Up takes
// next; both are 0 after the top.
func (c *Chain) Span() (from, to uint32) {
	from = c.next
	if from == 0 {
		from = c.lowest.Index
	}
	if from > c.top {
		return 0, 0
	}
	return from, min(c.top, (from+chainStep-1)/chainStep*chainStep)
}
