package stardust

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func id(b byte) BlockID { return BlockID(bytes.Repeat([]byte{b}, 32)) }

func ids(n int) []BlockID {
	out := make([]BlockID, n)
	for i := range out {
		out[i] = id(byte(i))
	}
	return out
}

func TestBlockThatBreaksARuleIsNotEncoded(t *testing.T) {
	for _, tt := range []struct {
		name  string
		block Block
		err   error
		text  string
	}{
		{"version", Block{Version: 3, Parents: ids(1)}, ErrUnsupported, "protocolVersion: 3"},
		{"no parents", Block{Version: 2}, ErrSyntax, "parents: 0"},
		{"nine parents", Block{Version: 2, Parents: ids(9)}, ErrSyntax, "parents: 9"},
		{"unsorted", Block{Version: 2, Parents: []BlockID{id(1), id(0)}}, ErrSyntax, "parents[1]: below"},
		{"twice", Block{Version: 2, Parents: []BlockID{id(0), id(1), id(1)}}, ErrSyntax, "parents[2]: same"},
		{"tag", Block{Version: 2, Parents: ids(1), Payload: &TaggedData{Tag: make([]byte, 65)}}, ErrSyntax, "payload.tag: 65"},
		{"one byte too large", Block{Version: 2, Parents: ids(1), Payload: &TaggedData{Data: make([]byte, 32714)}}, ErrTooLarge, "32769"},
		{"data beyond any block", Block{Version: 2, Parents: ids(1), Payload: &TaggedData{Data: make([]byte, 1<<20)}}, ErrSyntax, "payload.data"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dst := []byte("kept")
			out, err := tt.block.AppendBinary(dst)
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("AppendBinary: %v; want %v with %q", err, tt.err, tt.text)
			}
			if string(out) != "kept" {
				t.Errorf("AppendBinary = %q, want dst unchanged", out)
			}
		})
	}
}

func TestLargestBlockIsAcceptedAndOneByteMoreIsNot(t *testing.T) {
	b := Block{Version: 2, Parents: ids(1), Payload: &TaggedData{Data: make([]byte, 32713)}}
	raw, err := b.AppendBinary(nil)
	if err != nil || len(raw) != MaxBlockSize {
		t.Fatalf("AppendBinary: %d bytes, %v; want %d", len(raw), err, MaxBlockSize)
	}
	if _, err := ParseBlock(raw); err != nil {
		t.Errorf("ParseBlock of %d bytes: %v", len(raw), err)
	}
	if _, err := ParseBlock(append(raw, 0)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("ParseBlock of %d bytes: %v, want %v", len(raw)+1, err, ErrTooLarge)
	}
}

func TestBlockWithoutPayloadIsFortySixBytes(t *testing.T) {
	b := Block{Version: 2, Parents: ids(1), Nonce: 7}
	raw, err := b.AppendBinary(nil)
	if err != nil || len(raw) != 46 {
		t.Fatalf("AppendBinary: %d bytes, %v; want 46", len(raw), err)
	}
	got, err := ParseBlock(raw)
	if err != nil || !reflect.DeepEqual(got, &b) {
		t.Errorf("ParseBlock = %+v, %v; want %+v", got, err, b)
	}
}

// A claimed length must not decide how much is allocated.
func TestClaimedLengthsAllocateNothing(t *testing.T) {
	var lies [][]byte
	head := append([]byte{2, 1}, make([]byte, 32)...)
	lies = append(lies,
		[]byte{2, 8},
		append(bytes.Clone(head), 0xff, 0xff, 0xff, 0xff, 5, 0, 0, 0),
		append(bytes.Clone(head), 9, 0, 0, 0, 5, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0),
	)
	for _, raw := range lies {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ParseBlock(raw)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrTruncated) {
			t.Errorf("ParseBlock(%x): %v, want %v", raw, err, ErrTruncated)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
			t.Errorf("ParseBlock(%x) allocates %d bytes", raw, n)
		}
	}
}

// Every length must be used up: bytes that nobody reads would give one block
// many ids.
func TestBytesThatNobodyReadsAreRefused(t *testing.T) {
	head := append([]byte{2, 1}, make([]byte, 32)...)
	nonce := make([]byte, nonceSize)
	for name, raw := range map[string][]byte{
		"after the nonce":              slices.Concat(head, []byte{0, 0, 0, 0}, nonce, []byte{0}),
		"after the data":               slices.Concat(head, []byte{10, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 7}, nonce),
		"in a payload of length 0":     slices.Concat(head, []byte{0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0}, nonce),
		"of a tag that claims no data": slices.Concat(head, []byte{11, 0, 0, 0, 5, 0, 0, 0, 1, 'a', 0, 0, 0, 0, 7}, nonce),
	} {
		if b, err := ParseBlock(raw); !errors.Is(err, ErrSyntax) {
			t.Errorf("bytes %s: %+v, %v; want ErrSyntax", name, b, err)
		}
	}
}

