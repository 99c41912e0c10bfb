package peer

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// fetchPause is how long the members are left alone after none of them had a
// network file.
const fetchPause = 500 * time.Millisecond

// FetchNetwork asks the members of cfg.Network for the network file with this
// hash, such as that of epoch 0, until one of them hands it out. It is for a
// gateway that has no replica yet; cfg.Cursors is not used. Members that do not
// know this gateway, because its epoch has not begun there, do not answer. The
// error is that of ctx, or says that the connection is closed.
func FetchNetwork(ctx context.Context, cfg Config, hash [32]byte) (*network.File, error) {
	own := network.PublicKey(cfg.Key.Public().(ed25519.PublicKey))
	p := &Peers{
		prefix: network.SubjectPrefix(cfg.Network.GenesisHash()),
		signer: newSigner(cfg.Key, cfg.Network.GenesisHash()),
		conn:   cfg.Conn,
		log:    cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)),
	}
	p.roster.Store(newRoster(cfg.Network, own, &roster{}))
	p.asks.init(p.prefix + ".inbox." + own.SubjectID() + ".ask.")
	subs := subscriptions{conn: p.conn, done: ctx.Done()}
	defer subs.close()
	subs.call(p.asks.inbox+"*", answerMessages, answerBytes, p.asks.answer)
	if subs.err != nil {
		return nil, fmt.Errorf("listen to peers: %w", subs.err)
	}
	for {
		all := p.others()
		for _, i := range rand.Perm(len(all)) {
			f, err := p.networkFrom(ctx, all[i], hash)
			if err == nil {
				return f, nil
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			p.log.Debug("network file not handed out", "peer", all[i].Name, "err", err)
		}
		if !wait(ctx, fetchPause) {
			return nil, context.Cause(ctx)
		}
	}
}

// networkFrom asks a member for a network file. What it says is only believed if
// it has the hash.
func (p *Peers) networkFrom(ctx context.Context, m *member, hash [32]byte) (*network.File, error) {
	body, err := p.ask(ctx, m, kindNetwork, hash[:])
	if err != nil {
		return nil, err
	}
	if len(body) == 0 {
		return nil, errors.New("it does not have the file")
	}
	f, err := network.Parse(body)
	if err != nil {
		return nil, err
	}
	if f.Hash() != hash {
		return nil, fmt.Errorf("it is file %x, not %x", f.Hash(), hash)
	}
	return f, nil
}

// networkOf answers a request for a network file: its JSON, or nothing if this
// replica does not know it.
func (p *Peers) networkOf(body []byte) ([]byte, error) {
	if len(body) != 32 {
		return nil, fmt.Errorf("%w: hash of %d bytes", errBody, len(body))
	}
	f := p.replica.Network([32]byte(body))
	if f == nil {
		return nil, nil
	}
	return json.Marshal(f)
}
