package envelope

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/veraison/go-cose"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// wrap signs any payload as an envelope.
func wrap(t testing.TB, signed []byte) []byte {
	t.Helper()
	s := testSealer(t, "barn-7")
	data, err := cose.Sign1(nil, s.signer, s.headers, signed, aad(testGenesis))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// parts is a batch taken apart, for tests that put it together wrongly.
type parts struct {
	p       payload
	secret  []byte
	records [][]byte
	root    bool // set the root that the records have
}

func goodParts(t testing.TB) parts {
	t.Helper()
	rs := reads(5)
	rs[3].Seq, rs[4].Seq = 1010, 1011
	c := parts{secret: testSecret[:], root: true, p: payload{
		Gateway: "barn-7", Runs: []uint64{1000, 3, 7, 2}, Count: 5, Incarnation: testIncarnation[:],
	}}
	for i := range rs {
		raw, err := AppendRecord(nil, "barn-7", &rs[i])
		if err != nil {
			t.Fatal(err)
		}
		c.records = append(c.records, raw)
	}
	return c
}

func (c *parts) body() []byte {
	out := appendHead(nil, majorArray, 2)
	out = append(appendHead(out, majorBytes, len(c.secret)), c.secret...)
	out = appendHead(out, majorArray, len(c.records))
	return append(out, bytes.Join(c.records, nil)...)
}

func (c *parts) signed(t testing.TB) []byte {
	t.Helper()
	if c.p.Body == nil {
		c.p.Body = c.body()
	}
	if c.root {
		root := Root([16]byte(append(slices.Clone(c.secret), make([]byte, 16)...)), c.records)
		c.p.Root = root[:]
	}
	raw, err := encoding.Marshal(&c.p)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func frame(t testing.TB, body []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	return enc.EncodeAll(body, nil)
}

func TestOpenRefusesWrongContent(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(c *parts)
		err    error // nil: accepted
	}{
		{"nothing wrong", func(c *parts) {}, nil},
		{"compressed by another compressor", func(c *parts) {
			c.p.Body, c.p.Compression = frame(t, c.body()), compressZstd
		}, nil},
		{"mode encrypted", func(c *parts) { c.p.Mode = 1 }, ErrMode},
		{"mode digest", func(c *parts) { c.p.Mode = 2 }, ErrMode},
		{"gateway name with a slash", func(c *parts) { c.p.Gateway = "a/b" }, ErrSyntax},
		{"no gateway name", func(c *parts) { c.p.Gateway = "" }, ErrSyntax},
		{"long gateway name", func(c *parts) { c.p.Gateway = string(bytes.Repeat([]byte("a"), 33)) }, ErrSyntax},
		{"records of another gateway", func(c *parts) { c.p.Gateway = "barn-8" }, ErrRecord},
		{"short root", func(c *parts) { c.root, c.p.Root = false, make([]byte, 31) }, ErrSyntax},
		{"wrong root", func(c *parts) { c.root, c.p.Root = false, make([]byte, 32) }, ErrRoot},
		{"short incarnation", func(c *parts) { c.p.Incarnation = nil }, ErrSyntax},
		{"unknown compression", func(c *parts) { c.p.Compression = 2 }, ErrSyntax},
		{"no runs", func(c *parts) { c.p.Runs = nil }, ErrRuns},
		{"odd runs", func(c *parts) { c.p.Runs = []uint64{1000, 3, 7} }, ErrRuns},
		{"empty run", func(c *parts) { c.p.Runs = []uint64{1000, 5, 7, 0} }, ErrRuns},
		{"number 0", func(c *parts) { c.p.Runs = []uint64{0, 5} }, ErrRuns},
		{"runs that touch", func(c *parts) { c.p.Runs = []uint64{1000, 3, 0, 2} }, ErrRuns},
		{"runs beyond uint64", func(c *parts) { c.p.Runs = []uint64{1000, 3, 1<<64 - 1, 2} }, ErrRuns},
		{"endless run", func(c *parts) { c.p.Runs, c.p.Count = []uint64{1, 1<<64 - 2}, 1<<64-2 }, ErrTooLarge},
		{"count", func(c *parts) { c.p.Count = 6 }, ErrRuns},
		{"one record fewer", func(c *parts) { c.records = c.records[:4] }, ErrRuns},
		{"unlisted number", func(c *parts) { c.p.Runs = []uint64{1000, 3, 8, 2} }, ErrUnlisted},
		{"records in another order", func(c *parts) { c.records[0], c.records[1] = c.records[1], c.records[0] }, ErrUnlisted},
		{"record twice", func(c *parts) { c.records[1] = c.records[0] }, ErrUnlisted},
		{"short secret", func(c *parts) { c.secret = c.secret[:15] }, ErrBody},
		{"body is no array", func(c *parts) { c.p.Body = []byte{0xa0} }, ErrBody},
		{"no body", func(c *parts) { c.p.Body = []byte{} }, ErrBody},
		{"byte after the body", func(c *parts) { c.p.Body = append(c.body(), 0) }, ErrBody},
		{"longer head in the body", func(c *parts) {
			c.p.Body = append([]byte{0x82, 0x58, 16}, c.body()[2:]...)
		}, ErrCanonical},
		{"frame that is no smaller", func(c *parts) {
			enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithNoEntropyCompression(true))
			if err != nil {
				t.Fatal(err)
			}
			defer enc.Close()
			c.records, c.p.Runs, c.p.Count = c.records[:1], []uint64{1000, 1}, 1
			c.p.Body, c.p.Compression = enc.EncodeAll(c.body(), nil), compressZstd
		}, ErrBody},
		{"no frame", func(c *parts) { c.p.Body, c.p.Compression = c.body(), compressZstd }, ErrBody},
		{"frame cut off", func(c *parts) {
			f := frame(t, c.body())
			c.p.Body, c.p.Compression = f[:len(f)-5], compressZstd
		}, ErrBody},
		{"byte after the frame", func(c *parts) {
			c.p.Body, c.p.Compression = append(frame(t, c.body()), 0), compressZstd
		}, ErrCanonical},
		{"two frames", func(c *parts) {
			b := c.body()
			c.p.Body, c.p.Compression = append(frame(t, b[:50]), frame(t, b[50:])...), compressZstd
		}, ErrCanonical},
		{"skippable frame first", func(c *parts) {
			c.p.Body = append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9}, frame(t, c.body())...)
			c.p.Compression = compressZstd
		}, ErrBody},
		{"skippable frame that looks like a block of content", func(c *parts) {
			f := frame(t, c.body())
			// A decompressor skips 3 bytes; read as the head of the last block
			// of a frame they say that all the rest is its content.
			c.p.Body = append([]byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, byte(len(f)<<3) | 1, byte(len(f) >> 5), 0}, f...)
			c.p.Compression = compressZstd
		}, ErrBody},
		{"bomb", func(c *parts) { c.p.Body, c.p.Compression = frame(t, make([]byte, 100<<20)), compressZstd }, ErrBody},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := goodParts(t)
			tt.change(&c)
			_, err := Open(wrap(t, c.signed(t)), expect())
			if !errors.Is(err, tt.err) {
				t.Errorf("Open: %v, want %v", err, tt.err)
			}
		})
	}
}

