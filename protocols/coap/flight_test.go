package coap

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// Each bound holds when the others do not: few requests from everywhere, many
// of one endpoint, many of one address.
func TestEachBoundOfAFlightHoldsAlone(t *testing.T) {
	n := uint32(0)
	from := func(ip [4]byte, port uint16) *pending {
		n++
		p := &pending{}
		p.addr = netip.AddrPortFrom(netip.AddrFrom4(ip), port)
		binary.BigEndian.PutUint32(p.key.Message[:], n)
		return p
	}
	for _, tt := range []struct {
		name      string
		endpoints int
		request   func(i int) *pending
		most      int
		want      admission
	}{
		{"of everybody", 1 << 20, func(i int) *pending { return from([4]byte{10, 0, byte(i >> 8), byte(i)}, 1) }, maxPending, full},
		{"of too many endpoints", 100, func(i int) *pending { return from([4]byte{10, 0, byte(i >> 8), byte(i)}, 1) }, 100, full},
		{"of one endpoint", 1 << 20, func(int) *pending { return from([4]byte{10, 0, 0, 1}, 1) }, maxPerSource, greedy},
		{"of one address", 1 << 20, func(i int) *pending { return from([4]byte{10, 0, 0, 1}, uint16(i)) }, maxPerAddress, greedy},
	} {
		f := newFlight(tt.endpoints)
		var in []*pending
		for i := range tt.most {
			p := tt.request(i)
			if got := f.enter(p); got != admitted {
				t.Fatalf("requests %s: number %d is %d, want %d", tt.name, i+1, got, admitted)
			}
			in = append(in, p)
		}
		if got := f.enter(tt.request(tt.most)); got != tt.want {
			t.Errorf("requests %s: one more than %d is %d, want %d", tt.name, tt.most, got, tt.want)
		}
		for _, p := range in {
			f.leave(p)
		}
		if pending, endpoints := f.size(); pending+endpoints+len(f.addresses) != 0 {
			t.Errorf("requests %s: %d pending of %d endpoints, %d addresses are kept after the last left", tt.name, pending, endpoints, len(f.addresses))
		}
	}
}

// What was answered needs no empty acknowledgement any more, and what got one
// needs no second.
func TestEmptyAcknowledgementIsDueOnce(t *testing.T) {
	f := newFlight(10)
	var p, q pending
	q.key.Message[0] = 1
	f.enter(&p)
	f.enter(&q)
	if !f.settle(&p) || f.settle(&p) {
		t.Error("want due once")
	}
	if !f.leave(&p) || f.leave(&q) || f.settle(&q) {
		t.Error("want that p was settled, and q was not and is not")
	}
}

// Devices behind one address are kept apart by their ports.
func TestEndpointsHaveKeysOfTheirOwn(t *testing.T) {
	seen := map[[16]byte]string{}
	for _, s := range []string{"10.0.0.1:5000", "10.0.0.1:5001", "10.0.0.2:5000", "[::1]:5000", "[2001:db8::1]:5000"} {
		key := endpointKey(netip.MustParseAddrPort(s))
		if other, ok := seen[key]; ok {
			t.Errorf("%s and %s have one key", s, other)
		}
		seen[key] = s
	}
	if seen[batching.Key{}.Sender] != "" {
		t.Error("an endpoint has the key that recognises nothing")
	}
}
