package payload

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

var now = time.Date(2026, 11, 22, 10, 15, 4, 0, time.UTC)

// show writes readings as "name=kind:value unit @time" for comparison.
func show(rs []reading.Reading) string {
	var parts []string
	for _, r := range rs {
		s := fmt.Sprintf("%s=%s:%s", r.Name, [...]string{"none", "int", "uint", "float", "bool", "string", "bytes"}[r.Value.Kind()], r.Value.Text())
		if r.Unit != "" {
			s += " " + r.Unit
		}
		if r.Time != 0 {
			s += fmt.Sprintf(" @%d", r.Time)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, "; ")
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		what   string
		format Format
		name   string // of the hints
		in     string
		want   string // as show writes it
		err    string // part of the error, "" for none
	}{
		{"number", Auto, "t", "21.5", "t=float:21.5", ""},
		{"integer", Auto, "t", "-3", "t=int:-3", ""},
		{"integral float is an integer", Auto, "t", "2.0e1", "t=int:20", ""},
		{"newline of echo", Auto, "t", "21.5\n", "t=float:21.5", ""},
		{"plus sign", Auto, "t", "+4", "t=int:4", ""},
		{"largest uint64 exactly", Auto, "t", "18446744073709551615", "t=uint:18446744073709551615", ""},
		{"smallest int64 exactly", Auto, "t", "-9223372036854775808", "t=int:-9223372036854775808", ""},
		{"beyond 64 bits", Auto, "t", "18446744073709551616", "t=float:18446744073709552000", ""},
		{"beyond float64", Auto, "t", "1e400", "", "beyond float64"},
		{"many digits", Auto, "t", strings.Repeat("1", maxNumber+1), "", "more than"},
		{"negative zero", Auto, "t", "-0.0", "t=int:0", ""},
		{"true", Auto, "t", " true ", "t=bool:true", ""},
		{"false", Auto, "t", "false", "t=bool:false", ""},
		{"null is no reading", Auto, "t", "null", "", ""},
		{"spaces are no reading", Auto, "t", " \n", "", ""},
		{"JSON string", Auto, "t", `"on\u00e9"`, "t=string:oné", ""},
		{"half a JSON string is text", Auto, "t", `"on`, `t=string:"on`, ""},
		{"bare text", Auto, "t", "door open", "t=string:door open", ""},
		{"leading zeros are text", Auto, "t", "0042", "t=string:0042", ""},
		{"NaN is text", Auto, "t", "NaN", "t=string:NaN", ""},
		{"text that is not UTF-8", Auto, "t", "a\xff", "", "not UTF-8"},
		{"control characters", Auto, "t", "a\x00b", "", "control"},
		{"scalar without a name", Auto, "", "21.5", "", "needs a name"},
		{"text format keeps braces", Text, "t", "{}", "t=string:{}", ""},

		{"value object", Auto, "t", `{"v":21.5,"u":"Cel","t":1763806504.12}`, "t=float:21.5 Cel @1763806504120", ""},
		{"value object in milliseconds", Auto, "t", `{"t":1763806504120,"v":true}`, "t=bool:true @1763806504120", ""},
		{"value object with RFC 3339", Auto, "t", `{"v":"x","t":"2025-11-22T10:15:04.12Z","rssi":-70}`, "t=string:x @1763806504120", ""},
		{"value object without value", Auto, "t", `{"u":"Cel"}`, "", "no member v"},
		{"value object with null", Auto, "t", `{"v":null}`, "", ""},
		{"value is an object", Auto, "t", `{"v":{}}`, "", "v is not"},
		{"unit is a number", Auto, "t", `{"v":1,"u":2}`, "", "u is not a string"},
		{"unit too long", Auto, "t", `{"v":1,"u":"` + strings.Repeat("m", 33) + `"}`, "", "u is no unit"},
		{"time is a boolean", Auto, "t", `{"v":1,"t":true}`, "", "t is not a time"},
		{"insane time", Auto, "t", `{"v":1,"t":1e300}`, "t=int:1", ""},

		{"fields", Auto, "", `{"t":21.5,"on":true,"s":"x","n":null,"deep":{"a":{"b":1}},"l":[1,[2],{"x":3}]}`,
			"t=float:21.5; on=bool:true; s=string:x; deep.a.b=int:1; l.0=int:1; l.1.0=int:2; l.2.x=int:3", ""},
		{"empty object", Auto, "", `{}`, "", ""},
		{"only nulls", Auto, "", `{"a":null}`, "", ""},
		{"duplicate member", Auto, "", `{"a":1,"a":2}`, "", "two members"},
		{"duplicate among many members", Auto, "", `{` + numbered(20) + `"7":1}`, "", "two members"},
		{"many members", Auto, "t", `{` + numbered(20) + `"v":1}`, "t=int:1", ""},
		{"empty field name", Auto, "", `{"":1}`, "", "empty name"},
		{"long field name", Auto, "", `{"` + strings.Repeat("n", 129) + `":1}`, "", "128 bytes"},
		{"depth 8", Auto, "", strings.Repeat(`{"a":`, 8) + "1" + strings.Repeat("}", 8), "a.a.a.a.a.a.a.a=int:1", ""},
		{"depth 9", Auto, "", strings.Repeat(`{"a":`, 9) + "1" + strings.Repeat("}", 9), "", "deeper"},
		{"257 fields", Auto, "", `{"l":[` + strings.Repeat("1,", 256) + `1]}`, "", "more than 256"},
		{"cut off", Auto, "", `{"a":1`, "", "broken JSON"},
		{"rest after the value", Auto, "", `{"a":1}x`, "", "broken JSON"},
		{"escape at the end", Auto, "", `{"a\`, "", "broken JSON"},
		{"bare text as JSON", JSON, "t", "open", "", "broken JSON"},
		{"JSON scalar", JSON, "t", "7", "t=int:7", ""},

		{"SenML", Auto, "", `[{"bn":"dev:","bt":1763806500,"bu":"Cel","n":"a","v":1.5,"t":4},{"n":"b","u":"%RH","vs":"x"},{"n":"c","vb":false},{"n":"d","vd":"AQI"}]`,
			"a=float:1.5 Cel @1763806504000; b=string:x %RH @1763806500000; c=bool:false Cel @1763806500000; d=bytes:AQI= Cel @1763806500000", ""},
		{"SenML relative time", Auto, "", `[{"n":"a","t":-5,"v":1},{"n":"b","t":0,"v":1}]`, "a=int:1 @1795342499000; b=int:1", ""},
		{"SenML base value and sum", Auto, "", `[{"bv":20,"bs":100,"n":"a","v":1,"s":2},{"n":"b","s":3}]`, "a=int:21; a.sum=int:102; b.sum=int:103", ""},
		{"SenML base record", Auto, "", `[{"bn":"dev/"},{"n":"a","v":1}]`, "a=int:1", ""},
		{"SenML name of another thing", Auto, "", `[{"n":"device-2:a","v":1}]`, "device-2:a=int:1", ""},
		{"SenML name is the device", Auto, "t", `[{"n":"dev","v":1}]`, "t=int:1", ""},
		{"SenML without any name", Auto, "", `[{"v":1}]`, "", "record 0: has no name"},
		{"SenML must understand", Auto, "", `[{"n":"a","v":1,"x_":1}]`, "", "x_ must be understood"},
		{"SenML unknown field", Auto, "", `[{"n":"a","v":1,"x":[1]}]`, "a=int:1", ""},
		{"SenML two values", Auto, "", `[{"n":"a","v":1,"vs":"x"}]`, "", "second value"},
		{"SenML no value", Auto, "", `[{"n":"a"}]`, "", "has no value"},
		{"SenML wrong type", Auto, "", `[{"n":"a","v":"1"}]`, "", "v is not a number"},
		{"SenML version", Auto, "", `[{"bver":11,"n":"a","v":1}]`, "", "above 10"},
		{"SenML empty record", Auto, "", `[{}]`, "", "is empty"},
		{"SenML record is a number", Auto, "", `[1]`, "", "not an object"},
		{"SenML value is an array", Auto, "", `[{"n":"a","v":[]}]`, "", "not a single value"},
		{"SenML boolean is a string", Auto, "", `[{"n":"a","vb":"true"}]`, "", "wrong type"},
		{"SenML data is not base64", Auto, "", `[{"n":"a","vd":"!"}]`, "", "base64url"},
		{"SenML name is a number", Auto, "", `[{"n":1,"v":1}]`, "", "n is not a string"},
		{"SenML long name", Auto, "", `[{"bn":"` + strings.Repeat("n", 257) + `"}]`, "", "256 bytes"},
		{"SenML time is a string", Auto, "", `[{"n":"a","v":1,"t":"x"}]`, "", "t is not a number"},
		{"SenML 257 records", Auto, "", `[` + strings.Repeat(`{"n":"a","v":1},`, 256) + `{"n":"a","v":1}]`, "", "more than 256"},
		{"SenML 129 records with sums", Auto, "", `[` + strings.Repeat(`{"n":"a","v":1,"s":1},`, 128) + `{"n":"a","v":1}]`, "", "more than 256"},
		{"SenML empty", Auto, "", `[]`, "", ""},
		{"SenML base value overflows to a float", Auto, "", `[{"bv":9223372036854775807,"n":"a","v":1}]`, "a=float:9223372036854776000", ""},
		{"object as SenML", SenMLJSON, "", `{"n":"a"}`, "", "not an array"},

		{"SenML CBOR as in RFC 8428, section 6", SenMLCBOR, "", unhex("82" +
			"a7 21 781b 75726e3a6465763a6f773a3130653230373361303130383030363a 22 fb41d303a15b001062 23 6141 20 05 00 67766f6c74616765 01 6156 02 fb405e066666666666" +
			"a3 00 6763757272656e74 06 24 02 fb3ff3333333333333"),
			"urn:dev:ow:10e2073a0108006:voltage=float:120.1 V @1276020076001; urn:dev:ow:10e2073a0108006:current=float:1.2 A @1276020071001", ""},
		{"SenML CBOR", Auto, "", unhex("82a321646465763a0061610201a2006162 04f5"), "a=int:1; b=bool:true", ""},
		{"SenML CBOR decimal fraction", Auto, "", unhex("81a200616102c4822119 03e9"), "a=float:10.01", ""},
		{"SenML CBOR unknown label", Auto, "", unhex("81a3006161020118 6400"), "a=int:1", ""},
		{"CBOR map", Auto, "", unhex("a2616201 61 61 fb4035800000000000"), "a=float:21.5; b=int:1", ""},
		{"CBOR value object", Auto, "t", unhex("a1617620"), "t=int:-1", ""},
		{"CBOR scalar", CBOR, "t", unhex("1a000f4240"), "t=int:1000000", ""},
		{"CBOR NaN", CBOR, "t", unhex("f97e00"), "", "not finite"},
		{"CBOR duplicate keys", CBOR, "", unhex("a2616101616102"), "", "broken CBOR"},
		{"CBOR integer keys in a plain map", CBOR, "", unhex("a10102"), "", "not text"},
		{"CBOR scalars of every kind", CBOR, "", unhex("88 f4 f6 4101 fa40490000 f93c00 3903e7 1bffffffffffffffff 6161"), "", "is not an object"},
		{"CBOR array in a map", CBOR, "", unhex("a1616c 87 f5 f6 4101 fa3fc00000 3903e7 1bffffffffffffffff a0"),
			"l.0=bool:true; l.2=bytes:AQ==; l.3=float:1.5; l.4=int:-1000; l.5=uint:18446744073709551615", ""},
		{"CBOR date tag", CBOR, "t", unhex("c11a514b67b0"), "", "no reading can hold"},
		{"CBOR unknown tag", CBOR, "t", unhex("d8648101"), "", "tag 100"},
		{"CBOR decimal fraction of texts", CBOR, "t", unhex("c48261616162"), "", "tag 4"},
		{"CBOR undefined", CBOR, "t", unhex("f7"), "", ""},
		{"SenML CBOR base labels", SenMLCBOR, "", unhex("81a620 05 24 01 25 02 0061 61 0203 05 04"), "a=int:4; a.sum=int:6", ""},
		{"SenML CBOR label of bytes", SenMLCBOR, "", unhex("81a1410102"), "", "neither text nor integer"},
		{"CBOR claims a long array", CBOR, "", unhex("9b7fffffffffffffff"), "", "broken CBOR"},
		{"CBOR too deep", CBOR, "", unhex("818181818181818181818101"), "", "broken CBOR"},
		{"CBOR indefinite length", CBOR, "", unhex("bf616101ff"), "a=int:1", ""},
		{"CBOR text that is not UTF-8", CBOR, "t", unhex("61ff"), "", "broken CBOR"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			rs, err := Decode(tt.format, []byte(tt.in), Hints{Device: "dev", Name: tt.name, Now: now})
			if got := show(rs); got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Decode(%q) = %q, %v; want %q, error with %q", tt.in, got, err, tt.want, tt.err)
			}
		})
	}
}

// numbered returns n members of an object, named by their number.
func numbered(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, `"%d":%d,`, i, i)
	}
	return s.String()
}

func unhex(s string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestFormatOfMediaTypes(t *testing.T) {
	for in, want := range map[string]Format{
		"application/senml+cbor":          SenMLCBOR,
		"Application/JSON; charset=utf-8": JSON,
		"text/plain":                      Text,
		"":                                Auto,
		"image/png":                       Auto,
	} {
		if got := FormatOf(in); got != want {
			t.Errorf("FormatOf(%q) = %d, want %d", in, got, want)
		}
	}
}

// checkDecoded holds what every caller relies on: valid parts, bounded count.
func checkDecoded(t *testing.T, f Format, name string, in []byte) {
	rs, err := Decode(f, in, Hints{Device: "dev", Name: name, Now: now})
	if err != nil && len(rs) > 0 {
		t.Fatalf("Decode(%q) = %d readings and %v", in, len(rs), err)
	}
	if len(rs) > MaxReadings {
		t.Fatalf("Decode(%q) = %d readings", in, len(rs))
	}
	for _, r := range rs {
		if verr := r.Validate(); verr != nil && len(r.Value.AsString()) <= reading.MaxText {
			t.Fatalf("Decode(%q) gave %+v: %v", in, r, verr)
		}
		if r.Value.Kind() == reading.KindBytes && len(r.Value.AsString()) > len(in) {
			t.Fatalf("Decode(%q) gave more bytes than it was given", in)
		}
	}
}

func FuzzDecodeJSON(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,2,"x\u00e9"]},"c":1e3,"d":true,"e":null}`), "")
	f.Add([]byte(`{"v":21.5,"u":"Cel","t":1763806504}`), "t")
	f.Fuzz(func(t *testing.T, in []byte, name string) {
		if name != "" {
			name = "t"
		}
		checkDecoded(t, JSON, name, in)
		checkDecoded(t, Auto, name, in)
	})
}

