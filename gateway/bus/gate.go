package bus

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Bounds of the handshakes that a listener has open at once. Who was let in
// lately, and who stands in the routes, has a share apart: strangers cannot
// keep a site from meeting.
const (
	maxStrangers, maxStranger = 64, 4 // together, and from one source
	maxFamiliar, maxFamily    = 64, 8
	maxPenalties, maxPenalty  = 256, 128 // refused keys that wait, see penalty

	maxSources = 256
	lately     = 24 * time.Hour
)

// source is what is counted as one: an IPv4 address, or an IPv6 network of 64
// bits, which is what one box may have.
func source(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // fails for no address only
	return p
}

// slots are bounded in number, and for each source.
type slots struct {
	most, each int

	mu    sync.Mutex // guards what follows
	taken int
	of    map[netip.Prefix]int
}

func newSlots(most, each int) *slots {
	return &slots{most: most, each: each, of: map[netip.Prefix]int{}}
}

// take returns what frees the slot; it may be called more than once. False is
// for no slot.
func (s *slots) take(from netip.Prefix) (free func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= s.most || s.of[from] >= s.each {
		return nil, false
	}
	s.taken++
	s.of[from]++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.taken--
		if s.of[from]--; s.of[from] == 0 {
			delete(s.of, from)
		}
	}), true
}

// sources remembers where those come from who may connect.
type sources struct {
	mu sync.Mutex // guards at
	at map[netip.Prefix]time.Time
}

func newSources() *sources { return &sources{at: map[netip.Prefix]time.Time{}} }

// note remembers a source, for the oldest one if there are too many.
func (s *sources) note(a net.Addr) {
	from, now := source(a), time.Now()
	if !from.IsValid() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.at[from]; !ok && len(s.at) >= maxSources {
		oldest := from
		for p, at := range s.at {
			if oldest == from || at.Before(s.at[oldest]) {
				oldest = p
			}
		}
		delete(s.at, oldest)
	}
	s.at[from] = now
}

func (s *sources) familiar(from netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.at[from]
	return ok && time.Since(at) < lately
}

// gate bounds the handshakes that the listener of the configuration has open
// at once, from the first message to the end, or to the refusal of the key.
// With allowed nil there is nothing to decide by key.
func (p *pins) gate(conf *tls.Config, allowed func(ed25519.PublicKey) bool) *tls.Config {
	strangers, familiar := newSlots(maxStrangers, maxStranger), newSlots(maxFamiliar, maxFamily)
	penalties := newSlots(maxPenalties, maxPenalty)
	base := conf.Clone()
	conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		from, pool := source(hello.Conn.RemoteAddr()), strangers
		if p.sources.familiar(from) {
			pool = familiar
		}
		free, ok := pool.take(from)
		if !ok {
			return nil, errors.New("too many handshakes at once")
		}
		context.AfterFunc(hello.Context(), free)
		if allowed == nil {
			return nil, nil
		}
		c := base.Clone()
		c.VerifyConnection = func(state tls.ConnectionState) error {
			key := keyOf(state)
			if allowed(key) {
				return nil
			}
			free()
			err := p.unknownKey(key)
			p.refused.note(err)
			if done, ok := penalties.take(from); ok {
				defer done()
				p.wait()
			}
			return err
		}
		return c, nil
	}
	return conf
}

func (p *pins) unknownKey(key ed25519.PublicKey) error {
	if p.former != nil && len(key) > 0 {
		if name := p.former(key); name != "" {
			return fmt.Errorf("the key %s is that of %s, %s", hexKey(key), name, formerKey)
		}
	}
	return fmt.Errorf("the key %s %s", hexKey(key), strangeKey)
}
