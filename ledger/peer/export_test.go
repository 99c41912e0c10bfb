package peer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A Forger makes frames as a member with this key can, honest or not.
type Forger struct{ signer }

func NewForger(key ed25519.PrivateKey, genesis [32]byte) Forger {
	return Forger{newSigner(key, genesis)}
}

// Kinds of frames.
const (
	Gossip   = kindGossip
	Frontier = kindFrontier
	Order    = kindOrder
	Blocks   = kindBlocks
	Stream   = kindStream
	Answer   = kindAnswer

	Signatures = kindSignatures
	Essences   = kindEssences
	Network    = kindNetwork
)

func (f Forger) Frame(k kind, to ed25519.PublicKey, context string, body []byte) []byte {
	var key network.PublicKey
	copy(key[:], to)
	return f.seal(k, key, []byte(context), body)
}

// Reply returns an answer to a request.
func (f Forger) Reply(request []byte, body []byte) []byte {
	r, err := parseFrame(request)
	if err != nil {
		return nil
	}
	return f.seal(kindAnswer, r.sender, r.signature(), append([]byte{answerOK}, body...))
}

// KindOf returns what a frame is.
func KindOf(b []byte) kind {
	f, err := parseFrame(b)
	if err != nil {
		return 0
	}
	return f.kind
}

func BlocksBody(raws ...[]byte) (b []byte) {
	for _, raw := range raws {
		b = appendBlock(b, raw)
	}
	return b
}

// Session is that of the forger's frames.
func (f Forger) Session() uint64 { return f.signer.session }

// SessionOf returns that of a frame.
func SessionOf(b []byte) uint64 {
	f, err := parseFrame(b)
	if err != nil {
		return 0
	}
	return f.session
}

// WordBody is a frontier of an empty store with a word, for who has the session.
func WordBody(w ledger.Word, session uint64, waiting bool) []byte {
	return frontier{all: true, waiting: waiting, hears: session, word: w}.append(nil)
}

// WordOf returns the word in the frame of a frontier, and the session that it
// is for.
func WordOf(b []byte) (w ledger.Word, session uint64, err error) {
	f, err := parseFrame(b)
	if err != nil {
		return w, 0, err
	}
	m, err := parseFrontier(f.body)
	return m.word, m.hears, err
}

// AsksForAWord reports whether the frame of a frontier wants an answer.
func AsksForAWord(b []byte) bool {
	f, err := parseFrame(b)
	if err != nil {
		return false
	}
	m, err := parseFrontier(f.body)
	return err == nil && m.waiting
}

// Agree puts a stand-in in the place of what the ledger knows of the agreement,
// before Run.
func (p *Peers) Agree(a agreement) { p.agreed = a }

func FrontierBody(store [8]byte, position uint64, tips ...stardust.BlockID) []byte {
	return frontier{store: store, position: position, all: true, tips: tips}.append(nil)
}

func PageBody(store [8]byte, last uint64, end bool, rest []byte) []byte {
	return page{store: store, last: place{at: last}, end: end, rest: rest}.append(nil)
}

// Beginning is the body of a request for what comes first.
func Beginning() []byte { return place{}.append(nil) }

// BodySize is that of what an answer answers.
func BodySize(b []byte) int {
	f, err := parseFrame(b)
	if err != nil {
		return -1
	}
	return len(f.body) - 1
}

// Span is the body of a request for signatures.
func Span(from, to uint32) []byte { return span{from, to}.append(nil) }

func IDs(ids ...stardust.BlockID) []byte { return appendIDs(nil, ids) }

var testKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func PageAfter(store [8]byte, after, last uint64, rest []byte) []byte {
	return page{store: store, after: after, last: place{at: last}, rest: rest}.append(nil)
}

// ListsBody is an answer with a part of the list of a milestone.
func ListsBody(index uint32, end bool, blocks ...ledger.Listed) []byte {
	return appendPart(nil, part{index, blocks, end})
}

