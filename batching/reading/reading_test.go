package reading

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestANumberHasOneForm(t *testing.T) {
	for _, tt := range []struct {
		in   float64
		kind Kind
		text string
	}{
		{0, KindInt, "0"},
		{math.Copysign(0, -1), KindInt, "0"},
		{21.5, KindFloat, "21.5"},
		{-3, KindInt, "-3"},
		{1<<53 - 1, KindInt, "9007199254740991"},
		{-(1<<53 - 1), KindInt, "-9007199254740991"},
		{1 << 53, KindFloat, "9007199254740992"},
		{-(1 << 53), KindFloat, "-9007199254740992"},
		{1e21, KindFloat, "1e+21"},
		{1e-7, KindFloat, "1e-07"},
		{1e-6, KindFloat, "0.000001"},
		{math.MaxFloat64, KindFloat, "1.7976931348623157e+308"},
		{math.SmallestNonzeroFloat64, KindFloat, "5e-324"},
	} {
		v, err := Float(tt.in)
		if err != nil || v.Kind() != tt.kind || v.Text() != tt.text {
			t.Errorf("Float(%v) = kind %d, %q, %v; want kind %d, %q", tt.in, v.Kind(), v.Text(), err, tt.kind, tt.text)
		}
	}
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if v, err := Float(f); !errors.Is(err, ErrValue) || v != (Value{}) {
			t.Errorf("Float(%v) = %v, %v; want ErrValue", f, v, err)
		}
	}
	if got, want := Uint(math.MaxInt64), Int(math.MaxInt64); got != want {
		t.Errorf("Uint(2^63-1) = %+v, want %+v", got, want)
	}
	if got := Uint(math.MaxInt64 + 1); got.Kind() != KindUint || got.AsUint() != 1<<63 {
		t.Errorf("Uint(2^63) = %+v", got)
	}
}

// The four forms of a value in the API (contract, "HTTP").
func TestJSONOfValues(t *testing.T) {
	half, err := Float(0.5)
	if err != nil {
		t.Fatal(err)
	}
	text, err := String("a\"b\n€")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		v    Value
		want string
	}{
		{Int(math.MinInt64), "-9223372036854775808"},
		{Uint(math.MaxUint64), "18446744073709551615"},
		{half, "0.5"},
		{Bool(true), "true"},
		{Bool(false), "false"},
		{text, `"a\"b\n€"`},
		{Bytes([]byte{0xff, 0}), `{"base64":"/wA="}`},
		{Bytes(nil), `{"base64":""}`},
		{Value{}, "null"},
	} {
		if got, err := json.Marshal(tt.v); err != nil || string(got) != tt.want {
			t.Errorf("JSON of %+v is %s, %v; want %s", tt.v, got, err, tt.want)
		}
	}
}

func TestTextThatIsNotUTF8IsNoValue(t *testing.T) {
	if v, err := String("a\xff"); !errors.Is(err, ErrValue) {
		t.Errorf("String = %+v, %v; want ErrValue", v, err)
	}
}

func TestRawBytesAreCopied(t *testing.T) {
	b := []byte("abc")
	v := Bytes(b)
	b[0] = 'x'
	if v.AsString() != "abc" {
		t.Errorf("the value became %q", v.AsString())
	}
}

func TestValidateHoldsTheLimitOfEachPart(t *testing.T) {
	long := func(n int) string { return strings.Repeat("a", n) }
	good := func() Reading {
		return Reading{Device: long(MaxDevice), Name: long(MaxName), Unit: long(MaxUnit), Value: Int(1)}
	}
	for _, tt := range []struct {
		name   string
		change func(*Reading)
		want   string // part of the error; "" for none
	}{
		{"everything at its limit", func(*Reading) {}, ""},
		{"text at its limit", func(r *Reading) { r.Value, _ = String(long(MaxText)) }, ""},
		{"error at its limit", func(r *Reading) { r.Err = long(MaxErr) }, ""},
		{"raw payload above the limit of texts", func(r *Reading) { r.Value, r.Err = Bytes(make([]byte, MaxText+1)), "no number" }, ""},
		{"no device", func(r *Reading) { r.Device = "" }, "device is empty"},
		{"long device", func(r *Reading) { r.Device += "a" }, "device has 65 bytes, at most 64"},
		{"no name", func(r *Reading) { r.Name = "" }, "name is empty"},
		{"long name", func(r *Reading) { r.Name += "a" }, "name has 129 bytes, at most 128"},
		{"long unit", func(r *Reading) { r.Unit += "a" }, "unit has 33 bytes, at most 32"},
		{"long error", func(r *Reading) { r.Err = long(MaxErr + 1) }, "error has 257 bytes, at most 256"},
		{"device that is not UTF-8", func(r *Reading) { r.Device = "\xff" }, "device is not UTF-8"},
		{"name with a NUL", func(r *Reading) { r.Name = "a\x00b" }, "name holds a NUL"},
		{"no value", func(r *Reading) { r.Value = Value{} }, "no value"},
		{"long text", func(r *Reading) { r.Value, _ = String(long(MaxText + 1)) }, "value has 8193 bytes, at most 8192"},
		{"long bytes", func(r *Reading) { r.Value = Bytes(make([]byte, MaxText+1)) }, "value has 8193 bytes, at most 8192"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := good()
			tt.change(&r)
			err := r.Validate()
			if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrLimit) || !strings.Contains(fmt.Sprint(err), tt.want)) {
				t.Errorf("Validate: %v, want %q", err, tt.want)
			}
		})
	}
}

// The words stand in the API and in records on the Tangle.
func TestWordsOfClockAuthAndSource(t *testing.T) {
	got := fmt.Sprint(ClockGood, ClockUnsure, ClockBad, Clock(9), AuthNone, AuthPassword, AuthPSK, AuthX509, Auth(9),
		SourceMQTT, SourceCoAP, SourceHTTP, Source(9))
	if want := "good unsure bad bad none password psk x509 x509 mqtt coap http http"; got != want {
		t.Errorf("words are %q, want %q", got, want)
	}
}

// A float keeps its value in every form that is written of it.
func FuzzFloat(f *testing.F) {
	f.Add(21.5)
	f.Add(1e300)
	f.Add(math.Copysign(0, -1))
	f.Fuzz(func(t *testing.T, in float64) {
		v, err := Float(in)
		if err != nil {
			if !math.IsNaN(in) && !math.IsInf(in, 0) {
				t.Fatalf("Float(%v): %v", in, err)
			}
			return
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var back float64
		if err := json.Unmarshal(text, &back); err != nil || back != in {
			t.Errorf("%v is written %s, read %v, %v", in, text, back, err)
		}
	})
}
