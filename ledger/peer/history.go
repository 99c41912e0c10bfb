package peer

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// maxEssences is how many milestones one answer holds at most.
const maxEssences = 1024

// history answers a request about milestones that whoever asks cannot derive.
func (p *Peers) history(f frame) ([]byte, error) {
	switch f.kind {
	case kindNetworks:
		if len(f.body) != 4 {
			return nil, fmt.Errorf("%w: epoch in %d bytes", errBody, len(f.body))
		}
		return p.networksFrom(binary.LittleEndian.Uint32(f.body))
	case kindEssences:
		asked, err := parseSpan(f.body)
		if err != nil {
			return nil, err
		}
		return p.essencesOf(asked)
	case kindClaims:
		asked, err := parseStretch(f.body)
		if err != nil {
			return nil, err
		}
		return p.claimsOf(asked)
	}
	asked, err := parseStretch(f.body)
	if err != nil {
		return nil, err
	}
	return p.listsOf(asked)
}

// networksFrom returns the network files from an epoch on: of each its length u32
// and its JSON.
func (p *Peers) networksFrom(epoch uint32) (body []byte, err error) {
	files, err := p.replica.StoredNetworks(epoch)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := json.Marshal(f)
		if err != nil {
			return nil, err
		}
		if len(body)+4+len(text) > maxBytes {
			break // the rest is asked for again
		}
		body = append(binary.LittleEndian.AppendUint32(body, uint32(len(text))), text...)
	}
	return body, nil
}

// parseNetworks reads network files, of epochs one after the other, that fill b.
func parseNetworks(b []byte) (files []*network.File, err error) {
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, fmt.Errorf("%w: %d bytes after %d network files", errBody, len(b), len(files))
		}
		n := binary.LittleEndian.Uint32(b)
		if b = b[4:]; uint64(n) > uint64(len(b)) {
			return nil, fmt.Errorf("%w: network file %d has %d bytes", errBody, len(files), n)
		}
		f, err := network.Parse(b[:n])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBody, err)
		}
		if k := len(files); k > 0 && f.Epoch != files[k-1].Epoch+1 {
			return nil, fmt.Errorf("%w: network files of epochs %d and %d", errBody, files[k-1].Epoch, f.Epoch)
		}
		files, b = append(files, f), b[n:]
	}
	return files, nil
}

// essencesOf returns the milestones of a span as far as they are kept without a
// gap, the last first.
func (p *Peers) essencesOf(asked span) (body []byte, err error) {
	least := max(asked.from, p.replica.Oldest()+1)
	for index, n := asked.to, 0; index >= least && n < maxEssences; index, n = index-1, n+1 {
		m, err := p.replica.Milestone(index)
		if errors.Is(err, ledger.ErrNotFound) {
			break
		} else if err != nil {
			return nil, err
		}
		body = m.AppendBinary(body)
	}
	return body, nil
}

// parseEssences reads milestones, the last first, that fill b.
func parseEssences(b []byte) (es []consensus.Essence, err error) {
	for len(b) > 0 {
		if len(es) == maxEssences {
			return nil, fmt.Errorf("%w: more than %d milestones", errBody, maxEssences)
		}
		e, rest, err := consensus.ParseEssence(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errBody, err)
		}
		es, b = append(es, e), rest
	}
	return es, nil
}

// A stretch is the body of a request for lists: from u32 | skip u32 | to u32, the
// milestone to begin with, how many of its blocks are known, and the last
// milestone.
type stretch struct{ from, skip, to uint32 }

func (m stretch) append(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, m.from), m.skip), m.to)
}

func parseStretch(b []byte) (m stretch, err error) {
	if len(b) != 12 {
		return m, fmt.Errorf("%w: stretch of %d bytes", errBody, len(b))
	}
	le := binary.LittleEndian
	m = stretch{le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:])}
	if m.from == 0 || m.to < m.from || m.skip > maxListed {
		return m, fmt.Errorf("%w: stretch %+v", errBody, m)
	}
	return m, nil
}

// maxListed is how many blocks of one milestone a state sync takes.
const maxListed = 1 << 20

// What stands in an answer with lists: parts, each of one milestone:
//
//	index u32 | blocks u32 | end u8 (1: the list ends here) | blocks
//
// and of each block its id 32 | flags u8 (inclusion, 4 vote, 8 body), and then its
// body, length u16 and bytes, or, of a vote without one, its claim: epoch u32 |
// gateway u8 | round u32 | seen u64 | merges u8.
const (
	partHead  = 4 + 4 + 1
	claimSize = 4 + 1 + 4 + 8 + 1

	listedVote = 1 << 2
	listedBody = 1 << 3
)