func TestOpenRefusesOtherEncodings(t *testing.T) {
	c := goodParts(t)
	good := c.signed(t)
	for _, tt := range []struct {
		name   string
		signed []byte
		err    error
	}{
		{"byte after the map", append(slices.Clone(good), 0), ErrSyntax},
		{"key twice", append(append([]byte{0xa9}, good[1:]...), 3, 5), ErrSyntax},
		{"unknown key", append(append([]byte{0xa9}, good[1:]...), 9, 5), ErrSyntax},
		{"keys in another order", bytes.Replace(good, []byte{3, 5, 4, 0x58, 0x20}, []byte{5, 0, 4, 0x58, 0x20}, 1), ErrSyntax},
		{"longer head of the map", append([]byte{0xb8, 8}, good[1:]...), ErrCanonical},
		{"longer integer", bytes.Replace(good, []byte{3, 5, 4}, []byte{3, 0x18, 5, 4}, 1), ErrCanonical},
		{"indefinite map", append(append([]byte{0xbf}, good[1:]...), 0xff), ErrSyntax},
		{"no map", []byte{0x80}, ErrSyntax},
		{"key missing", append([]byte{0xa7}, bytes.Replace(good[1:], []byte{3, 5, 4, 0x58}, []byte{4, 0x58}, 1)...), ErrCanonical},
		{"name is not UTF-8", bytes.Replace(good, []byte("barn-7"), []byte("barn-\xff"), 1), ErrSyntax},
		{"tagged integer", bytes.Replace(good, []byte{3, 5, 4}, []byte{3, 0xc1, 5, 4}, 1), ErrSyntax},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Open(wrap(t, tt.signed), expect()); !errors.Is(err, tt.err) {
				t.Errorf("Open: %v, want %v", err, tt.err)
			}
		})
	}
}

