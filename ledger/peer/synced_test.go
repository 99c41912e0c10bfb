package peer_test

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestSyncedNeedsAnother(t *testing.T) {
	s := newSite(t, "a", "b")
	s.file.Gateways[0].Weight = 5 // a quorum alone
	a := s.fresh("a")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := a.peers.Synced(ctx); err == nil {
		t.Error("in sync with nobody")
	}
	b := s.start("b", t.TempDir(), &shelf{})
	b.attach(3, "b")
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := a.peers.Synced(ctx); err != nil || a.Position() != 3 {
		t.Errorf("Synced = %v with %d blocks", err, a.Position())
	}
}

// Of two others that are up one is restoring itself: what it has proves nothing,
// unless it is the only one there is.
func TestSyncedDoesNotRelyOnWhoIsRestoring(t *testing.T) {
	s := newSite(t, "a", "b", "c")
	s.restoring = "b"
	a := s.fresh("a")
	s.fresh("b")
	eventually(t, "a hears of b", func() bool { return a.seen("b").Up })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := a.peers.Synced(ctx); err == nil {
		t.Error("in sync with a gateway that is restoring")
	}
	s.fresh("c")
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := a.peers.Synced(ctx); err != nil {
		t.Error(err)
	}
}

// One member that is up for ever and whose blocks never come keeps nobody from
// going on who has had those of a quorum.
func TestSyncedDoesNotWaitForEverForWhoNeverGetsThere(t *testing.T) {
	mute := func([]byte) []byte { return nil }
	_, known := block(t, "known", stardust.GenesisID)
	for name, tt := range map[string]struct {
		claims ledger.Word // that c says of itself
		answer func(request []byte) []byte
	}{
		"it claims milestones that nobody has": {ledger.Word{Milestone: 1 << 30, Certified: 1 << 20, Whole: 1 << 30}, mute},
		"it answers nothing":                   {ledger.Word{}, mute},
		"its order never ends": {ledger.Word{}, func(request []byte) []byte {
			if peer.KindOf(request) != peer.Order {
				return nil
			}
			at, id := binary.LittleEndian.Uint64(request[50:]), stardust.IDOf(known)
			return peer.PageAfter([8]byte{1}, at, at+1, id[:])
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "a", "b", "c")
			s.restoring, s.patience = "b", 500*time.Millisecond
			s.fresh("a").attach(5, "a")
			c := s.rogue("c")
			c.answer(tt.answer)
			b := s.fresh("b")
			c.publish(c.Frame(peer.Gossip, nil, "", peer.BlocksBody(known)))
			stop := make(chan struct{})
			told := make(chan struct{})
			go func() {
				defer close(told)
				f := peer.WordBody(tt.claims, 0, false)
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for {
					c.send("b", c.Frame(peer.Frontier, s.public("b"), "", f))
					select {
					case <-tick.C:
					case <-stop:
						return
					}
				}
			}()
			defer func() { close(stop); <-told }()
			eventually(t, "b hears of c", func() bool { return b.seen("c").Up })
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			began := time.Now()
			if err := b.peers.Synced(ctx); err != nil || b.Position() < 5 {
				t.Errorf("Synced = %v with %d blocks", err, b.Position())
			}
			t.Logf("after %v", time.Since(began))
		})
	}
}
