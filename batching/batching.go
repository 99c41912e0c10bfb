// Package batching turns readings into blocks: it journals what the front
// ends submit, groups it by size and age, seals batches, has them proven and
// hands them to the ledger.
//
// It knows neither sockets nor stores nor the Tangle's rules: front ends call
// [Stage.Submit], and the journal, the prover and the ledger are interfaces
// that this package declares and gateway fills.
package batching

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

var (
	// ErrBusy means "not now, nothing was stored, send it again": the inbox is
	// full, the journal is at its byte cap or the disk is below its reserve.
	// Front ends answer it in their protocol's own words.
	ErrBusy = errors.New("gateway busy")

	// ErrClosed means that the gateway is stopping and takes nothing more.
	ErrClosed = errors.New("gateway stopping")
)

// A Key recognises a message that a device sends again. Front ends make it
// from what their protocol calls the same message; the zero Key recognises
// nothing.
type Key struct {
	Sender  [16]byte // whom to look among: hash of the client id or endpoint
	Message [16]byte // hash of everything that makes two messages one
}

// A Packet is what one message of a device holds: it is stored whole or not
// at all, as one record.
type Packet struct {
	Readings []reading.Reading // 1 to MaxPacket, each valid; Seq and Received unset
	Key      Key
}

// Limits of a packet.
const (
	// MaxPacket is the most readings in one packet.
	MaxPacket = 2000

	// MaxPacketBytes is the largest [Packet.Bytes]. It is far above what a
	// front end takes in one message.
	MaxPacketBytes = 960 << 10

	// MaxRaw is the longest value in bytes: the raw payload of a reading that
	// could not be decoded. One reading must always fit into one block.
	MaxRaw = 28 << 10
)

// Bytes returns a size that the packet does not exceed in a journal.
func (p *Packet) Bytes() int {
	n := 60
	for i := range p.Readings {
		r := &p.Readings[i]
		n += 60 + len(r.Device) + len(r.Name) + len(r.Unit) + len(r.Value.AsString()) + len(r.Err)
	}
	return n
}

// Validate returns what keeps the packet from being stored, whatever room
// there is. The error wraps [reading.ErrLimit]. Submit and every journal ask
// it, so that nothing that waits for a commit can make it fail.
func (p *Packet) Validate() error {
	if n := len(p.Readings); n < 1 || n > MaxPacket {
		return fmt.Errorf("%w: packet of %d readings, want 1 to %d", reading.ErrLimit, n, MaxPacket)
	}
	for i := range p.Readings {
		r := &p.Readings[i]
		if err := r.Validate(); err != nil {
			return err
		}
		if n := len(r.Value.AsString()); n > MaxRaw {
			return fmt.Errorf("%w: raw value has %d bytes, at most %d", reading.ErrLimit, n, MaxRaw)
		}
		if r.Auth > reading.AuthX509 || r.Source > reading.SourceHTTP {
			return fmt.Errorf("%w: authentication %d, source %d", reading.ErrLimit, r.Auth, r.Source)
		}
	}
	if n := p.Bytes(); n > MaxPacketBytes {
		return fmt.Errorf("%w: packet of %d readings may take %d bytes, at most %d", reading.ErrLimit, len(p.Readings), n, MaxPacketBytes)
	}
	return nil
}

// A Submission is a packet together with how to recognise its repetition.
type Submission struct {
	Packet
	// Recall asks to look for Key among the sender's earlier packets, in the
	// journal and on their way to it. When found, nothing is stored and the
	// receipt is that of the earlier packet.
	Recall bool
	// Within bounds how old an earlier packet may be to count.
	Within time.Duration
	// Leader is set by who calls [Stage.Lead] after Submit.
	Leader Leader
}

// A Leader is a front end that lends its goroutine for commits. It is told of
// those of its packets that others do. It is comparable.
type Leader interface {
	// Resolved is called after receipts of the leader's were resolved, by
	// whoever committed. It must not block.
	Resolved()
	// More tells whether another packet is at hand, which shares the commit. The
	// leader takes it and calls [Stage.Lead] again, whatever it was.
	More() bool
}

// A Stamp is the time at which a group of packets was taken in.
type Stamp struct {
	Received int64 // Unix milliseconds
	Clock    reading.Clock
}

// A Journal stores packets durably and in order. Append is called by one
// goroutine at a time; every other method may be called concurrently.
type Journal interface {
	// Append gives the readings of the packets consecutive sequence numbers,
	// stamps them, and returns the first number once all of them are on
	// stable storage; or stores none and returns an error. The error wraps
	// ErrBusy when the disk or the journal is full; any other error leaves
	// the journal in doubt and must end the process. Every packet is one that
	// Validate accepts.
	Append(packets []Packet, at Stamp) (first uint64, err error)
	// Recall returns the first sequence number of the stored packet with this
	// key, if it is among the last ones of its sender and not older than
	// within at now.
	Recall(key Key, within time.Duration, now int64) (first uint64, ok bool)
	// Read returns up to limit readings in order, starting with number from
	// or the first one above it that is still kept.
	Read(from uint64, limit int) ([]reading.Reading, error)
	// Next returns the number that the next reading will get.
	Next() uint64
	// SkipTo makes Next at least next, durably, and gives the journal a new
	// incarnation: for a journal found behind the ledger's marks.
	SkipTo(next uint64) error
	// Incarnation identifies this journal in the batches made from it.
	Incarnation() [8]byte
	// Trim lets the journal drop readings up to and including number through,
	// as its retention says. It never drops any above.
	Trim(through uint64) error
	// Ready returns nil when Append would be accepted now, or why not.
	Ready() error
}

// A Prover finds nonces (TIP-12).
type Prover interface {
	// Prove returns a nonce for which the Curl-P-81 hash of digest and nonce
	// ends in at least zeros zero trits. It blocks until one is found, ctx
	// ends, or the prover refuses.
	Prove(ctx context.Context, digest [32]byte, zeros int) (nonce uint64, err error)
}

// A Ledger attaches blocks to the Tangle's local replica.
type Ledger interface {
	// Tips returns 1 to 8 solid block ids, ascending, to approve: at least two
	// whenever there are two.
	Tips() []stardust.BlockID
	// MinPoWScore is the score that a block must reach.
	MinPoWScore() uint32
	// Attach validates and stores the block together with the mark "the
	// readings of these runs stand in it", in one durable step. A run is a
	// pair of first and last sequence number; runs ascend and do not touch.
	Attach(ctx context.Context, b *stardust.Block, runs [][2]uint64) (stardust.BlockID, error)
	// MarksFrom calls yield with the marks in ascending order of numbers until it
	// returns false, beginning with the one that holds the number from or the
	// first above it. The block is the genesis when nothing is kept of it; yield
	// may call the other methods.
	MarksFrom(from uint64, yield func(run [2]uint64, block stardust.BlockID) bool) error
	// Marked returns the block that a reading stands in.
	Marked(seq uint64) (block stardust.BlockID, ok bool, err error)
	// Certified reports whether a quorum of the gateways has signed that the
	// block is confirmed. Of the genesis it is true: nothing more can become of a
	// block that marks name so.
	Certified(block stardust.BlockID) (bool, error)
}
