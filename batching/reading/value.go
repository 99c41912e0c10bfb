package reading

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"unicode/utf8"
)

// ErrValue is wrapped by the errors of constructors that are given something
// no reading can hold: NaN, an infinity, or text that is not UTF-8.
var ErrValue = errors.New("not a value a reading can hold")

// Kind says which of its forms a [Value] has.
type Kind uint8

// The forms of a value. None is the zero Value, which no stored reading has.
const (
	KindNone Kind = iota
	KindInt
	KindUint
	KindFloat
	KindBool
	KindString
	KindBytes
)

// A Value is what a sensor said: a number, a boolean, a text or raw bytes.
// It is comparable with == and never holds NaN, an infinity or negative zero.
// A number that is integral has one form only: KindInt when it fits an int64,
// else KindUint; KindFloat is never integral below 2^53.
type Value struct {
	kind Kind
	num  uint64 // int64, uint64 or float64 bits, or 0 and 1
	str  string
}

// Int returns the value of an integer.
func Int(i int64) Value { return Value{kind: KindInt, num: uint64(i)} }

// Uint returns the value of an integer that may exceed an int64.
func Uint(u uint64) Value {
	if u <= math.MaxInt64 {
		return Int(int64(u))
	}
	return Value{kind: KindUint, num: u}
}

// Float returns the value of f: an integer when f is integral and below 2^53
// in magnitude (contract, "Bytes on the Tangle"). The error wraps [ErrValue]
// when f is NaN or infinite.
func Float(f float64) (Value, error) {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return Value{}, ErrValue
	case f == math.Trunc(f) && math.Abs(f) < 1<<53:
		return Int(int64(f)), nil
	}
	return Value{kind: KindFloat, num: math.Float64bits(f)}, nil
}

// Bool returns the value of a boolean.
func Bool(b bool) Value {
	if b {
		return Value{kind: KindBool, num: 1}
	}
	return Value{kind: KindBool}
}

// String returns the value of a text. The error wraps [ErrValue] when s is
// not UTF-8.
func String(s string) (Value, error) {
	if !utf8.ValidString(s) {
		return Value{}, ErrValue
	}
	return Value{kind: KindString, str: s}, nil
}

// Bytes returns the value of raw bytes, which it copies.
func Bytes(b []byte) Value { return Value{kind: KindBytes, str: string(b)} }

// Kind returns the form of v.
func (v Value) Kind() Kind { return v.kind }

// AsInt returns the integer of a KindInt value.
func (v Value) AsInt() int64 { return int64(v.num) }

// AsUint returns the integer of a KindUint value.
func (v Value) AsUint() uint64 { return v.num }

// AsFloat returns the number of a KindFloat value.
func (v Value) AsFloat() float64 { return math.Float64frombits(v.num) }

// AsBool returns the boolean of a KindBool value.
func (v Value) AsBool() bool { return v.num != 0 }

// AsString returns the text of a KindString or the bytes of a KindBytes value.
func (v Value) AsString() string { return v.str }

// AppendText appends v as people write it: a bare number, true or false, the
// text itself, or the base64 of raw bytes.
func (v Value) AppendText(b []byte) ([]byte, error) {
	switch v.kind {
	case KindInt:
		return strconv.AppendInt(b, v.AsInt(), 10), nil
	case KindUint:
		return strconv.AppendUint(b, v.num, 10), nil
	case KindFloat:
		return appendFloat(b, v.AsFloat()), nil
	case KindBool:
		return strconv.AppendBool(b, v.AsBool()), nil
	case KindString:
		return append(b, v.str...), nil
	case KindBytes:
		return base64.StdEncoding.AppendEncode(b, []byte(v.str)), nil
	}
	return b, ErrValue
}

// Text returns v as [Value.AppendText] writes it, or "" for the zero Value.
func (v Value) Text() string {
	b, _ := v.AppendText(nil)
	return string(b)
}

// MarshalJSON writes v as the admin API shows it (contract, "HTTP"): a number,
// a boolean, a string or {"base64":"…"}.
func (v Value) MarshalJSON() ([]byte, error) {
	switch v.kind {
	case KindString:
		return json.Marshal(v.str)
	case KindBytes:
		return json.Marshal(map[string][]byte{"base64": []byte(v.str)})
	case KindNone:
		return []byte("null"), nil
	}
	return v.AppendText(nil)
}

// appendFloat writes the shortest decimal that keeps f, in JSON's grammar.
func appendFloat(b []byte, f float64) []byte {
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, 64)
}
