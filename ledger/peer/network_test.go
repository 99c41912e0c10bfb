package peer_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
)

// A newcomer gets the first file from those that know it as a member, and from
// nobody before they do.
func TestANewcomerIsGivenTheFirstFile(t *testing.T) {
	s := newSite(t, "a", "b")
	a, b := s.fresh("a"), s.fresh("b")
	genesis := s.file
	next := genesis.Next()
	next.Add(s.newcomer("c"))
	cfg := peer.Config{Network: next, Key: s.keys["c"], Conn: s.connect()}

	early, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := peer.FetchNetwork(early, cfg, genesis.Hash()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before its epoch: %v", err)
	}
	a.peers.SetNetwork(next)
	b.peers.SetNetwork(next)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	f, err := peer.FetchNetwork(ctx, cfg, genesis.Hash())
	if err != nil || f.Hash() != genesis.Hash() || f.Epoch != 0 {
		t.Fatalf("got %+v, %v", f, err)
	}
}

// What a member hands out under a wrong hash is not taken; another one is asked.
func TestAWrongFirstFileIsNotTaken(t *testing.T) {
	s := newSite(t, "a", "liar", "c")
	s.fresh("a")
	wrong := network.NewOfOne("elsewhere", "x", s.file.Gateways[0].PublicKey[:])
	text, err := json.Marshal(wrong)
	if err != nil {
		t.Fatal(err)
	}
	conn, forger := s.connect(), peer.NewForger(s.keys["liar"], s.file.GenesisHash())
	lies := make(chan struct{}, 64)
	subject := s.prefix() + ".peer." + s.file.Gateways[1].PublicKey.SubjectID()
	if _, err := conn.Subscribe(subject, func(m *nats.Msg) {
		if peer.KindOf(m.Data) == peer.Network {
			_ = m.Respond(forger.Reply(m.Data, text))
			lies <- struct{}{}
		}
	}); err != nil {
		t.Fatal(err)
	}
	cfg := peer.Config{Network: s.file, Key: s.keys["c"], Conn: s.connect()}
	for { // members are asked in a random order
		f, err := peer.FetchNetwork(t.Context(), cfg, s.file.Hash())
		if err != nil || f.Hash() != s.file.Hash() {
			t.Fatalf("got %+v, %v", f, err)
		}
		select {
		case <-lies:
			return
		default:
		}
	}
}

// A member that was taken out is answered for a moment, to learn of it.
func TestAFormerMemberIsAnsweredForAMoment(t *testing.T) {
	s := newSite(t, "a", "b", "c")
	a := s.fresh("a")
	old := s.file
	s.next(func(f *network.File) { _ = f.Remove("c") }, a)
	f, err := peer.FetchNetwork(t.Context(), peer.Config{Network: old, Key: s.keys["c"], Conn: s.connect()}, old.Hash())
	if err != nil || f.Hash() != old.Hash() {
		t.Errorf("got %+v, %v", f, err)
	}
	if n := a.peers.Stats().Strange; n != 0 {
		t.Errorf("%d of its requests were refused", n)
	}
	s.next(func(f *network.File) { _ = f.SetWeight("b", 2) }, a) // and in the epoch after no more
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := peer.FetchNetwork(ctx, peer.Config{Network: old, Key: s.keys["c"], Conn: s.connect()}, old.Hash()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an epoch later: %v", err)
	}
}
