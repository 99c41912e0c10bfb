package payload

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// senmlVersion is the highest version of SenML that RFC 8428 defines.
const senmlVersion = 10

// relativeTime is the value below which SenML times count from now (RFC 8428,
// section 4.5.3).
const relativeTime = 1 << 28

// A record is one SenML record, its members sorted out.
type record struct {
	name  string
	unit  string
	time  float64
	value reading.Value // KindNone: none
	sum   reading.Value // KindNone: none
	named bool          // it has a member that is not a base one
}

// A base is what the records read so far say for those that follow.
type base struct {
	name, unit string
	time       float64
	value, sum reading.Value // KindNone: none
}

// pack resolves a SenML pack (RFC 8428, section 4).
func pack(items []member, h Hints) ([]reading.Reading, error) {
	if len(items) > MaxReadings {
		return nil, fmt.Errorf("more than %d SenML records", MaxReadings)
	}
	var b base
	rs := make([]reading.Reading, 0, len(items))
	for i := range items {
		rec, err := b.read(items[i].node)
		if err == nil {
			rs, err = b.resolve(rs, rec, h)
		}
		if err != nil {
			return nil, fmt.Errorf("SenML record %d: %w", i, err)
		}
		if len(rs) > MaxReadings {
			return nil, fmt.Errorf("more than %d readings", MaxReadings)
		}
	}
	return rs, nil
}

// read sorts out the members of a record and takes over its base fields.
func (b *base) read(n node) (record, error) {
	var r record
	if n.kind != isObject {
		return r, errors.New("is not an object")
	}
	if len(n.members) == 0 {
		return r, errors.New("is empty")
	}
	for i := range n.members {
		m := &n.members[i]
		var err error
		switch m.name {
		case "bn":
			b.name, err = senmlText(m.node)
		case "bt":
			b.time, err = senmlFloat(m.node)
		case "bu":
			b.unit, err = unit(m.node)
		case "bv":
			b.value, err = senmlNumber(m.node)
		case "bs":
			b.sum, err = senmlNumber(m.node)
		case "bver":
			err = senmlVersionCheck(m.node)
		default:
			r.named = true
			err = r.read(m)
		}
		if err != nil {
			return r, fmt.Errorf("%s %w", m.name[:min(len(m.name), 16)], err)
		}
	}
	return r, nil
}

// read takes over a member that is not a base field.
func (r *record) read(m *member) (err error) {
	switch m.name {
	case "n":
		r.name, err = senmlText(m.node)
	case "u":
		r.unit, err = unit(m.node)
	case "t":
		r.time, err = senmlFloat(m.node)
	case "s":
		r.sum, err = senmlNumber(m.node)
	case "v", "vs", "vb", "vd":
		if r.value.Kind() != reading.KindNone {
			return errors.New("is a second value")
		}
		r.value, err = senmlValue(m)
	default:
		if strings.HasSuffix(m.name, "_") {
			return errors.New("must be understood and is not")
		}
	}
	return err
}

// resolve appends the readings of a record.
func (b *base) resolve(rs []reading.Reading, r record, h Hints) ([]reading.Reading, error) {
	if !r.named {
		return rs, nil // base fields only
	}
	if r.value.Kind() == reading.KindNone && r.sum.Kind() == reading.KindNone {
		return rs, errors.New("has no value")
	}
	name, err := senmlName(b.name+r.name, h)
	if err != nil {
		return rs, err
	}
	out := reading.Reading{Device: h.Device, Name: name, Unit: r.unit, Time: senmlTime(b.time+r.time, h)}
	if out.Unit == "" {
		out.Unit = b.unit
	}
	if r.value.Kind() != reading.KindNone {
		if out.Value, err = add(b.value, r.value); err != nil {
			return rs, err
		}
		rs = append(rs, out)
	}
	if r.sum.Kind() != reading.KindNone {
		out.Name += ".sum"
		if err := checkName(out.Name); err != nil {
			return rs, err
		}
		if out.Value, err = add(b.sum, r.sum); err != nil {
			return rs, err
		}
		rs = append(rs, out)
	}
	return rs, nil
}

// senmlName returns the reading's name for a resolved SenML name.
func senmlName(name string, h Hints) (string, error) {
	if rest, ok := strings.CutPrefix(name, h.Device); ok {
		if rest == "" {
			name = ""
		} else if strings.IndexByte(":/.", rest[0]) >= 0 {
			name = rest[1:]
		}
	}
	if name == "" {
		name = h.Name
	}
	if name == "" {
		return "", errors.New("has no name")
	}
	return name, checkName(name)
}

// senmlTime resolves a time in seconds to Unix milliseconds; 0 is "now", for
// which the gateway's own time stands.
func senmlTime(t float64, h Hints) int64 {
	switch {
	case t == 0:
		return 0
	case t < relativeTime:
		ms := milliseconds(t)
		if ms == 0 {
			return 0
		}
		return h.Now.UnixMilli() + ms
	}
	return milliseconds(t)
}

// add returns the sum of a base and a value. A base counts for numbers only.
func add(b, v reading.Value) (reading.Value, error) {
	x, ok1 := node{kind: isScalar, value: b}.float()
	y, ok2 := node{kind: isScalar, value: v}.float()
	if !ok1 || !ok2 {
		return v, nil
	}
	if b.Kind() == reading.KindInt && v.Kind() == reading.KindInt {
		i, j := b.AsInt(), v.AsInt()
		if s := i + j; (s > i) == (j > 0) {
			return reading.Int(s), nil
		}
	}
	return finite(x + y)
}

func senmlText(n node) (string, error) {
	if n.kind != isScalar || n.value.Kind() != reading.KindString {
		return "", errors.New("is not a string")
	}
	if len(n.value.AsString()) > 2*reading.MaxName {
		return "", fmt.Errorf("has more than %d bytes", 2*reading.MaxName)
	}
	return n.value.AsString(), nil
}

func senmlFloat(n node) (float64, error) {
	f, ok := n.float()
	if !ok {
		return 0, errors.New("is not a number")
	}
	return f, nil
}

func senmlNumber(n node) (reading.Value, error) {
	if _, ok := n.float(); !ok {
		return reading.Value{}, errors.New("is not a number")
	}
	return n.value, nil
}

func senmlVersionCheck(n node) error {
	f, ok := n.float()
	if !ok || f != math.Trunc(f) || f < 1 {
		return errors.New("is not a version")
	}
	if f > senmlVersion {
		return fmt.Errorf("is above %d", senmlVersion)
	}
	return nil
}

// senmlValue returns the value of one of v, vs, vb and vd.
func senmlValue(m *member) (reading.Value, error) {
	kind := m.value.Kind()
	switch {
	case m.kind != isScalar:
		return reading.Value{}, errors.New("is not a single value")
	case m.name == "v":
		return senmlNumber(m.node)
	case m.name == "vs" && kind == reading.KindString,
		m.name == "vb" && kind == reading.KindBool,
		m.name == "vd" && kind == reading.KindBytes:
		return m.value, nil
	case m.name == "vd" && kind == reading.KindString: // JSON
		raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(m.value.AsString(), "="))
		if err != nil {
			return reading.Value{}, errors.New("is not base64url")
		}
		return reading.Bytes(raw), nil
	}
	return reading.Value{}, errors.New("has the wrong type")
}