func appendPart(b []byte, pt part) []byte {
	b = binary.LittleEndian.AppendUint32(b, pt.index)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(pt.blocks)))
	b = append(b, flag(pt.end))
	for i := range pt.blocks {
		b = appendListed(b, &pt.blocks[i])
	}
	return b
}

// ListsAgain reads an answer with lists and writes it again.
func ListsAgain(b []byte) (out []byte, ok bool) {
	parts, err := parseLists(b)
	for _, pt := range parts {
		out = appendPart(out, pt)
	}
	return out, err == nil
}

// ReadHistory reads b as what answers and requests of a state sync are.
func ReadHistory(b []byte) {
	_, _ = parseNetworks(b)
	_, _ = parseEssences(b)
	_, _ = parseStretch(b)
}

// Claims answers a request for the hash over milestones.
func (p *Peers) Claims(from, to uint32) ([]byte, error) { return p.claimsOf(stretch{from, 0, to}) }

// Claimed returns the hash over milestones that were handed out.
func Claimed(ms []ledger.Imported) []byte {
	all, _, err := claimsIn(ms)
	if err != nil || len(all) != 1 {
		panic(fmt.Sprint(len(all), " hashes: ", err))
	}
	return all[0].sum
}

// Bare reports whether others have to say the same of milestones.
func Bare(ms []ledger.Imported) bool {
	_, bare, err := claimsIn(ms)
	if err != nil {
		panic(err)
	}
	return bare
}

// TopOf returns the milestone that a replica asks of a member with a word.
func TopOf(own, w ledger.Word) uint64 { return topOf(own, w) }

// SyncSignatures asks a member for signatures as a state sync does.
func (p *Peers) SyncSignatures(ctx context.Context, name string, from, to uint32) (map[uint32][]consensus.Signature, error) {
	s := &stateSync{p: p, m: p.named(name), mute: map[*member]bool{}}
	return s.signatures(ctx, s.m, span{from, to})
}

// TakeOver does a state sync with a member in a turn of this length, and returns
// that of the next.
func (p *Peers) TakeOver(ctx context.Context, name string, turn time.Duration) (next time.Duration, err error) {
	p.progress = progress{turn: turn}
	err = p.takeOver(ctx, p.named(name))
	return p.progress.turn, err
}

func (p *Peers) named(name string) *member {
	for _, m := range p.others() {
		if m.Name == name {
			return m
		}
	}
	panic("no member " + name)
}

// Open takes a page of a list so many times, and returns how many bytes of
// bodies and how many blocks are kept of it.
func Open(page []ledger.Listed, times int, needed bool) (bodies, blocks int, err error) {
	var o opened
	for range times {
		if err = o.add(&part{index: 1, blocks: page}, needed); err != nil {
			break
		}
	}
	for _, l := range o.blocks {
		bodies += len(l.Raw)
	}
	return bodies, len(o.blocks), err
}

// ClaimsAgree reports whether a gateway says the same of milestones, and in how
// many hashes.
func (p *Peers) ClaimsAgree(ms []ledger.Imported) (same bool, hashes int, err error) {
	all, _, err := claimsIn(ms)
	if err != nil {
		return false, 0, err
	}
	for _, c := range all {
		sum, err := p.claimsOf(c.stretch)
		if err != nil || !bytes.Equal(sum, c.sum) {
			return false, len(all), err
		}
	}
	return true, len(all), nil
}

// Prove completes milestones of a member with certificates.
func (p *Peers) Prove(ctx context.Context, name string, files []*network.File, ms []ledger.Imported) error {
	s := &stateSync{p: p, m: p.named(name), files: files, mute: map[*member]bool{}}
	var all []*ledger.Imported
	for i := range ms {
		all = append(all, &ms[i])
	}
	return s.prove(ctx, all)
}

func PlaceOf(at uint64, id stardust.BlockID) []byte { return place{at, id}.append(nil) }
