// Package reading defines the Reading: one value that one device reported,
// the type that front ends, journal, envelope and queries share.
//
// It holds the type and its limits only: no encoding for disk or Tangle, no
// state. Every package may import it; it imports none of ours.
package reading

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a reading's parts, in bytes. Front ends refuse what exceeds them
// before anything is stored.
const (
	MaxDevice = 64
	MaxName   = 128
	MaxUnit   = 32
	MaxText   = 8 << 10 // a text or raw value
	MaxErr    = 256
)

// ErrLimit is wrapped by [Reading.Validate] when a part is missing, too long
// or not text.
var ErrLimit = errors.New("reading outside its limits")

// Clock says how far the gateway's own clock could be trusted when it
// received a reading. Its numbers stand in the record on the Tangle (label hq).
type Clock uint8

// The qualities of a clock, from best to worst.
const (
	ClockGood   Clock = 0 // synchronised
	ClockUnsure Clock = 1 // plausible, nothing vouches for it
	ClockBad    Clock = 2 // before this program was made: not set
)

// String returns the word the API uses: good, unsure or bad.
func (c Clock) String() string { return [...]string{"good", "unsure", "bad"}[min(c, ClockBad)] }

// Auth says how the device proved who it is (label ha).
type Auth uint8

// The ways a device proves its name.
const (
	AuthNone     Auth = 0
	AuthPassword Auth = 1
	AuthPSK      Auth = 2
	AuthX509     Auth = 3
)

// String returns the word used on the Tangle: none, password, psk or x509.
func (a Auth) String() string {
	return [...]string{"none", "password", "psk", "x509"}[min(a, AuthX509)]
}

// Source says which front end took a reading in.
type Source uint8

// The front ends.
const (
	SourceMQTT Source = 0
	SourceCoAP Source = 1
	SourceHTTP Source = 2
)

// String returns the word the API uses: mqtt, coap or http.
func (s Source) String() string { return [...]string{"mqtt", "coap", "http"}[min(s, SourceHTTP)] }

// A Reading is one value from one device.
type Reading struct {
	// Seq is the reading's number in this gateway's journal, from 1 and
	// without gaps but for numbers that a lost journal is known to have given;
	// 0 until the journal has stored it.
	Seq    uint64
	Device string // 1 to MaxDevice bytes of UTF-8
	Name   string // what was measured; 1 to MaxName bytes of UTF-8
	Value  Value
	Unit   string // SenML unit when the device gave one
	// Time is the device's own time in Unix milliseconds, 0 when it sent none
	// or none that is sane.
	Time     int64
	Received int64 // when the gateway took it in, Unix milliseconds by its clock
	Clock    Clock // quality of the clock behind Received
	Auth     Auth
	Source   Source
	// Err says why the payload could not be decoded; the value then holds the
	// payload's raw bytes. Empty for every other reading.
	Err string
}

// Validate checks the limits of r's parts and that it holds a value. The
// error wraps [ErrLimit] and names the part.
func (r *Reading) Validate() error {
	if err := checkText("device", r.Device, 1, MaxDevice); err != nil {
		return err
	}
	if err := checkText("name", r.Name, 1, MaxName); err != nil {
		return err
	}
	if err := checkText("unit", r.Unit, 0, MaxUnit); err != nil {
		return err
	}
	if err := checkText("error", r.Err, 0, MaxErr); err != nil {
		return err
	}
	if r.Value.kind == KindNone {
		return fmt.Errorf("%w: no value", ErrLimit)
	}
	if n := len(r.Value.str); n > MaxText && r.Err == "" {
		return fmt.Errorf("%w: value has %d bytes, at most %d", ErrLimit, n, MaxText)
	}
	return nil
}

func checkText(part, s string, least, most int) error {
	switch {
	case len(s) < least:
		return fmt.Errorf("%w: %s is empty", ErrLimit, part)
	case len(s) > most:
		return fmt.Errorf("%w: %s has %d bytes, at most %d", ErrLimit, part, len(s), most)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: %s is not UTF-8", ErrLimit, part)
	case strings.ContainsRune(s, 0):
		return fmt.Errorf("%w: %s holds a NUL", ErrLimit, part)
	}
	return nil
}