func TestOpenRefusesOtherSignatures(t *testing.T) {
	c := goodParts(t)
	signed := c.signed(t)
	good := wrap(t, signed)
	s := testSealer(t, "barn-7")
	other := ed25519.NewKeyFromSeed(make([]byte, 32))
	sign := func(h cose.Headers, signer cose.Signer, aad []byte) []byte {
		data, err := cose.Sign1(nil, signer, h, signed, aad)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	otherSigner, err := cose.NewSigner(cose.AlgorithmEdDSA, other)
	if err != nil {
		t.Fatal(err)
	}
	more := cose.Headers{RawProtected: s.headers.RawProtected, Unprotected: cose.UnprotectedHeader{int64(99): int64(1)}}
	noAlg := cose.Headers{Protected: cose.ProtectedHeader{cose.HeaderLabelKeyID: []byte(testKey.Public().(ed25519.PublicKey))}}
	noKid := cose.Headers{Protected: cose.ProtectedHeader{cose.HeaderLabelAlgorithm: cose.AlgorithmEdDSA}}
	full := cose.Headers{Protected: cose.ProtectedHeader{
		cose.HeaderLabelAlgorithm: cose.AlgorithmEdDSA,
		cose.HeaderLabelKeyID:     []byte(testKey.Public().(ed25519.PublicKey)),
	}}
	flip := func(i int) []byte {
		data := slices.Clone(good)
		data[(len(data)+i)%len(data)] ^= 1
		return data
	}
	for _, tt := range []struct {
		name string
		data []byte
		want func(*Expect)
		err  error
	}{
		{"nothing wrong", good, func(*Expect) {}, nil},
		{"contained key", good, func(e *Expect) { e.Key = nil }, nil},
		{"expected gateway", good, func(e *Expect) { e.Gateway = "barn-7" }, nil},
		{"another gateway", good, func(e *Expect) { e.Gateway = "barn-70" }, ErrGateway},
		{"another key expected", good, func(e *Expect) { e.Key = other.Public().(ed25519.PublicKey) }, ErrKey},
		{"another network", good, func(e *Expect) { e.Genesis[0]++ }, ErrSignature},
		{"signed by another key", sign(s.headers, otherSigner, aad(testGenesis)), func(*Expect) {}, ErrSignature},
		{"signed without the network", sign(full, s.signer, nil), func(*Expect) {}, ErrSignature},
		{"signature changed", flip(-1), func(*Expect) {}, ErrSignature},
		{"payload changed", flip(-80), func(*Expect) {}, ErrSignature},
		{"unprotected header", sign(more, s.signer, aad(testGenesis)), func(*Expect) {}, ErrCanonical},
		{"no algorithm", sign(noAlg, s.signer, aad(testGenesis)), func(*Expect) {}, ErrCanonical},
		{"no key id", sign(noKid, s.signer, aad(testGenesis)), func(*Expect) {}, ErrSyntax},
		{"trailing byte", append(slices.Clone(good), 0), func(*Expect) {}, ErrSyntax},
		{"no tag", good[1:], func(*Expect) {}, ErrSyntax},
		{"empty", nil, func(*Expect) {}, ErrSyntax},
		{"too large", make([]byte, MaxData+1), func(*Expect) {}, ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := expect()
			tt.want(&want)
			if _, err := Open(tt.data, want); !errors.Is(err, tt.err) {
				t.Errorf("Open: %v, want %v", err, tt.err)
			}
		})
	}
	for n := range good {
		if _, err := Open(good[:n], expect()); err == nil {
			t.Errorf("first %d of %d bytes are accepted", n, len(good))
		}
	}
}

