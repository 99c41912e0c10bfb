package peer

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// serve takes frontiers and answers requests, one at a time, until ctx ends.
func (p *Peers) serve(ctx context.Context, requests <-chan *nats.Msg) error {
	for {
		select {
		case msg := <-requests:
			if err := p.answer(msg); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// answer deals with one message to this gateway. The error is the replica's.
func (p *Peers) answer(msg *nats.Msg) error {
	// An answer goes to an inbox of this network: nobody can make the gateway
	// send it where it would be taken for something else.
	frontier := kindOf(msg.Data) == kindFrontier
	if !frontier && (!kindOf(msg.Data).request() || !strings.HasPrefix(msg.Reply, p.prefix+".inbox.")) {
		p.counted.strange.Add(1) // perhaps another's frame, sent here by somebody else
		return nil
	}
	m, f, ok := p.open(msg.Data, p.signer.public, []byte(msg.Reply))
	if !ok {
		return nil
	}
	if frontier {
		return p.learn(m, f)
	}
	began := time.Now()
	if !m.mayAsk(began) {
		p.answerTo(m.PublicKey, f, msg.Reply, answerBusy, nil)
		return nil
	}
	body, err := p.look(f)
	if errors.Is(err, errBody) {
		p.malformed(m, err)
		return nil
	} else if err != nil {
		return err
	}
	p.answerTo(m.PublicKey, f, msg.Reply, answerOK, body)
	now := time.Now()
	m.served(len(body), now.Sub(began), now)
	return nil
}

// look returns the answer to a request. The error wraps errBody, or is the
// replica's.
func (p *Peers) look(f frame) ([]byte, error) {
	switch f.kind {
	case kindBlocks:
		ids, err := parseAsked(f.body)
		if err != nil {
			return nil, err
		}
		return p.blocksOf(ids)
	case kindSignatures:
		asked, err := parseSpan(f.body)
		if err != nil {
			return nil, err
		}
		return p.signaturesOf(asked)
	case kindNetwork:
		return p.networkOf(f.body)
	case kindNetworks, kindEssences, kindLists, kindClaims:
		return p.history(f)
	}
	from, err := parsePlace(f.body)
	if err != nil {
		return nil, err
	}
	if from, err = p.known(from); err != nil {
		return nil, err
	}
	pg := page{store: p.replica.StoreID(), after: from.at, last: from, end: true}
	if f.kind == kindOrder {
		err = p.idsAfter(&pg)
	} else {
		err = p.blocksAfter(&pg)
	}
	return pg.append(nil), err
}

// known returns the place if its block stands there, or stood there and was
// deleted, or else the beginning. No place is given twice.
func (p *Peers) known(from place) (place, error) {
	if from.at == 0 || from.at > p.replica.Position() {
		return place{}, nil
	}
	id, err := p.replica.At(from.at) // the body may be gone
	switch {
	case errors.Is(err, ledger.ErrNotFound), err == nil && id == from.id:
		return from, nil
	case err != nil:
		return place{}, err
	}
	return place{}, nil
}

// blocksOf returns as many of the blocks as one frame takes, in their order.
// Whoever misses some asks again; the first one that is known always fits.
func (p *Peers) blocksOf(ids []stardust.BlockID) (body []byte, err error) {
	for _, id := range ids {
		raw, err := p.replica.Block(id)
		switch {
		case errors.Is(err, ledger.ErrNotFound):
			continue
		case err != nil:
			return nil, err
		case len(body) > 0 && len(body)+2+len(raw) > maxBytes:
			return body, nil
		}
		body = appendBlock(body, raw)
	}
	return body, nil
}

func (p *Peers) idsAfter(pg *page) error {
	return p.replica.Order(pg.after, func(position uint64, id stardust.BlockID) bool {
		if pg.end = len(pg.rest)/idSize < maxIDs; !pg.end {
			return false
		}
		pg.rest, pg.last = append(pg.rest, id[:]...), place{position, id}
		return true
	})
}

func (p *Peers) blocksAfter(pg *page) error {
	n := 0
	return p.replica.Blocks(pg.after, func(position uint64, id stardust.BlockID, raw []byte, _ time.Time) bool {
		if pg.end = n < maxBlocks && (n == 0 || len(pg.rest)+2+len(raw) <= maxBytes); !pg.end {
			return false
		}
		pg.rest, pg.last = appendBlock(pg.rest, raw), place{position, id}
		n++
		return true
	})
}
