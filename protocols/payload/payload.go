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
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

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
	if f == Auto {
		f = recognise(b)
	}
	var root node
	var err error
	switch f {
	case Text:
		return scalar(b, h)
	case CBOR, SenMLCBOR:
		root, err = parseCBOR(b)
	default:
		root, err = parseJSON(b)
	}
	if err != nil {
		return nil, err
	}
	if (f == SenMLJSON || f == SenMLCBOR) && root.kind != isArray {
		return nil, errors.New("SenML pack is not an array")
	}
	switch root.kind {
	case isArray:
		return pack(root.members, h)
	case isObject:
		if h.Name != "" {
			return valueObject(root, h)
		}
		return fields(root, h)
	}
	return one(root, h)
}

// recognise guesses the format from the first byte. The bytes that open a CBOR
// array or map (0x80 to 0xbf) never begin UTF-8.
func recognise(b []byte) Format {
	t := bytes.TrimLeft(b, whitespace)
	switch {
	case len(t) > 0 && (t[0] == '{' || t[0] == '['):
		return JSON
	case len(b) > 0 && b[0] >= 0x80 && b[0] <= 0xbf:
		return CBOR
	}
	return Text
}

// scalar decodes a payload that is one value and not an object.
func scalar(b []byte, h Hints) ([]reading.Reading, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("text is not UTF-8")
	}
	t := bytes.Trim(b, whitespace)
	if len(t) == 0 || string(t) == "null" {
		return nil, nil
	}
	if v, ok, err := keyword(t); ok || err != nil {
		if err != nil {
			return nil, err
		}
		return one(node{kind: isScalar, value: v}, h)
	}
	for _, c := range b {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f {
			return nil, errors.New("text holds control characters")
		}
	}
	v, err := reading.String(string(b))
	if err != nil {
		return nil, err
	}
	return one(node{kind: isScalar, value: v}, h)
}

// keyword recognises what is not bare text: a number (a leading "+" is
// forgiven), a boolean or a JSON string. The error is for a number that no
// reading can hold.
func keyword(t []byte) (v reading.Value, ok bool, err error) {
	switch {
	case string(t) == "true", string(t) == "false":
		return reading.Bool(t[0] == 't'), true, nil
	case t[0] == '"':
		root, err := parseJSON(t)
		return root.value, err == nil, nil
	}
	num := t
	if num[0] == '+' && len(num) > 1 && num[1] != '-' {
		num = num[1:]
	}
	if n, integer := scanNumber(num); n == len(num) {
		v, err = number(num, integer)
		return v, err == nil, err
	}
	return reading.Value{}, false, nil
}

// one makes the reading of a payload that is one scalar.
func one(n node, h Hints) ([]reading.Reading, error) {
	if n.kind == isNull {
		return nil, nil
	}
	if h.Name == "" {
		return nil, errors.New("a single value needs a name; want an object or a SenML pack")
	}
	return []reading.Reading{{Device: h.Device, Name: h.Name, Value: n.value}}, nil
}

// valueObject decodes {"v":…,"u":…,"t":…}.
func valueObject(root node, h Hints) ([]reading.Reading, error) {
	r := reading.Reading{Device: h.Device, Name: h.Name}
	found := false
	for i := range root.members {
		m := &root.members[i]
		var err error
		switch m.name {
		case "v":
			if m.kind == isNull {
				return nil, nil
			}
			if m.kind != isScalar {
				return nil, errors.New("v is not a single value")
			}
			r.Value, found = m.value, true
		case "u":
			r.Unit, err = unit(m.node)
		case "t":
			r.Time, err = objectTime(m.node)
		}
		if err != nil {
			return nil, fmt.Errorf("%s %w", m.name, err)
		}
	}
	if !found {
		return nil, errors.New("object has no member v")
	}
	return []reading.Reading{r}, nil
}

// objectTime reads the time of a value object in Unix milliseconds. A time
// that no clock can show becomes 0.
func objectTime(n node) (int64, error) {
	if n.kind == isScalar && n.value.Kind() == reading.KindString {
		t, err := time.Parse(time.RFC3339, n.value.AsString())
		if err != nil {
			return 0, errors.New("is not an RFC 3339 time")
		}
		return t.UnixMilli(), nil
	}
	f, ok := n.float()
	switch {
	case n.kind == isNull:
		return 0, nil
	case !ok:
		return 0, errors.New("is not a time")
	case math.Abs(f) >= 1e11:
		f /= 1000
	}
	return milliseconds(f), nil
}

// milliseconds converts from seconds, or returns 0 for what no clock shows.
func milliseconds(seconds float64) int64 {
	if math.Abs(seconds) > 1e12 {
		return 0
	}
	return int64(math.Round(seconds * 1000))
}

func unit(n node) (string, error) {
	switch {
	case n.kind == isNull:
		return "", nil
	case n.kind != isScalar || n.value.Kind() != reading.KindString:
		return "", errors.New("is not a string")
	case len(n.value.AsString()) > reading.MaxUnit || strings.Contains(n.value.AsString(), "\x00"):
		return "", fmt.Errorf("is no unit: at most %d bytes, no NUL", reading.MaxUnit)
	}
	return n.value.AsString(), nil
}

// fields flattens an object into readings.
func fields(root node, h Hints) ([]reading.Reading, error) {
	var rs []reading.Reading
	var walk func(name string, n node) error
	walk = func(name string, n node) error {
		switch n.kind {
		case isScalar:
			if err := checkName(name); err != nil {
				return err
			}
			if len(rs) == MaxReadings {
				return fmt.Errorf("more than %d fields", MaxReadings)
			}
			rs = append(rs, reading.Reading{Device: h.Device, Name: name, Value: n.value})
		case isObject:
			for _, m := range n.members {
				if err := walk(join(name, m.name), m.node); err != nil {
					return err
				}
			}
		case isArray:
			for i, m := range n.members {
				if err := walk(join(name, strconv.Itoa(i)), m.node); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := walk("", root); err != nil {
		return nil, err
	}
	return rs, nil
}

// join appends a level to a field's name. A name that is too long already
// stays as it is: it will be refused, and must not be copied again and again.
func join(name, level string) string {
	if name == "" || len(name) > reading.MaxName {
		return name + level[:min(len(level), reading.MaxName+1)]
	}
	return name + "." + level
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("a field has an empty name")
	case len(name) > reading.MaxName:
		return fmt.Errorf("a name has more than %d bytes", reading.MaxName)
	case strings.Contains(name, "\x00"):
		return errors.New("a name holds a NUL")
	}
	return nil
}
