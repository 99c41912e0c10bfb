package coap

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"
)

func TestGate(t *testing.T) {
	for _, tt := range []struct {
		what string
		in   string // hex, spaces ignored
		want verdict
		code codes.Code // of the answer
	}{
		{"PUT", "40030001 b161 ff31", pass, 0},
		{"PUT, non-confirmable", "50030001 b161 ff31", pass, 0},
		{"nothing", "", ignore, 0},
		{"three bytes", "400300", ignore, 0},
		{"version 0", "00030001", ignore, 0},
		{"version 2", "80030001", ignore, 0},
		{"ping", "40000001", reset, 0},
		{"ping with a token", "41000001aa", reset, 0},
		{"empty non-confirmable", "50000001", ignore, 0},
		{"empty ACK", "60000001", settle, 0},
		{"empty RST", "70000001", settle, 0},
		{"request in an ACK", "60030001b161ff31", ignore, 0},
		{"request in a RST", "70030001b161ff31", ignore, 0},
		{"empty ACK with a token", "61000001aa", ignore, 0},
		{"response", "40450001", reset, 0},
		{"response, non-confirmable", "50450001", ignore, 0},
		{"class 1", "40200001", reset, 0},
		{"class 6", "40c00001", reset, 0},
		{"class 7", "40e10001", reset, 0},
		{"token of 9 bytes", "49030001010203040506070809", reset, 0},
		{"token cut off", "440300010102", reset, 0},
		{"option delta 15", "40030001f0", reset, 0},
		{"option length 15", "400300011f", reset, 0},
		{"option cut off", "40030001b461", reset, 0},
		{"extension cut off", "40030001d0", reset, 0},
		{"option number above 65535", "40030001 e0ffff e0ffff", reset, 0},
		{"marker without payload", "40030001b161ff", reset, 0},
		{"marker without payload, non-confirmable", "50030001b161ff", ignore, 0},
		{"FETCH", "40050001", refuse, codes.MethodNotAllowed},
		{"code 0.31", "401f0001", refuse, codes.MethodNotAllowed},
		{"DELETE is the handler's", "40040001", pass, 0},
		{"unknown critical option 9", "4003000190", refuse, codes.BadOption},
		{"unknown critical option, non-confirmable", "5003000190", reset, 0},
		{"unknown elective option 2052", "40030001e006f7", pass, 0},
		{"If-None-Match", "4003000150", refuse, codes.BadOption},
		{"Content-Format of 3 bytes is elective", "40030001c3000001", pass, 0},
		{"Accept of 3 bytes", "40030001d304000001", refuse, codes.BadOption},
		{"two Accept", "40030001 d10432 0132", refuse, codes.BadOption},
		{"path of 256 bytes", "40030001be00 f3" + strings.Repeat("61", 512), refuse, codes.BadOption},
		{"path not UTF-8", "40030001b1ff", refuse, codes.BadRequest},
		{"Block1", "40030001d10e08", refuse, codes.RequestEntityTooLarge},
		{"Block2", "40010001d10a06", refuse, codes.RequestEntityTooLarge},
		{"Proxy-Uri", "40010001d11661", refuse, codes.ProxyingNotSupported},
		{"Observe is ignored", "4001000160", pass, 0},
		{"payload too large", "40030001ff" + strings.Repeat("31", 101), refuse, codes.RequestEntityTooLarge},
	} {
		t.Run(tt.what, func(t *testing.T) {
			in, err := hex.DecodeString(strings.ReplaceAll(tt.in, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			var req request
			v, a := gate(in, 100, &req)
			if v != tt.want || a.code != tt.code {
				t.Errorf("gate(%s) = %d, %v; want %d, %v", tt.in, v, a.code, tt.want, tt.code)
			}
		})
	}
}

// What the gate lets through, go-coap's decoder must read in the same way.
func FuzzGate(f *testing.F) {
	for _, s := range []string{
		"42030001aabb b8 72656164696e6773 0161 0162 ff31",
		"40010001d10e08", "40030001e006f7", "60000001", "420330303030 6130 6730303030303030 0130", "40010001 b473656e64 61 32 ff00",
	} {
		b, _ := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var req request
		v, a := gate(in, 100, &req)
		if (v == refuse) != (a.code != 0) {
			t.Fatalf("gate(%x) = %d, %v", in, v, a.code)
		}
		if v != pass {
			return
		}
		m := message.Message{Options: make(message.Options, 0, len(in))}
		if _, err := coder.DefaultCoder.Decode(in, &m); err != nil {
			t.Fatalf("gate passed %x: %v", in, err)
		}
		var path []string
		for _, o := range m.Options {
			if o.ID == message.URIPath {
				path = append(path, string(o.Value))
			}
		}
		if req.depth != len(path) || req.depth <= maxSegments && !slices.Equal(req.path(), path) ||
			!bytes.Equal(req.payload, m.Payload) || !bytes.Equal(req.token[:req.tkl], m.Token) ||
			req.code != m.Code || int32(req.mid) != m.MessageID || req.typ != m.Type {
			t.Fatalf("gate(%x) = %+v, go-coap reads %+v", in, req, m)
		}
		// go-coap would take a second Content-Format if the first is too long.
		if cf, err := m.Options.ContentFormat(); req.format != none && (err != nil || int(cf) != req.format) {
			t.Fatalf("gate(%x) has content format %d, go-coap %d, %v", in, req.format, cf, err)
		}
	})
}

// Whatever arrives, a server answers within the amplification bound, with
// something well-formed, and does not panic.
func FuzzReceive(f *testing.F) {
	f.Add(build(f, codes.PUT, []string{"readings", "a", "b"}, "21.5"))
	f.Add(build(f, codes.GET, []string{".well-known", "core"}, ""))
	f.Add(build(f, codes.GET, []string{"time"}, "", with(message.Accept, 50)))
	f.Fuzz(func(t *testing.T, in []byte) {
		w := newWire(t, &memory{})
		w.receive(in, remote)
		w.queue.leave()
		w.answerAll(nil)
		w.s.reading.Wait()
		if n := w.s.stats.panics.Load(); n != 0 {
			t.Fatalf("%x: %d panics", in, n)
		}
		for _, m := range w.take() {
			size, err := coder.DefaultCoder.Size(m)
			if err != nil || size > amplification*len(in) {
				t.Fatalf("%x of %d bytes is answered by %d bytes, %v", in, len(in), size, err)
			}
		}
		if pending, endpoints := w.s.flight.size(); pending != 0 || endpoints != 0 {
			t.Fatalf("%x leaves %d requests of %d endpoints", in, pending, endpoints)
		}
	})
}