// A part is a part of the list of a milestone.
type part struct {
	index  uint32
	blocks []ledger.Listed
	end    bool
}

func appendListed(b []byte, l *ledger.Listed) []byte {
	b = append(b, l.ID[:]...)
	b = append(b, byte(l.Inclusion)|flag(l.Vote)<<2|flag(l.Raw != nil)<<3)
	switch {
	case l.Raw != nil:
		return appendBlock(b, l.Raw)
	case !l.Vote:
		return b
	}
	b = binary.LittleEndian.AppendUint32(b, l.Claim.Epoch)
	b = append(b, l.Claim.Gateway)
	b = binary.LittleEndian.AppendUint32(b, l.Claim.Round)
	b = binary.LittleEndian.AppendUint64(b, l.Claim.Seen)
	return append(b, l.Claim.Merges)
}

func cutListed(b []byte) (l ledger.Listed, rest []byte, err error) {
	if len(b) < idSize+1 {
		return l, nil, fmt.Errorf("%w: list ends in %d bytes", errBody, len(b))
	}
	flags := b[idSize]
	copy(l.ID[:], b)
	b = b[idSize+1:]
	l.Inclusion, l.Vote = consensus.Inclusion(flags&3), flags&listedVote != 0
	bare := l.Vote && flags&listedBody == 0
	if flags >= 2*listedBody || l.Inclusion > consensus.Conflicting || bare && len(b) < claimSize {
		return l, nil, fmt.Errorf("%w: block of a list with flags %#x", errBody, flags)
	}
	if flags&listedBody != 0 {
		if len(b) < 2 || len(b)-2 < int(binary.LittleEndian.Uint16(b)) || binary.LittleEndian.Uint16(b) == 0 {
			return l, nil, fmt.Errorf("%w: body of a block of a list", errBody)
		}
		n := int(binary.LittleEndian.Uint16(b))
		l.Raw, b = b[2:][:n:n], b[2+n:]
	}
	if bare {
		le := binary.LittleEndian
		l.Claim = consensus.Claim{Epoch: le.Uint32(b), Gateway: b[4], Round: le.Uint32(b[5:]), Seen: le.Uint64(b[9:]), Merges: b[17]}
		b = b[claimSize:]
	}
	return l, b, nil
}

// listsOf returns what the milestones of a stretch order, as much as fits and as
// far as it is kept.
func (p *Peers) listsOf(asked stretch) (body []byte, err error) {
	for index, skip := asked.from, int(asked.skip); index <= asked.to && len(body) < maxBytes; index, skip = index+1, 0 {
		if m, err := p.replica.Milestone(index); errors.Is(err, ledger.ErrNotFound) || err == nil && m.Index != index {
			break
		} else if err != nil {
			return nil, err
		}
		at, n, end := len(body), uint32(0), true
		body = append(body, make([]byte, partHead)...)
		err := p.replica.Listed(index, skip, func(l ledger.Listed) bool {
			if end = len(body) < maxBytes; !end {
				return false
			}
			body, n = appendListed(body, &l), n+1
			return true
		})
		if errors.Is(err, ledger.ErrNotFound) {
			return body[:at], nil
		} else if err != nil {
			return nil, err
		}
		binary.LittleEndian.PutUint32(body[at:], index)
		binary.LittleEndian.PutUint32(body[at+4:], n)
		body[at+8] = flag(end)
	}
	return body, nil
}

// parseLists reads parts of lists that fill b.
func parseLists(b []byte) (parts []part, err error) {
	for len(b) > 0 {
		if len(b) < partHead || b[8] > 1 {
			return nil, fmt.Errorf("%w: part %d of lists", errBody, len(parts))
		}
		pt := part{index: binary.LittleEndian.Uint32(b), end: b[8] == 1}
		n := binary.LittleEndian.Uint32(b[4:])
		b = b[partHead:]
		if uint64(n)*(uint64(idSize)+1) > uint64(len(b)) {
			return nil, fmt.Errorf("%w: %d blocks in a list of %d bytes", errBody, n, len(b))
		}
		pt.blocks = make([]ledger.Listed, n)
		for i := range pt.blocks {
			if pt.blocks[i], b, err = cutListed(b); err != nil {
				return nil, err
			}
		}
		parts = append(parts, pt)
	}
	return parts, nil
}
