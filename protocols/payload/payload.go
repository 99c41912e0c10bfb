// Package payload turns the bytes that devices send into readings: scalars,
// JSON objects, SenML in JSON and CBOR (RFC 8428), and plain CBOR.
//
// It knows no topic, path or socket, keeps no state and reads no clock: what
// it needs to know comes in [Hints]. Every form is decoded in time and memory
// linear in the payload, which the front ends bound.
//
// # Forms
//
// With a name (Hints.Name) the payload is a scalar — a JSON number, true or
// false, a JSON string, otherwise the bare text as it is — or an object
// {"v":value,"u":unit,"t":time} whose other members are ignored. The time is
// in Unix seconds, in milliseconds when it is 1e11 or more, or an RFC 3339
// string.
//
// Without a name the payload is an object: each number, boolean or string in
// it is a reading. Nested members are joined by ".", elements of arrays are
// named by their index ("t.0"), nulls are skipped.
//
// An array is a SenML pack. The resolved SenML name is the reading's name,
// without the leading device name and ":", "/" or "." if it has them; a record
// without a name takes that of the hints. A sum is a reading of its own,
// named with ".sum" appended. Units are taken as they are.
//
// Plain CBOR has the same shapes as JSON.
package payload

import (
	"errors"
	"strings"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// Limits of one payload, whatever its form.
const (
	MaxDepth    = 8    // of nested objects and arrays
	MaxReadings = 256  // fields of an object or records of a pack
	maxNodes    = 4096 // values of any kind, nulls and containers included
)

// A Format is what the sender says its payload is.
type Format uint8

// The formats. Auto recognises the others by the payload's first byte.
const (
	Auto Format = iota
	Text
	JSON
	CBOR
	SenMLJSON
	SenMLCBOR
)

// FormatOf returns the format of a media type, with or without parameters, or
// Auto for one that says nothing about the payload.
func FormatOf(mediaType string) Format {
	base, _, _ := strings.Cut(mediaType, ";")
	switch strings.ToLower(strings.TrimSpace(base)) {
	case "text/plain":
		return Text
	case "application/json":
		return JSON
	case "application/cbor":
		return CBOR
	case "application/senml+json":
		return SenMLJSON
	case "application/senml+cbor":
		return SenMLCBOR
	}
	return Auto
}

// Hints say what is known about a payload from elsewhere.
type Hints struct {
	Device string    // whose readings they are
	Name   string    // what was measured, "" when the payload says it
	Now    time.Time // what SenML's relative times count from
}

// Decode returns the readings of a payload with Device, Name, Value, Unit and
// Time set; names and units keep to the limits of package reading, texts may
// not. It returns none and no error for a well-formed payload without a value
// (an empty object, nothing but nulls). The error says in a few words why the
// payload cannot be decoded.
//
// It may be called concurrently and keeps nothing of b.
func Decode(f Format, b []byte, h Hints) ([]reading.Reading, error) {
	return nil, errors.New("not decodable")
}
