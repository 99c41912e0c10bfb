package consensus

import (
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A Kind says what a block means to consensus (§2).
type Kind uint8

// The kinds of blocks.
const (
	KindData        Kind = iota // tagged data, or nothing
	KindTransaction             // moves value: has to wait as little as possible
	KindVote
	KindUpdate // a network file of a later epoch
)

// A Block is a block as consensus sees it: made by [Epochs.Decode], which has
// checked its signature.
type Block struct {
	ID      stardust.BlockID
	Parents []stardust.BlockID // in the block's order
	Kind    Kind
	Vote    Vote          // of KindVote
	Update  *network.File // of KindUpdate
	// Third marks a payload block of somebody who is no member. It is local
	// knowledge and slows the pace alone (§1).
	Third bool
}

// Ordered is what a replica keeps of a block after a milestone ordered it.
type Ordered struct {
	Milestone uint32 // the index
	Vote      bool
	Claim     Claim // of a vote
}

// A View answers for blocks that were ordered before.
type View interface {
	// Ordered returns what is kept of a block; found is false if no
	// milestone ordered it or if idHorizon has passed since. It knows the
	// blocks of every milestone that [State.Add] has returned. An error ends
	// the use of the State.
	Ordered(id stardust.BlockID) (o Ordered, found bool, err error)
}

// A Ledger holds what transactions move. What is applied becomes durable
// together with the milestone: after a crash before that, the same is applied
// again.
type Ledger interface {
	// Apply applies the transaction of a block in the order of the
	// milestone, and reports whether it was valid against the ledger; if not
	// it changes nothing.
	Apply(index, timestamp uint32, id stardust.BlockID) (included bool, err error)
	// Root returns the ledgerRoot of §5 after what was applied.
	Root() (root [32]byte, err error)
}

// Epochs are the network files from epoch 0 to the one in force, as far as the
// checks of a block alone need them. The value never changes: [State.Epochs]
// returns another one after an epoch has ended. Its methods may be called
// concurrently.
type Epochs struct {
	genesis [32]byte
	all     []*epoch
}

// File returns the network file in force.
func (e *Epochs) File() *network.File { return e.all[len(e.all)-1].file }

// Files returns all of them, from that of epoch 0 on.
func (e *Epochs) Files() []*network.File {
	files := make([]*network.File, len(e.all))
	for i, of := range e.all {
		files[i] = of.file
	}
	return files
}

// Network returns the file with this hash, or nil.
func (e *Epochs) Network(hash [32]byte) *network.File {
	for _, of := range e.all {
		if of.hash == hash {
			return of.file
		}
	}
	return nil
}

// Decode returns the block with what consensus needs of it. It checks all that
// does not depend on parents: the layout of a vote, its gateway, signature and
// nonce (§2). The error wraps [ErrInvalid] or [ErrFutureEpoch]. It costs one
// signature check for a vote; whoever limits the rate of votes does it before.
func (e *Epochs) Decode(id stardust.BlockID, b *stardust.Block) (Block, error) {
	return e.decode(id, b, true)
}

// Stored is Decode for a block that was decoded before it was stored: it does
// not check the signature again.
func (e *Epochs) Stored(id stardust.BlockID, b *stardust.Block) (Block, error) {
	return e.decode(id, b, false)
}

func (e *Epochs) decode(id stardust.BlockID, b *stardust.Block, verify bool) (Block, error) {
	out := Block{ID: id, Parents: b.Parents}
	if b.Payload != nil && b.Payload.Type() == stardust.PayloadTransaction {
		out.Kind = KindTransaction
	}
	data, ok := b.Payload.(*stardust.TaggedData)
	if !ok {
		return out, nil
	}
	switch string(data.Tag) {
	case TagVote:
		v, err := e.decodeVote(b, data.Data, verify)
		if err != nil {
			return Block{}, err
		}
		out.Kind, out.Vote = KindVote, v
	case TagUpdate:
		// What is no network file is plain data: it can never end an epoch.
		if f, err := network.Parse(data.Data); err == nil && f.Epoch > 0 {
			out.Kind, out.Update = KindUpdate, f
		}
	}
	return out, nil
}

func (e *Epochs) decodeVote(b *stardust.Block, data []byte, verify bool) (Vote, error) {
	v, err := ParseVote(data)
	if err != nil {
		return v, err
	}
	if int(v.Epoch) >= len(e.all) {
		return v, fmt.Errorf("%w: epoch %d, here it is %d", ErrFutureEpoch, v.Epoch, len(e.all)-1)
	}
	of := e.all[v.Epoch]
	switch {
	case int(v.Gateway) >= of.n:
		return v, fmt.Errorf("%w: gateway %d of %d", ErrInvalid, v.Gateway, of.n)
	case b.Nonce != 0:
		return v, fmt.Errorf("%w: nonce %d, want 0", ErrInvalid, b.Nonce)
	case v.HasSelf && int(v.SelfIndex) >= len(b.Parents):
		return v, fmt.Errorf("%w: self parent %d of %d", ErrInvalid, v.SelfIndex, len(b.Parents))
	case verify && !v.verify(of.file.Gateways[v.Gateway].PublicKey[:], e.genesis, b.Parents):
		return v, fmt.Errorf("%w: signature of gateway %d is wrong", ErrInvalid, v.Gateway)
	}
	return v, nil
}
