package envelope

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/veraison/go-cose"
	"golang.org/x/crypto/blake2b"
	"pgregory.net/rapid"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

var (
	testKey         = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	testGenesis     = [32]byte{1, 2, 3}
	testIncarnation = [8]byte{8, 7, 6, 5, 4, 3, 2, 1}
	testSecret      = [16]byte{0xaa, 0xbb}
)

func testSealer(t testing.TB, gateway string) *Sealer {
	t.Helper()
	s, err := NewSealer(gateway, testKey, testGenesis, testIncarnation)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func expect() Expect {
	return Expect{Genesis: testGenesis, Key: testKey.Public().(ed25519.PublicKey)}
}

func float(f float64) reading.Value {
	v, err := reading.Float(f)
	if err != nil {
		panic(err)
	}
	return v
}

func text(s string) reading.Value {
	v, err := reading.String(s)
	if err != nil {
		panic(err)
	}
	return v
}

func reads(n int) []reading.Reading {
	rs := make([]reading.Reading, n)
	for i := range rs {
		rs[i] = reading.Reading{
			Seq: 1000 + uint64(i), Device: fmt.Sprintf("probe-%d", i%7), Name: "temperature", Unit: "Cel",
			Value: float(20 + float64(i%50)/8), Received: 1764000000000 + int64(i)*13, Auth: reading.AuthPassword,
		}
	}
	return rs
}

// drawReading makes any reading that a gateway could store.
func drawReading(t *rapid.T) reading.Reading {
	some := func(label string, least, most int) string {
		return rapid.StringOfN(rapid.RuneFrom([]rune("ab-._x:/_ é€\x01𝄞 5F")), least, most/4, most).Draw(t, label)
	}
	r := reading.Reading{
		Device:   some("device", 1, reading.MaxDevice),
		Name:     some("name", 1, reading.MaxName),
		Unit:     some("unit", 0, reading.MaxUnit),
		Received: rapid.Int64Range(0, 1<<45).Draw(t, "received"),
		Clock:    reading.Clock(rapid.IntRange(0, 2).Draw(t, "clock")),
		Auth:     reading.Auth(rapid.IntRange(0, 3).Draw(t, "auth")),
	}
	if rapid.Bool().Draw(t, "timed") {
		r.Time = rapid.Int64Range(1, 1<<45).Draw(t, "time")
	}
	switch rapid.IntRange(0, 6).Draw(t, "kind") {
	case 0:
		r.Value = reading.Int(rapid.Int64().Draw(t, "int"))
	case 1:
		r.Value = reading.Uint(rapid.Uint64().Draw(t, "uint"))
	case 2:
		r.Value = float(rapid.Float64().Filter(func(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }).Draw(t, "float"))
	case 3:
		r.Value = float(float64(rapid.Float32().Filter(func(f float32) bool { return f-f == 0 }).Draw(t, "float32")))
	case 4:
		r.Value = reading.Bool(rapid.Bool().Draw(t, "bool"))
	case 5:
		r.Value = text(some("text", 0, 400))
	case 6:
		r.Value = reading.Bytes(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes"))
		r.Err = some("err", 0, reading.MaxErr)
	}
	return r
}

func TestOpenReturnsWhatWasSealed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gateway := rapid.StringMatching(`[A-Za-z0-9._-]{1,32}`).Draw(t, "gateway")
		rs := rapid.SliceOfN(rapid.Custom(drawReading), 1, 30).Draw(t, "readings")
		seq := rapid.Uint64Range(1, 1<<40).Draw(t, "seq")
		for i := range rs {
			rs[i].Seq = seq
			seq += rapid.SampledFrom([]uint64{1, 1, 1, 2, 300}).Draw(t, "step")
		}
		s, err := NewSealer(gateway, testKey, testGenesis, testIncarnation)
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.Draft(testSecret, rs)
		if err != nil {
			t.Fatal(err)
		}
		n := rapid.IntRange(1, len(rs)).Draw(t, "n")
		data, err := d.Seal(n)
		if err != nil {
			t.Fatal(err)
		}
		if d.Size(n) != len(data) {
			t.Fatalf("Size(%d) = %d, Seal made %d bytes", n, d.Size(n), len(data))
		}
		want := expect()
		want.Gateway = gateway
		b, err := Open(data, want)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		if !slices.Equal(b.Readings, rs[:n]) {
			t.Fatalf("Open gave\n%+v, sealed\n%+v", b.Readings, rs[:n])
		}
		if b.Secret != testSecret || b.Incarnation != testIncarnation || b.Count != n || !slices.Equal(b.Runs, d.Runs(n)) {
			t.Fatalf("Open gave %+v", b)
		}
	})
}

