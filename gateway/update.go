package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway/admin"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// An offer is a network file that somebody has joined.
type offer struct {
	file  *network.File
	block stardust.BlockID // in which it was attached last
	at    time.Time        // when; zero: it was not yet
	times int              // that it was attached
}

// again returns when the file is to be attached once more, if it is not in force
// by then.
func (o *offer) again() time.Time {
	if o == nil || o.times == 0 {
		return time.Time{}
	}
	return o.at.Add(min(updatePatience<<min(o.times-1, 10), updateLongest))
}

// Propose puts a network file before the members: it is attached as a block if
// it follows the one in force. What happens then the members decide.
func (e *epochs) Propose(ctx context.Context, f *network.File) (admin.Proposal, error) {
	inForce, used := e.inForce(), e.current()
	p := admin.Proposal{Epoch: f.Epoch, Hash: f.Hash()}
	switch {
	case f.Hash() == inForce.Hash():
		p.InForce = true
		return p, nil
	case used.Epoch > inForce.Epoch:
		return p, fmt.Errorf("%w: this gateway is at epoch %d on its way to epoch %d", admin.ErrBehind, inForce.Epoch, used.Epoch)
	}
	if err := f.Follows(inForce); err != nil {
		return p, err
	}
	e.mu.Lock()
	if u := e.next; u != nil && u.file.Hash() == p.Hash && u.times > 0 {
		p.Block = u.block
	}
	e.mu.Unlock()
	if p.Block != stardust.GenesisID {
		return p, nil
	}
	var err error
	if p.Block, err = e.attach(ctx, f); err != nil {
		return p, err
	}
	signal(e.news)
	return p, nil
}

// attach attaches a network file, one at a time, and takes it for the next one.
func (e *epochs) attach(ctx context.Context, f *network.File) (stardust.BlockID, error) {
	select {
	case e.attaching <- struct{}{}:
		defer func() { <-e.attaching }()
	default:
		return stardust.GenesisID, fmt.Errorf("%w: another network file is being attached", ledger.ErrBusy)
	}
	id, err := attachUpdate(ctx, f, e.ledger, e.prover)
	if err != nil {
		return id, err
	}
	e.mu.Lock()
	times := 1
	if e.next != nil && e.next.file.Hash() == f.Hash() {
		times += e.next.times
	}
	e.next = &offer{f, id, time.Now(), times}
	e.mu.Unlock()
	e.log.Info("network file of the next epoch attached; it is in force once it is confirmed", "epoch", f.Epoch, "block", id)
	return id, nil
}

// attachUpdate attaches a network file as a block (consensus.md §2). The error
// wraps [admin.ErrTooLarge] if no block can hold it.
func attachUpdate(ctx context.Context, f *network.File, l *ledger.Ledger, p prover) (stardust.BlockID, error) {
	text, err := json.Marshal(f)
	if err != nil {
		return stardust.GenesisID, err
	}
	b := &stardust.Block{
		Version: stardust.ProtocolVersion, Parents: l.Tips(),
		Payload: &stardust.TaggedData{Tag: []byte(consensus.TagUpdate), Data: text},
	}
	raw, err := b.AppendBinary(nil)
	if err != nil || len(raw) > stardust.MaxBlockSize {
		return stardust.GenesisID, fmt.Errorf("%w: it has %d bytes, and a block %d", admin.ErrTooLarge, len(text), stardust.MaxBlockSize)
	}
	b.Nonce, err = p.Prove(ctx, stardust.PoWDigest(raw), stardust.TargetZeros(len(raw), l.MinPoWScore()))
	if err != nil {
		return stardust.GenesisID, fmt.Errorf("proof of work of a network file: %w", err)
	}
	return l.Attach(ctx, b, nil)
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // one waits there already
	}
}

var _ admin.Updates = (*epochs)(nil)
