package coap

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// A pending is a request whose readings are on their way to the disk.
type pending struct {
	exchange
	key     batching.Key
	receipt *batching.Receipt // set before it is handed to the answerer
	arrived time.Time
	settled bool // an empty ACK was sent; guarded by flight.mu
}

// resolved tells whether the readings are durable or refused.
func (p *pending) resolved() bool {
	select {
	case <-p.receipt.Done():
		return true
	default:
		return false
	}
}

// A flight holds the requests in flight of all sockets and their bounds.
type flight struct {
	maxEndpoints int

	mu        sync.Mutex // guards what follows
	byKey     map[batching.Key]*pending
	endpoints map[netip.AddrPort]int
	addresses map[netip.Addr]int
}

func newFlight(maxEndpoints int) *flight {
	return &flight{
		maxEndpoints: maxEndpoints,
		byKey:        make(map[batching.Key]*pending),
		endpoints:    make(map[netip.AddrPort]int),
		addresses:    make(map[netip.Addr]int),
	}
}

// An admission says what a flight makes of a request.
type admission uint8

const (
	admitted admission = iota
	repeated           // the same request is in flight and not yet acknowledged
	answered           // it is in flight, and was acknowledged
	greedy             // its sender has too many in flight
	full               // everybody together has
)

// enter admits p, or says why not. What is admitted must leave.
func (f *flight) enter(p *pending) admission {
	f.mu.Lock()
	defer f.mu.Unlock()
	if first := f.byKey[p.key]; first != nil {
		if first.settled {
			return answered
		}
		return repeated
	}
	of := f.endpoints[p.addr]
	switch {
	case of >= maxPerSource, f.addresses[p.addr.Addr()] >= maxPerAddress:
		return greedy
	case len(f.byKey) >= maxPending, of == 0 && len(f.endpoints) >= f.maxEndpoints:
		return full
	}
	f.byKey[p.key] = p
	f.endpoints[p.addr] = of + 1
	f.addresses[p.addr.Addr()]++
	return admitted
}

// leave takes p off and tells whether it got its empty acknowledgement.
func (f *flight) leave(p *pending) (settled bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.byKey, p.key)
	if n := f.endpoints[p.addr]; n > 1 {
		f.endpoints[p.addr] = n - 1
	} else {
		delete(f.endpoints, p.addr)
	}
	ip := p.addr.Addr()
	if n := f.addresses[ip]; n > 1 {
		f.addresses[ip] = n - 1
	} else {
		delete(f.addresses, ip)
	}
	return p.settled
}

// settle notes that p gets its empty acknowledgement now, and tells whether it
// needs one: not if it has it or left.
func (f *flight) settle(p *pending) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	needed := f.byKey[p.key] == p && !p.settled
	if needed {
		p.settled = true
	}
	return needed
}

func (f *flight) size() (pending, endpoints int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.byKey), len(f.endpoints)
}
