// Package protocols holds what the MQTT and the CoAP front end share: who may
// connect and publish, which topic or path names which device, and the steps
// from a message to a submitted packet of readings.
//
// It knows no socket and no packet type: those live in protocols/mqtt and
// protocols/coap. It knows no disk and no block either: a [Sink] takes the
// readings, and its receipt says when a device may be answered.
package protocols

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// The reasons for which nothing was stored. What [Intake.Submit] returns wraps
// one of them, or [batching.ErrBusy] or [batching.ErrClosed].
var (
	// ErrTooLarge means that the message can never be stored: its text or its
	// undecodable payload exceeds batching.MaxRaw.
	ErrTooLarge = errors.New("too large")

	// ErrNotAllowed means that the registry or the access list refuses it.
	ErrNotAllowed = errors.New("not allowed")

	// ErrNoReading means that the payload is empty or, though well formed,
	// holds no value (an empty object, nothing but nulls): there is nothing to
	// store and nothing is lost. An MQTT front end may treat the message as
	// ordinary broker traffic.
	ErrNoReading = errors.New("no reading in the payload")

	// ErrName means that a device, a name or a topic breaks its limits.
	ErrName = errors.New("name outside its limits")

	// ErrNotFound is wrapped by what [LastValues] returns when a device never
	// reported a value of that name.
	ErrNotFound = errors.New("not found")
)

// A Sink stores packets. [batching.Stage] is one.
type Sink interface {
	// Submit takes the packet and returns at once: a receipt that is resolved
	// when the packet is durable, or an error wrapping [batching.ErrBusy] or
	// [batching.ErrClosed]. It may be called concurrently. The sink keeps
	// sub.Readings.
	Submit(sub batching.Submission) (*batching.Receipt, error)
	// Lead commits on the calling goroutine what is due, if that is little, the
	// leader has no more and nobody else is committing, and tells whether it did.
	// It blocks for as long as the disk takes. It follows every Submit with this
	// leader, which is told of what others commit.
	Lead(batching.Leader) (led bool)
}

// LastValues answers what a device reported last.
type LastValues interface {
	// Last returns the newest durable reading of this device and name. The
	// error wraps [ErrNotFound] when there is none. It may be called
	// concurrently.
	Last(device, name string) (reading.Reading, error)
}

// Digest hashes the parts for a [batching.Key]. Each part is preceded by its
// length, so that ("ab", "c") and ("a", "bc") differ. The result is the same
// on every run: keys are compared across restarts.
func Digest(parts ...[]byte) (key [16]byte) {
	var space [512]byte
	b := space[:0]
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	sum := sha256.Sum256(b)
	copy(key[:], sum[:])
	return key
}
