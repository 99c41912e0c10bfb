package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// Signatures of milestones (consensus.md §5) go to everybody in messages that
// are no frames, since they prove themselves: one signature after the other.
const (
	signatureSize  = 1 + 4 + 32 + 32 + 64
	messageMost    = 64   // signatures in one message
	certifyMost    = 512  // signatures that the replica gets at once
	maxSignatures  = 2048 // in an answer
	maxUnpublished = 1024 // own ones that wait to be sent

	// What is taken of one gateway, whoever sends it, before it is verified: a
	// gateway signs a milestone in a round at most, but many at once after it
	// was away. What is more is asked for.
	signaturesPerInterval = 2
	signaturesLeast       = 10.0 // per second
	signaturesBurst       = 500
)

func signaturesRate(file *network.File) float64 {
	return max(signaturesLeast, signaturesPerInterval/time.Duration(file.RoundInterval).Seconds())
}

// Certified publishes a signature that this gateway gave to a milestone. It does
// not block; when too many wait, the signature is left to be asked for.
func (p *Peers) Certified(s consensus.Signature) {
	if len(p.others()) == 0 {
		return
	}
	select {
	case p.unpublished <- s:
	default:
		p.counted.unsent.Add(1)
	}
}

// publish sends own signatures until ctx ends.
func (p *Peers) publish(ctx context.Context) error {
	for {
		var message []byte
		select {
		case s := <-p.unpublished:
			message = s.AppendBinary(message)
		case <-ctx.Done():
			return ctx.Err()
		}
		for more := true; more && len(message) < messageMost*signatureSize; {
			select {
			case s := <-p.unpublished:
				message = s.AppendBinary(message)
			default:
				more = false
			}
		}
		if err := p.conn.Publish(p.prefix+".cert", message); err != nil {
			p.log.Debug("signatures not sent", "err", err)
		}
	}
}

// collect passes on published signatures until ctx ends.
func (p *Peers) collect(ctx context.Context, heard <-chan *nats.Msg) error {
	for {
		var in []consensus.Signature
		select {
		case msg := <-heard:
			in = p.published(msg.Data, in)
		case <-ctx.Done():
			return ctx.Err()
		}
		for more := true; more && len(in) < certifyMost; { // what waits goes together
			select {
			case msg := <-heard:
				in = p.published(msg.Data, in)
			default:
				more = false
			}
		}
		if err := p.certify(in); err != nil {
			return err
		}
	}
}

// published appends the signatures of a message that are worth verifying.
func (p *Peers) published(message []byte, in []consensus.Signature) []consensus.Signature {
	all, err := parseSignatures(message, messageMost)
	if err != nil || len(all) == 0 {
		p.counted.strange.Add(1)
		return in
	}
	r, now := p.roster.Load(), time.Now()
	for _, s := range all {
		switch m := r.byKey[s.PublicKey]; {
		case s.PublicKey == p.signer.public: // the own ones come back
		case m == nil:
			p.counted.strange.Add(1)
		case m.takesSignature(r.signatures, now):
			in = append(in, s)
		}
	}
	return in
}

// takesSignature reports whether a signature in the member's name is within the
// rate per second.
func (m *member) takesSignature(rate float64, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.signatures.rate, m.signatures.burst = rate, signaturesBurst
	if m.signatures.take(1, now) {
		return true
	}
	m.counts.Limited++
	return false
}

// certify passes signatures on; the replica verifies them later, and counts
// those that are wrong. The error means that it takes nothing at all.
func (p *Peers) certify(signatures []consensus.Signature) error {
	if len(signatures) == 0 {
		return nil
	}
	err := p.agreed.Certify(signatures)
	if errors.Is(err, ledger.ErrBusy) {
		p.counted.unread.Add(uint64(len(signatures)))
		return nil
	}
	return err
}

// A span is the body of a request for signatures: from u32 | to u32, the indexes
// of the first and the last milestone.
type span struct{ from, to uint32 }

func (m span) append(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, m.from), m.to)
}

func parseSpan(b []byte) (m span, err error) {
	if len(b) != 8 {
		return m, fmt.Errorf("%w: span of %d bytes", errBody, len(b))
	}
	m = span{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])}
	if m.from == 0 || m.to < m.from {
		return m, fmt.Errorf("%w: span from %d to %d", errBody, m.from, m.to)
	}
	return m, nil
}

// parseSignatures reads up to most signatures that fill b.
func parseSignatures(b []byte, most int) ([]consensus.Signature, error) {
	if len(b)%signatureSize != 0 || len(b)/signatureSize > most {
		return nil, fmt.Errorf("%w: signatures in %d bytes", errBody, len(b))
	}
	all := make([]consensus.Signature, len(b)/signatureSize)
	for i := range all {
		var err error
		if all[i], err = consensus.ParseSignature(b[i*signatureSize:][:signatureSize]); err != nil {
			return nil, fmt.Errorf("%w: %w", errBody, err)
		}
	}
	return all, nil
}

// signaturesOf answers a request for signatures.
func (p *Peers) signaturesOf(asked span) (body []byte, err error) {
	all, err := p.agreed.Signatures(asked.from, asked.to, maxSignatures)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return nil, err
	}
	for i := range all {
		body = all[i].AppendBinary(body)
	}
	return body, nil
}