func TestUnsupportedPayloadsAreRefusedByName(t *testing.T) {
	for typ, text := range map[byte]string{6: "payload type 6 (transaction) not supported", 7: "payload type 7 (milestone) not supported", 4: "payload.type: 4 is unknown"} {
		raw := append([]byte{2, 1}, make([]byte, 32)...)
		raw = append(raw, 4, 0, 0, 0, typ, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		if _, err := ParseBlock(raw); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), text) {
			t.Errorf("ParseBlock with payload %d: %v, want %q", typ, err, text)
		}
	}
}

func TestParsedBlockSharesNoMemory(t *testing.T) {
	b := Block{Version: 2, Parents: ids(2), Payload: &TaggedData{Tag: []byte("tag"), Data: []byte("data")}}
	raw, err := b.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseBlock(raw)
	if err != nil {
		t.Fatal(err)
	}
	clear(raw)
	if !reflect.DeepEqual(got, &b) {
		t.Errorf("block changed with its bytes: %+v", got)
	}
}

func TestBlockIDText(t *testing.T) {
	want := id(0xab)
	s := "0x" + strings.Repeat("ab", 32)
	for _, in := range []string{s, "0x" + strings.Repeat("AB", 32)} {
		if got, err := ParseBlockID(in); err != nil || got != want {
			t.Errorf("ParseBlockID(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	if want.String() != s {
		t.Errorf("String = %s, want %s", want, s)
	}
	for _, in := range []string{"", "0x", s[2:], s + "0", s[:65], "0X" + s[2:], "0x" + strings.Repeat("zz", 32)} {
		if _, err := ParseBlockID(in); !errors.Is(err, ErrSyntax) {
			t.Errorf("ParseBlockID(%q): %v, want %v", in, err, ErrSyntax)
		}
	}
}

func TestSortParentsSortsAndKeepsEachOnce(t *testing.T) {
	in := []BlockID{id(3), id(1), id(3), id(2), id(1)}
	before := slices.Clone(in)
	if got, want := SortParents(in), []BlockID{id(1), id(2), id(3)}; !slices.Equal(got, want) {
		t.Errorf("SortParents = %v, want %v", got, want)
	}
	if !slices.Equal(in, before) {
		t.Errorf("SortParents changed its argument to %v", in)
	}
}

func TestJSONOfClientsIsTolerated(t *testing.T) {
	p := `"` + id(1).String() + `"`
	for _, tt := range []struct {
		name, in string
		want     Block
	}{
		{"version alone", `{"protocolVersion":2}`, Block{Version: 2}},
		{"empty parents and nonce", `{"protocolVersion":2,"parents":[],"nonce":""}`, Block{Version: 2}},
		{"nulls", `{"protocolVersion":2,"parents":null,"payload":null,"nonce":null}`, Block{Version: 2}},
		{"nonce 0", `{"protocolVersion":2,"parents":[` + p + `],"nonce":"0"}`, Block{Version: 2, Parents: []BlockID{id(1)}}},
		{"largest nonce", `{"protocolVersion":2,"nonce":"18446744073709551615"}`, Block{Version: 2, Nonce: math.MaxUint64}},
		{"empty tag and data", `{"protocolVersion":2,"payload":{"type":5,"tag":"0x","data":"0x"}}`, Block{Version: 2, Payload: &TaggedData{}}},
		{"unknown fields", `{"protocolVersion":2,"x":{},"payload":{"type":5,"y":1}}`, Block{Version: 2, Payload: &TaggedData{}}},
		{"upper-case hex", `{"protocolVersion":2,"payload":{"type":5,"tag":"0xAB"}}`, Block{Version: 2, Payload: &TaggedData{Tag: []byte{0xab}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got Block
			if err := json.Unmarshal([]byte(tt.in), &got); err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s = %+v, %v; want %+v", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestJSONErrorNamesTheField(t *testing.T) {
	a, b := `"`+id(1).String()+`"`, `"`+id(2).String()+`"`
	nine := strings.TrimSuffix(strings.Repeat(a+",", 9), ",")
	for _, tt := range []struct {
		in, text string
		err      error
	}{
		{`[]`, "block: unexpected array", ErrSyntax},
		{`null`, "protocolVersion: missing", ErrSyntax},
		{`{}`, "protocolVersion: missing", ErrSyntax},
		{`{"protocolVersion":3}`, "protocolVersion: 3, want 2", ErrUnsupported},
		{`{"protocolVersion":258}`, "protocolVersion: 258, want 2", ErrUnsupported},
		{`{"protocolVersion":"2"}`, "protocolVersion: unexpected string", ErrSyntax},
		{`{"protocolVersion":2,"parents":"x"}`, "parents: unexpected string", ErrSyntax},
		{`{"protocolVersion":2,"parents":[` + a + `,"0x12"]}`, "parents[1]: block id of 4 characters", ErrSyntax},
		{`{"protocolVersion":2,"parents":[7]}`, "parents[0]: want a string", ErrSyntax},
		{`{"protocolVersion":2,"parents":[` + b + `,` + a + `]}`, "parents[1]: below parents[0]", ErrSyntax},
		{`{"protocolVersion":2,"parents":[` + nine + `]}`, "parents: 9 of them", ErrSyntax},
		{`{"protocolVersion":2,"nonce":5}`, "nonce: want a string", ErrSyntax},
		{`{"protocolVersion":2,"nonce":"-1"}`, "nonce: want a decimal number", ErrSyntax},
		{`{"protocolVersion":2,"nonce":"18446744073709551616"}`, "nonce: want a decimal number", ErrSyntax},
		{`{"protocolVersion":2,"payload":[]}`, "payload: unexpected array", ErrSyntax},
		{`{"protocolVersion":2,"payload":{}}`, "payload.type: missing", ErrSyntax},
		{`{"protocolVersion":2,"payload":{"type":"5"}}`, "payload.type: unexpected string", ErrSyntax},
		{`{"protocolVersion":2,"payload":{"type":-1}}`, "payload.type: unexpected number -1", ErrSyntax},
		{`{"protocolVersion":2,"payload":{"type":6}}`, "payload type 6 (transaction) not supported", ErrUnsupported},
		{`{"protocolVersion":2,"payload":{"type":5,"tag":"ab"}}`, "payload.tag: want 0x", ErrSyntax},
		{`{"protocolVersion":2,"payload":{"type":5,"tag":"0xabc"}}`, "payload.tag: encoding/hex: odd length", ErrSyntax},
		{`{"protocolVersion":2,"payload":{"type":5,"tag":"0x` + strings.Repeat("00", 65) + `"}}`, "payload.tag: 65 bytes", ErrSyntax},
		{`{"protocolVersion":2,"payload":{"type":5,"data":1}}`, "payload.data: want a string", ErrSyntax},
		{`{"protocolVersion":2,"payload":{"type":5,"data":"0x` + strings.Repeat("00", 32769) + `"}}`, "payload.data: 32769 bytes", ErrSyntax},
		{`{"protocolVersion":2,"payload":{"type":5,"data":"0x` + strings.Repeat("00", 32768) + `"}}`, "block of 32791 bytes", ErrTooLarge},
	} {
		got := Block{Version: 2, Nonce: 99}
		err := json.Unmarshal([]byte(tt.in), &got)
		if err == nil || !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%.100s: %v; want %v with %q", tt.in, err, tt.err, tt.text)
		}
		if got.Nonce != 99 {
			t.Errorf("%.100s: block changed by an error", tt.in)
		}
	}
}

func TestJSONOfEmptyPartsIsLeftOut(t *testing.T) {
	for _, tt := range []struct {
		block Block
		want  string
	}{
		{Block{Version: 2}, `{"protocolVersion":2,"parents":[],"nonce":"0"}`},
		{Block{Version: 2, Payload: &TaggedData{}}, `{"protocolVersion":2,"parents":[],"payload":{"type":5},"nonce":"0"}`},
	} {
		if got, err := json.Marshal(tt.block); err != nil || string(got) != tt.want {
			t.Errorf("JSON = %s, %v; want %s", got, err, tt.want)
		}
	}
}

// What ParseBlock accepts must encode back to the bytes, and go through JSON
// unchanged.
func FuzzParseBlock(f *testing.F) {
	for _, b := range validBlocks(f) {
		f.Add(unhex(f, b.Serialized))
	}
	suspects, _ := suspectBlocks(f)
	for _, b := range suspects {
		f.Add(unhex(f, b.Serialized))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := ParseBlock(raw)
		if err != nil {
			checkSentinel(t, err)
			return
		}
		if out, err := b.AppendBinary(nil); err != nil || !bytes.Equal(out, raw) {
			t.Errorf("encoded %x, %v; parsed from %x", out, err, raw)
		}
		text, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		var back Block
		if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(&back, b) {
			t.Errorf("%s gives %+v, %v; want %+v", text, back, err, b)
		}
	})
}

// What UnmarshalJSON accepts must come back from MarshalJSON, and be
// encodable unless only parents are missing.
func FuzzBlockJSON(f *testing.F) {
	for _, b := range validBlocks(f) {
		f.Add([]byte(b.JSON))
	}
	f.Add([]byte(`{"protocolVersion":2,"parents":[],"payload":{"type":5,"tag":"0x","data":"0x"},"nonce":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var b Block
		if err := b.UnmarshalJSON(text); err != nil {
			checkSentinel(t, err)
			return
		}
		out, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		var back Block
		if err := json.Unmarshal(out, &back); err != nil || !reflect.DeepEqual(back, b) {
			t.Errorf("%s gives %+v, %v; want %+v", out, back, err, b)
		}
		if len(b.Parents) == 0 {
			return
		}
		raw, err := b.AppendBinary(nil)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if again, err := ParseBlock(raw); err != nil || !reflect.DeepEqual(again, &b) {
			t.Errorf("ParseBlock(%x) = %+v, %v; want %+v", raw, again, err, b)
		}
	})
}

func checkSentinel(t *testing.T, err error) {
	t.Helper()
	for _, s := range []error{ErrTruncated, ErrSyntax, ErrTooLarge, ErrUnsupported} {
		if errors.Is(err, s) {
			return
		}
	}
	t.Errorf("%v wraps none of the package's errors", err)
}