func TestParseRecordRefuses(t *testing.T) {
	good := map[any]any{0: "g:d:n", 2: 1, "ha": "none", "hq": 0, "hr": 5, "hs": 1}
	for _, tt := range []struct {
		name   string
		change map[any]any // nil deletes
		err    error
	}{
		{"nothing wrong", nil, nil},
		{"two values", map[any]any{3: "x"}, ErrCanonical},
		{"no value", map[any]any{2: nil}, ErrRecord},
		{"value of another type", map[any]any{2: "x"}, ErrRecord},
		{"big integer", map[any]any{2: cbor.RawMessage{0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}, ErrRecord},
		{"not a number", map[any]any{2: cbor.RawMessage{0xf9, 0x7e, 0}}, ErrRecord},
		{"infinity", map[any]any{2: cbor.RawMessage{0xf9, 0x7c, 0}}, ErrRecord},
		{"negative zero", map[any]any{2: cbor.RawMessage{0xf9, 0x80, 0}}, ErrCanonical},
		{"integral float", map[any]any{2: cbor.RawMessage{0xf9, 0x3c, 0}}, ErrCanonical},
		{"float longer than needed", map[any]any{2: cbor.RawMessage{0xfa, 0x3f, 0xc0, 0, 0}}, ErrCanonical},
		{"base time", map[any]any{-3: 5}, ErrRecord},
		{"unknown label", map[any]any{"hx": 5}, ErrRecord},
		{"empty unit", map[any]any{1: ""}, ErrCanonical},
		{"empty error", map[any]any{"he": ""}, ErrCanonical},
		{"time 0", map[any]any{6: 0}, ErrRecord},
		{"time in 1969", map[any]any{6: -5}, ErrRecord},
		{"endless time", map[any]any{6: uint64(1) << 60}, ErrRecord},
		{"time finer than a millisecond", map[any]any{6: 1764000000.1234}, ErrCanonical},
		{"whole time as float", map[any]any{6: cbor.RawMessage{0xfb, 0x41, 0xda, 0x49, 0x12, 0xc0, 0, 0, 0}}, ErrCanonical},
		{"clock 3", map[any]any{"hq": 3}, ErrCanonical},
		{"authentication", map[any]any{"ha": "magic"}, ErrRecord},
		{"name of two parts", map[any]any{0: "g:d"}, ErrRecord},
		{"another gateway", map[any]any{0: "h:d:n"}, ErrRecord},
		{"escape without need", map[any]any{0: "g:_x64:n"}, ErrCanonical},
		{"escape in small letters", map[any]any{0: "g:_xc3_xa9:n"}, ErrRecord},
		{"escape cut off", map[any]any{0: "g:d:_x6"}, ErrRecord},
		{"name outside the alphabet", map[any]any{0: "g:d:a b"}, ErrCanonical},
		{"name that is not UTF-8", map[any]any{0: "g:d:_xFF"}, ErrRecord},
		{"no device", map[any]any{0: "g::n"}, ErrRecord},
		{"long text", map[any]any{2: nil, 3: string(make([]byte, reading.MaxText+1))}, ErrRecord},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := map[any]any{}
			maps.Copy(m, good)
			for k, v := range tt.change {
				if m[k] = v; v == nil {
					delete(m, k)
				}
			}
			raw, err := encoding.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseRecord(raw, "g"); !errors.Is(err, tt.err) {
				t.Errorf("ParseRecord: %v, want %v", err, tt.err)
			}
		})
	}
}

// Whatever Open accepts, Seal makes again from it, except for what a
// compressor may choose.
func FuzzOpen(f *testing.F) {
	c := goodParts(f)
	f.Add(wrap(f, c.signed(f)), uint8(0))
	f.Add(c.signed(f), uint8(1))
	f.Add(c.body(), uint8(2))
	f.Add(frame(f, c.body()), uint8(3))
	f.Fuzz(func(t *testing.T, in []byte, depth uint8) {
		switch c := goodParts(t); depth % 4 {
		case 1: // a signed map of any content
			in = wrap(t, in)
		case 2: // any body
			c.p.Body = in
			in = wrap(t, c.signed(t))
		case 3: // any frame
			c.p.Body, c.p.Compression = in, compressZstd
			in = wrap(t, c.signed(t))
		}
		b, err := Open(in, expect())
		if err != nil {
			return
		}
		s, err := NewSealer(b.Gateway, testKey, testGenesis, b.Incarnation)
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.Seal(b.Secret, b.Readings)
		if errors.Is(err, ErrTooLarge) {
			return
		}
		if err != nil {
			t.Fatalf("Seal of what Open accepted: %v", err)
		}
		if b2, err := Open(again, expect()); err != nil || b2.Root != b.Root || !slices.Equal(b2.Runs, b.Runs) {
			t.Errorf("sealed again: %v, root %x, want %x", err, b2.Root, b.Root)
		}
	})
}

// A record that is accepted is the one encoding of its reading.
func FuzzParseRecord(f *testing.F) {
	for _, raw := range goodParts(f).records {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParseRecord(raw, "barn-7")
		if err != nil {
			return
		}
		if again, err := AppendRecord(nil, "barn-7", &r); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("encoded %x, %v; parsed from %x", again, err, raw)
		}
	})
}

// A name that can be taken apart is the one form of its parts, or says them
// in another form.
func FuzzSplitName(f *testing.F) {
	f.Add("g:d:n")
	f.Add("g:_x3A_x5Fx:n:_")
	f.Fuzz(func(t *testing.T, s string) {
		g, d, n, err := splitName(s)
		if err != nil {
			return
		}
		again := string(appendName(nil, g, d, n))
		if g2, d2, n2, err := splitName(again); err != nil || g2 != g || d2 != d || n2 != n {
			t.Errorf("%q is %q %q %q, written %q, which is %q %q %q", s, g, d, n, again, g2, d2, n2)
		}
	})
}
