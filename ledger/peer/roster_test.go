package peer_test

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// next makes the file with these changes the network of the gateways that run,
// and of those that start.
func (s *site) next(change func(*network.File), running ...*gateway) {
	s.t.Helper()
	f := s.file.Next()
	change(f)
	if err := f.Validate(); err != nil {
		s.t.Fatal(err)
	}
	s.first = cmp.Or(s.first, s.file)
	s.file = f
	for _, g := range running {
		g.peers.SetNetwork(f)
	}
}

func (s *site) newcomer(name string) network.Gateway {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.keys[name] = key
	return network.Gateway{Name: name, PublicKey: network.PublicKey(public), Weight: 1}
}

func TestANewMemberIsHeardAtOnce(t *testing.T) {
	s := newSite(t, "a", "b")
	a, b := s.fresh("a"), s.fresh("b")
	a.attach(10, "a")
	equal(t, 10, a, b)
	before := a.seen("b")
	s.next(func(f *network.File) {
		f.Add(s.newcomer("c"))
		_ = f.SetWeight("b", 3)
	}, a, b)
	c := s.fresh("c")
	equal(t, 10, a, b, c)
	c.attach(5, "c")
	equal(t, 15, a, b, c)
	after := a.seen("b")
	if after.New+after.Served < before.New+before.Served || after.Heard.Before(before.Heard) || after.Weight != 3 {
		t.Errorf("b at a was %+v, is %+v", before, after)
	}
}

func TestAFormerMemberIsNotHeard(t *testing.T) {
	s := newSite(t, "a", "b", "c")
	a, b, c := s.fresh("a"), s.fresh("b"), s.fresh("c")
	a.attach(10, "a")
	equal(t, 10, a, b, c)
	s.next(func(f *network.File) { _ = f.Remove("c") }, a, b, c)
	c.attach(3, "c") // on its own
	eventually(t, "its frames are refused", func() bool { return a.peers.Stats().Strange > 0 && b.peers.Stats().Strange > 0 })
	b.attach(3, "b")
	equal(t, 13, a, b)
	eventually(t, "c hears of it", func() bool { return c.Position() == 16 })
	if n := len(a.peers.Stats().Members); n != 1 {
		t.Errorf("a has %d members", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := a.peers.Synced(ctx); err != nil {
		t.Errorf("a is not in sync with who is left: %v", err)
	}
}

// A gateway that was alone listens, so that it hears the second one.
func TestTheSecondGatewayIsHeard(t *testing.T) {
	s := newSite(t, "a")
	a := s.fresh("a")
	a.attach(7, "alone")
	s.next(func(f *network.File) { f.Add(s.newcomer("b")) }, a)
	b := s.fresh("b")
	equal(t, 7, a, b)
	b.attach(1, "b")
	equal(t, 8, a, b)
}

// Epochs change while everything is under way.
func TestMembersComeAndGoUnderLoad(t *testing.T) {
	s := newSite(t, "a", "b", "c")
	a, b, c := s.fresh("a"), s.fresh("b"), s.fresh("c")
	gone := s.file.Gateways[2]
	for range 10 {
		s.next(func(f *network.File) { _ = f.Remove("c") }, a, b, c)
		a.attach(5, "without")
		s.next(func(f *network.File) { f.Add(gone) }, a, b, c)
		b.attach(5, "with")
		c.attach(5, "back")
	}
	equal(t, 150, a, b, c)
}