func FuzzDecodeScalar(f *testing.F) {
	f.Add([]byte("21.5"))
	f.Add([]byte(`"text"`))
	f.Fuzz(func(t *testing.T, in []byte) { checkDecoded(t, Text, "t", in) })
}

func FuzzDecodeSenMLJSON(f *testing.F) {
	f.Add([]byte(`[{"bn":"dev:","bt":1.7e9,"bu":"Cel","bv":1,"bs":2,"bver":10,"n":"a","v":1.5,"t":4,"ut":1},{"n":"d","vd":"AQI","s":1}]`))
	f.Fuzz(func(t *testing.T, in []byte) { checkDecoded(t, SenMLJSON, "", in) })
}

func FuzzDecodeCBOR(f *testing.F) {
	f.Add([]byte(unhex("82a321646465763a0061610201a200616204f5")), true)
	f.Add([]byte(unhex("a26162016161fb4035800000000000")), false)
	f.Fuzz(func(t *testing.T, in []byte, senml bool) {
		format := CBOR
		if senml {
			format = SenMLCBOR
		}
		checkDecoded(t, format, "", in)
		checkDecoded(t, format, "t", in)
	})
}

// The shapes that devices send most, on the way of every acknowledgement.
func BenchmarkDecode(b *testing.B) {
	for _, bb := range []struct{ what, name, in string }{
		{"scalar", "t", "21.5"},
		{"value object", "t", `{"v":21.5,"u":"Cel","t":1763806504.12}`},
		{"fields", "", `{"t":21.5,"on":true,"s":"x","deep":{"a":{"b":1}}}`},
		{"SenML", "", `[{"bn":"dev:","bt":1763806500,"bu":"Cel","n":"a","v":1.5,"t":4},{"n":"b","v":2}]`},
	} {
		b.Run(bb.what, func(b *testing.B) {
			b.ReportAllocs()
			in := []byte(bb.in)
			for b.Loop() {
				if _, err := Decode(Auto, in, Hints{Device: "dev", Name: bb.name, Now: now}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
