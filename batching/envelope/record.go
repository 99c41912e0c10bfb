package envelope

import (
	"bytes"
	"fmt"
	"math"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// record is one resolved SenML record (RFC 8428 §6, labels of table 4) with
// the text labels of contract.md, "Bytes on the Tangle". Exactly one of the
// value fields is set.
type record struct {
	Name     string  `cbor:"0,keyasint"`
	Unit     string  `cbor:"1,keyasint,omitempty"`
	Value    any     `cbor:"2,keyasint,omitempty"` // int64, uint64 or float64
	Text     *string `cbor:"3,keyasint,omitempty"`
	Bool     *bool   `cbor:"4,keyasint,omitempty"`
	Time     any     `cbor:"6,keyasint,omitempty"` // int64 or float64: Unix seconds
	Data     *[]byte `cbor:"8,keyasint,omitempty"`
	Auth     string  `cbor:"ha"`
	Err      string  `cbor:"he,omitempty"`
	Clock    uint64  `cbor:"hq"`
	Received int64   `cbor:"hr"` // Unix milliseconds
	Seq      uint64  `cbor:"hs"`
}

// maxTime bounds device times in milliseconds: up to here seconds as a
// float64 keep the millisecond.
const maxTime = 1 << 50

// AppendRecord appends the record of r in gateway's batches: the bytes that a
// leaf of the Merkle tree holds. A device time that is not after 1970 is left
// out. The error wraps [ErrRecord] when r holds no value.
func AppendRecord(dst []byte, gateway string, r *reading.Reading) ([]byte, error) {
	rec := record{
		Name:     string(appendName(nil, gateway, r.Device, r.Name)),
		Unit:     r.Unit,
		Auth:     r.Auth.String(),
		Err:      r.Err,
		Clock:    uint64(min(r.Clock, reading.ClockBad)),
		Received: r.Received,
		Seq:      r.Seq,
	}
	switch {
	case r.Time <= 0 || r.Time > maxTime:
	case r.Time%1000 == 0:
		rec.Time = r.Time / 1000
	default:
		rec.Time = float64(r.Time) / 1000
	}
	switch v := r.Value; v.Kind() {
	case reading.KindInt:
		rec.Value = v.AsInt()
	case reading.KindUint:
		rec.Value = v.AsUint()
	case reading.KindFloat:
		rec.Value = v.AsFloat()
	case reading.KindBool:
		b := v.AsBool()
		rec.Bool = &b
	case reading.KindString:
		s := v.AsString()
		rec.Text = &s
	case reading.KindBytes:
		b := []byte(v.AsString())
		rec.Data = &b
	default:
		return dst, fmt.Errorf("%w: reading %d holds no value", ErrRecord, r.Seq)
	}
	raw, err := encoding.Marshal(&rec)
	if err != nil {
		return dst, fmt.Errorf("%w: reading %d: %v", ErrRecord, r.Seq, err)
	}
	return append(dst, raw...), nil
}

// ParseRecord returns the reading that a record of gateway's batches holds;
// its Source is not in the record. Only the bytes that [AppendRecord] makes
// are accepted; the error wraps [ErrRecord] or [ErrCanonical].
func ParseRecord(raw []byte, gateway string) (reading.Reading, error) {
	var rec record
	if err := decoding.Unmarshal(raw, &rec); err != nil {
		return reading.Reading{}, fmt.Errorf("%w: %v", ErrRecord, err)
	}
	from, device, name, err := splitName(rec.Name)
	if err != nil {
		return reading.Reading{}, err
	}
	if from != gateway {
		return reading.Reading{}, fmt.Errorf("%w: it is of gateway %.40q", ErrRecord, from)
	}
	r := reading.Reading{
		Seq:      rec.Seq,
		Device:   device,
		Name:     name,
		Unit:     rec.Unit,
		Received: rec.Received,
		Clock:    reading.Clock(min(rec.Clock, uint64(reading.ClockBad))),
		Err:      rec.Err,
	}
	if r.Auth, err = parseAuth(rec.Auth); err != nil {
		return reading.Reading{}, err
	}
	if r.Value, err = rec.value(); err != nil {
		return reading.Reading{}, err
	}
	if r.Time, err = rec.time(); err != nil {
		return reading.Reading{}, err
	}
	if err := r.Validate(); err != nil {
		return reading.Reading{}, fmt.Errorf("%w: %v", ErrRecord, err)
	}
	// Whatever else the record says twice, in a longer form or in addition
	// shows here.
	if again, err := AppendRecord(nil, gateway, &r); err != nil || !bytes.Equal(again, raw) {
		return reading.Reading{}, fmt.Errorf("record %d: %w", r.Seq, ErrCanonical)
	}
	return r, nil
}

func (rec *record) value() (v reading.Value, err error) {
	switch n := rec.Value.(type) {
	case int64:
		v = reading.Int(n)
	case uint64:
		v = reading.Uint(n)
	case float64:
		v, err = reading.Float(n)
	case nil:
		switch {
		case rec.Text != nil:
			v, err = reading.String(*rec.Text)
		case rec.Bool != nil:
			v = reading.Bool(*rec.Bool)
		case rec.Data != nil:
			v = reading.Bytes(*rec.Data)
		}
	default:
		err = reading.ErrValue
	}
	if err != nil {
		return v, fmt.Errorf("%w: value: %v", ErrRecord, err)
	}
	return v, nil
}

// time returns the device time in milliseconds, 0 when there is none.
func (rec *record) time() (int64, error) {
	switch t := rec.Time.(type) {
	case nil:
		return 0, nil
	case uint64:
		if t > 0 && t <= maxTime/1000 {
			return int64(t) * 1000, nil
		}
	case float64:
		if t > 0 && t*1000 <= maxTime {
			return int64(math.Round(t * 1000)), nil
		}
	}
	return 0, fmt.Errorf("%w: time %v", ErrRecord, rec.Time)
}

func parseAuth(s string) (reading.Auth, error) {
	for a := reading.AuthNone; a <= reading.AuthX509; a++ {
		if a.String() == s {
			return a, nil
		}
	}
	return 0, fmt.Errorf("%w: authentication %.20q", ErrRecord, s)
}
