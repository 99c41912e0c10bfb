package mqtt

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// Whatever a client sends after its CONNECT, the process lives and serves
// others.
func FuzzStreamAfterConnect(f *testing.F) {
	f.Add(crash, true)
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, false)
	for _, v5 := range []bool{false, true} {
		c := &client{v5: v5}
		f.Add(c.packet(pub{topic: temp, payload: "1", qos: 1, id: 1}), v5)
		f.Add(append(c.packet(pub{topic: temp, payload: "{\"v\":1}", qos: 2, id: 1, dup: true}), 0x62, 2, 0, 1), v5)
		f.Add(c.packet(pub{topic: "a/b", payload: "x", retain: true}), v5)
	}
	f.Add([]byte{0x82, 6, 0, 1, 0, 1, '#', 0, 0xa2, 5, 0, 2, 0, 1, '#', 0xe0, 0}, false)
	f.Add([]byte{0x82, 7, 0, 1, 0, 0, 1, '#', 0, 0x30, 5, 0, 1, 'a', 0, '1'}, true)
	f.Add([]byte{0x32, 9, 0, 1, 'a', 0, 1, 3, 0x23, 0, 1, 0x32, 8, 0, 0, 0, 2, 3, 0x23, 0, 1}, true)
	f.Add([]byte{0x40, 2, 0, 1, 0x50, 2, 0, 1, 0x70, 2, 0, 1, 0xf0, 0}, true)
	b := start(f, newSink(true), nil)
	good := connect(f, b.addr, login{id: "good"})
	f.Fuzz(func(t *testing.T, in []byte, v5 bool) {
		c, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patienceInTests)); err != nil {
			t.Fatal(err)
		}
		// The broker may close before it has read everything.
		_, _ = c.Write(append(login{id: "bad", v5: v5, will: temp}.packet(), in...))
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		good := *good
		good.t = t
		good.quiet("others are served")
	})
}

// The gate lets the first packet through whole, nothing of the second, and
// nothing of a first packet above the limit but its head.
func FuzzGate(f *testing.F) {
	f.Add(login{id: "probe"}.packet(), uint8(3))
	f.Add([]byte{0x10, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3}, uint8(1))
	f.Add([]byte{0xc0, 0, 0xc0, 0}, uint8(2))
	f.Fuzz(func(t *testing.T, in []byte, chunk uint8) {
		const limit = 100
		g, passed, ok := gate{limit: limit}, 0, true
		for ok && !g.passed && passed < len(in) {
			n := g.want(int(chunk) + 1)
			if n < 1 || n > int(chunk)+1 {
				t.Fatalf("want(%d) = %d after %d bytes", int(chunk)+1, n, passed)
			}
			n = min(n, len(in)-passed)
			if ok = g.feed(in[passed : passed+n]); ok {
				passed += n
			}
		}
		if passed > limit {
			t.Errorf("%d bytes let through, limit %d", passed, limit)
		}
		body, n := uint64(0), 0
		if len(in) > 1 {
			body, n = binary.Uvarint(in[1:])
		}
		if n < 1 || n > 4 {
			return // incomplete or malformed head
		}
		size := 1 + n + int(body)
		if g.passed != (size <= limit && len(in) >= size) || g.passed && passed != size || ok == (size > limit) {
			t.Errorf("packet of %d bytes: passed %v with %d bytes, ok %v", size, g.passed, passed, ok)
		}
	})
}