// The contract spelled out with generic decoders and hand-made hashes.
func TestEnvelopeIsAsTheContractSays(t *testing.T) {
	rs := []reading.Reading{
		{Seq: 5, Device: "probe-3", Name: "temperature", Value: float(21.5), Unit: "Cel", Time: 1764000000000, Received: 1764000000233},
		{Seq: 6, Device: "a:b", Name: "x_x y", Value: reading.Bytes([]byte{0xff}), Received: 3, Clock: reading.ClockBad, Auth: reading.AuthX509, Err: "no number"},
		{Seq: 9, Device: "d", Name: "n", Value: reading.Bool(false), Time: 1764000000120, Received: 4, Clock: reading.ClockUnsure, Auth: reading.AuthPSK},
	}
	data, err := testSealer(t, "barn-7").Seal(testSecret, rs)
	if err != nil {
		t.Fatal(err)
	}
	var msg cose.Sign1Message
	if err := msg.UnmarshalCBOR(data); err != nil {
		t.Fatal(err)
	}
	pub := testKey.Public().(ed25519.PublicKey)
	if alg, _ := msg.Headers.Protected.Algorithm(); alg != cose.AlgorithmEdDSA || len(msg.Headers.Protected) != 2 || len(msg.Headers.Unprotected) != 0 {
		t.Errorf("headers %v", msg.Headers)
	}
	if kid := msg.Headers.Protected[cose.HeaderLabelKeyID]; !bytes.Equal(kid.([]byte), pub) {
		t.Errorf("kid %x, want %x", kid, pub)
	}
	verifier, err := cose.NewVerifier(cose.AlgorithmEdDSA, pub)
	if err != nil {
		t.Fatal(err)
	}
	if err := msg.Verify(append([]byte("hedgerow-batch-1"), testGenesis[:]...), verifier); err != nil {
		t.Errorf("Verify: %v", err)
	}
	var m map[int]any
	if err := cbor.Unmarshal(msg.Payload, &m); err != nil {
		t.Fatal(err)
	}
	if m[1] != "barn-7" || fmt.Sprint(m[2]) != "[5 2 2 1]" || m[3] != uint64(3) || m[5] != uint64(0) || !bytes.Equal(m[8].([]byte), testIncarnation[:]) {
		t.Errorf("payload %v", m)
	}
	body := m[6].([]byte)
	if m[7] == uint64(1) {
		dec, _ := zstd.NewReader(nil)
		defer dec.Close()
		if body, err = dec.DecodeAll(body, nil); err != nil {
			t.Fatal(err)
		}
	}
	var parts []cbor.RawMessage
	var records []cbor.RawMessage
	if err := errors.Join(cbor.Unmarshal(body, &parts), cbor.Unmarshal(parts[1], &records)); err != nil {
		t.Fatal(err)
	}
	var leaves [][]byte
	for i, rec := range records {
		h, _ := blake2b.New256(testSecret[:])
		h.Write(binary.LittleEndian.AppendUint32(nil, uint32(i)))
		leaves = append(leaves, append(h.Sum(nil)[:16], rec...))
	}
	if root := stardust.MerkleRoot(leaves); !bytes.Equal(m[4].([]byte), root[:]) {
		t.Errorf("root %x, want %x", m[4], root)
	}
	for i, want := range []string{
		`{0: "barn-7:probe-3:temperature", 1: "Cel", 2: 21.5_1, 6: 1764000000, "ha": "none", "hq": 0, "hr": 1764000000233, "hs": 5}`,
		`{0: "barn-7:a_x3Ab:x_x5Fx_x20y", 8: h'ff', "ha": "x509", "he": "no number", "hq": 2, "hr": 3, "hs": 6}`,
		`{0: "barn-7:d:n", 4: false, 6: 1764000000.12_3, "ha": "psk", "hq": 1, "hr": 4, "hs": 9}`,
	} {
		mode, err := cbor.DiagOptions{FloatPrecisionIndicator: true}.DiagMode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := mode.Diagnose(records[i]); err != nil || got != want {
			t.Errorf("record %d is\n%s, want\n%s (%v)", i, got, want, err)
		}
	}
}

func TestNumbersHaveTheirShortestForm(t *testing.T) {
	for _, tt := range []struct {
		v    reading.Value
		want string // the encoding of label 2's value
	}{
		{reading.Int(0), "00"},
		{reading.Int(-1), "20"},
		{reading.Int(math.MaxInt64), "1b7fffffffffffffff"},
		{reading.Int(math.MinInt64), "3b7fffffffffffffff"},
		{reading.Uint(math.MaxUint64), "1bffffffffffffffff"},
		{float(3), "03"},
		{float(math.Copysign(0, -1)), "00"},
		{float(21.5), "f94d60"},
		{float(0.1), "fb3fb999999999999a"},
		{float(float64(float32(0.1))), "fa3dcccccd"},
		{float(5.960464477539063e-8), "f90001"}, // smallest half
		{float(1 << 53), "fa5a000000"},
		{float(1e300), "fb7e37e43c8800759c"},
	} {
		r := reading.Reading{Device: "d", Name: "n", Value: tt.v}
		raw, err := AppendRecord(nil, "g", &r)
		if err != nil {
			t.Fatal(err)
		}
		var m map[any]cbor.RawMessage
		if err := cbor.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(m[uint64(2)]); got != tt.want {
			t.Errorf("%v is %s, want %s", tt.v.Text(), got, tt.want)
		}
		if back, err := ParseRecord(raw, "g"); err != nil || back != r {
			t.Errorf("ParseRecord(%x) = %+v, %v; want %+v", raw, back, err, r)
		}
	}
}

func TestNamesCanBeTakenApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in [3]string
		for i := range in {
			in[i] = rapid.OneOf(rapid.String(), rapid.StringMatching(`[_x:F5a]*`)).Draw(t, "part")
		}
		in[0] = rapid.StringMatching(`[a-z_x]{1,9}`).Draw(t, "gateway")
		name := string(appendName(nil, in[0], in[1], in[2]))
		for i := range len(name) {
			if !inAlphabet(name[i]) {
				t.Fatalf("%q is outside SenML's alphabet", name)
			}
		}
		g, d, n, err := splitName(name)
		if err != nil || [3]string{g, d, n} != in {
			t.Fatalf("splitName(%q) = %q %q %q, %v; want %q", name, g, d, n, err, in)
		}
	})
}

// The largest reading that batching accepts, with nothing to compress, fits
// into a block with eight parents.
func TestLargestReadingFitsIntoABlock(t *testing.T) {
	noise := make([]byte, 28<<10)
	for i := range len(noise) / 32 {
		sum := blake2b.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(i)))
		copy(noise[i*32:], sum[:])
	}
	odd := func(n int) string { return string(bytes.Repeat([]byte{1}, n)) }
	r := reading.Reading{
		Seq: math.MaxUint64 - 1, Device: odd(reading.MaxDevice), Name: odd(reading.MaxName), Unit: odd(reading.MaxUnit), Err: odd(reading.MaxErr),
		Value: reading.Bytes(noise), Time: maxTime - 1, Received: math.MaxInt64, Auth: reading.AuthPassword,
	}
	gateway := string(bytes.Repeat([]byte("_x"), 16))
	data, err := testSealer(t, gateway).Seal(testSecret, []reading.Reading{r})
	if err != nil {
		t.Fatal(err)
	}
	block := stardust.Block{Parents: make([]stardust.BlockID, stardust.MaxParents), Payload: &stardust.TaggedData{Tag: Tag(gateway), Data: data}}
	if block.Size() > stardust.MaxBlockSize {
		t.Errorf("block of %d bytes, at most %d", block.Size(), stardust.MaxBlockSize)
	}
	if b, err := Open(data, expect()); err != nil || b.Readings[0] != r {
		t.Errorf("Open: %v", err)
	}
}

func TestSealRefusesWhatNoBatchCanHold(t *testing.T) {
	s := testSealer(t, "g")
	big := reads(200)
	for i := range big {
		big[i].Value = text(string(bytes.Repeat([]byte("0123456789abcdef"), 512)))
	}
	noise := reads(5)
	for i := range noise {
		var b []byte
		for k := range byte(128) {
			sum := blake2b.Sum512([]byte{byte(i), k})
			b = append(b, sum[:]...)
		}
		noise[i].Value = reading.Bytes(b)
	}
	turned := reads(2)
	turned[1].Seq = turned[0].Seq
	for _, tt := range []struct {
		name string
		rs   []reading.Reading
		err  error
	}{
		{"none", nil, ErrTooLarge},
		{"too many", make([]reading.Reading, MaxReadings+1), ErrTooLarge},
		{"body over 1 MiB that compresses well", big, ErrTooLarge},
		{"40 KiB that does not compress", noise, ErrTooLarge},
		{"number twice", turned, ErrRuns},
		{"number 0", []reading.Reading{{Device: "d", Name: "n", Value: reading.Int(1)}}, ErrRuns},
		{"no value", []reading.Reading{{Seq: 1, Device: "d", Name: "n"}}, ErrRecord},
	} {
		if _, err := s.Seal(testSecret, tt.rs); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
	}
	if d, err := s.Draft(testSecret, big); err != nil || d.Size(200) != math.MaxInt || d.Size(100) > MaxData {
		t.Errorf("Size of a body that is too large: %v", err)
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, n := range []int{1, 40, 1000} {
		s, rs := testSealer(b, "barn-7"), reads(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var size int
			for b.Loop() {
				data, err := s.Seal(testSecret, rs)
				if err != nil {
					b.Fatal(err)
				}
				size = len(data)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/reading")
			b.ReportMetric(float64(size)/float64(n), "B/reading")
		})
	}
}

func BenchmarkSize(b *testing.B) {
	d, err := testSealer(b, "barn-7").Draft(testSecret, reads(40))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		d.Size(40)
	}
}

func BenchmarkOpen(b *testing.B) {
	data, err := testSealer(b, "barn-7").Seal(testSecret, reads(40))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Open(data, expect()); err != nil {
			b.Fatal(err)
		}
	}
}
