package gateway

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// backedUp writes a backup of a gateway that is stopped and returns its path.
func backedUp(t *testing.T, cfg Config) string {
	t.Helper()
	o, err := OpenOffline(cfg, testLog(t))
	must(t, err)
	defer o.Close()
	path := filepath.Join(t.TempDir(), "a.backup")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	c := copier{&cfg, o.stores, func() *network.File { f, _ := network.Load(cfg.networkPath()); return f }}
	must(t, c.Write(t.Context(), f))
	return path
}

func restored(t *testing.T, cfg Config, backup string) (*Restored, error) {
	t.Helper()
	return Restore(t.Context(), cfg, backup, testLog(t), func(string, int64) {})
}

// own returns the record of own votes.
func (r *runner) own() consensus.Durable {
	r.t.Helper()
	own, err := r.stores.ledger.Own()
	must(r.t, err)
	return *own
}

// A grown is a gateway that was alone, with a backup and a copy of that time, and
// has then voted and got another one beside it.
type grown struct {
	own, other Config
	backup     string
	copied     string // of the data directory
	file       string // of epoch 1
}

func grownNetwork(t *testing.T) *grown {
	t.Helper()
	a, b := freeAddress(t), freeAddress(t)
	set := []string{"batching.max_age=50ms", "journal.reserve=16MiB", "peers.routes=tls://" + a + ",tls://" + b}
	homes := []string{t.TempDir(), t.TempDir()}
	g := &grown{own: testSandbox(t, homes[0], append(set, "peers.listen="+a)...), copied: t.TempDir()}
	r := start(t, g.own)
	must(t, r.publish("readings/probe-1/count", "1"))
	r.confirmed(1)
	must(t, r.stop())
	g.backup = backedUp(t, g.own)
	must(t, os.CopyFS(g.copied, os.DirFS(string(g.own.DataDir))))

	r = start(t, g.own)
	must(t, r.publish("readings/probe-1/count", "2"))
	r.confirmed(2)
	next := r.epochs.current().Next()
	_, _, keys := networkWith(t, testSandbox(t, homes[1]), "site")
	next.Add(network.Gateway{Name: "other", PublicKey: network.PublicKey(keys[1].Public().(ed25519.PublicKey)), Weight: 1})
	next.Sign(r.home.key)
	g.file = saved(t, next)
	if code, text := r.post("/api/hedgerow/v1/network", fileText(t, next)); code != 202 {
		t.Fatalf("epoch 1: %d %s", code, text)
	}
	r.epoch(1)
	der, err := x509.MarshalPKCS8PrivateKey(keys[1])
	must(t, err)
	g.other = testSandbox(t, homes[1], append(set, "name=other", "peers.listen="+b)...)
	must(t, os.WriteFile(g.other.Identity.Ref, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	must(t, os.WriteFile(filepath.Join(homes[1], freshName), nil, 0o600))
	if _, err := Join(g.other, g.file, testLog(t)); err != nil {
		t.Fatal(err)
	}
	must(t, Meet(t.Context(), g.other, testLog(t)))
	o := start(t, g.other)
	o.served(g.own.Name, 2)
	o.epoch(1)
	must(t, o.stop())
	must(t, r.stop())
	return g
}

// goesOn starts both gateways and wants the older copy to get from the other one
// what it had voted, and to vote in none of those rounds again.
func (g *grown) goesOn(t *testing.T) {
	t.Helper()
	a := start(t, g.own)
	if own := a.own(); !own.Recovering || a.epochs.current().Epoch != 1 {
		t.Errorf("it begins with the record %+v and the members of epoch %d", own, a.epochs.current().Epoch)
	}
	must(t, a.publish("readings/probe-1/count", "3"))
	b := start(t, g.other)
	b.served(g.own.Name, 3)
	for end := time.Now().Add(30 * time.Second); a.epochs.inForce().Epoch != 1; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("epoch 1 does not begin once more")
		}
	}
	for index := uint32(1); index <= b.stages.ledger.Agreed().Milestone; index++ {
		x, err := a.stages.ledger.Milestone(index)
		y, other := b.stages.ledger.Milestone(index)
		if err != nil || other != nil || x.ID != y.ID {
			t.Errorf("milestone %d is %x, %v, at the other one %x, %v", index, x.ID, err, y.ID, other)
		}
	}
	if text := b.alarm("equivocation"); text != "" {
		t.Error(text)
	}
	if own := a.own(); !own.Recovering && !own.Sticky {
		t.Errorf("it goes on with the record %+v", own)
	}
	must(t, a.stop())
}

// A copy from when a gateway was alone does not know that it is not any more:
// nobody would be asked for the votes that came after it.
func TestACopyFromBeforeTheNetworkGrewVotesInNoRoundAgain(t *testing.T) {
	t.Run("a backup", func(t *testing.T) {
		g := grownNetwork(t)
		must(t, os.Rename(string(g.own.DataDir), string(g.own.DataDir)+".lost"))
		for range 2 { // what was refused has left nothing
			if _, err := restored(t, g.own, g.backup); err == nil || !strings.Contains(err.Error(), "epoch 1") || exists(string(g.own.DataDir)) {
				t.Fatalf("without the newest network file: %v", err)
			}
		}
		own := g.own
		own.Network = Path(g.file)
		if _, err := restored(t, own, g.backup); err != nil {
			t.Fatal(err)
		}
		g.own = own
		g.goesOn(t)
	})
	t.Run("a data directory", func(t *testing.T) {
		g := grownNetwork(t)
		replace(t, string(g.own.DataDir), g.copied)
		if _, err := New(g.own, testLog(t)); err == nil || !strings.Contains(err.Error(), "epoch 1") {
			t.Fatalf("without the newest network file: %v", err)
		}
		if _, err := Join(g.own, g.file, testLog(t)); err != nil {
			t.Fatal(err)
		}
		g.goesOn(t)
	})
}

// What came after a copy was seen by nobody only where there never was anybody.
func TestOnlyWhoWasAlwaysAloneGoesOnFromACopy(t *testing.T) {
	f := newFederation(t, "north")
	all := f.chain(weigh("north", 2), f.join("south"), leave("south"))
	for name, tt := range map[string]struct {
		newest       uint32
		stored, kept []uint32 // epochs
		want         bool
	}{
		"always":                  {1, []uint32{0, 1}, nil, true},
		"the epoch was not known": {1, []uint32{0}, nil, true},
		"the ledger has gone on":  {0, []uint32{0, 1}, nil, true},
		"a ledger made anew":      {1, nil, []uint32{0}, true},
		"it grew":                 {2, []uint32{0, 1}, nil, false},
		"it shrank":               {3, []uint32{0, 1, 2, 3}, nil, false},
		"it shrank since":         {3, []uint32{0, 1}, []uint32{2}, false},
		"nobody knows":            {3, []uint32{0, 1}, nil, false},
	} {
		dir := t.TempDir()
		var stored []*network.File
		for _, epoch := range tt.stored {
			stored = append(stored, all[epoch])
		}
		for _, epoch := range tt.kept {
			must(t, keepEpoch(dir, all[epoch]))
		}
		if got := alwaysAlone(dir, all[tt.newest], stored); got != tt.want {
			t.Errorf("%s: alone is %v", name, got)
		}
	}
}

// The memory beside the key tells a network that grew, as soon as it has, and
// however old the ledger is that is put back.
func TestTheIdentityRemembersTheNewestEpoch(t *testing.T) {
	m := newMarked(t)
	m.start(1)
	next := m.file.Next()
	next.Add(network.Gateway{Name: "b", PublicKey: network.PublicKey{7}, Weight: 1})
	refused := func() (refused bool) {
		m.with(func(x *marker) { refused = x.outgrown(m.file, "") != nil })
		return refused
	}
	back := m.copied()
	if refused() {
		t.Error("it is refused where it is in force")
	}
	m.with(func(x *marker) {
		must(t, x.store.Commit(ledger.Change{Networks: []*network.File{m.file, next}}))
		x.note()
	})
	if !refused() {
		t.Error("the file of the epoch before goes")
	}
	back()
	m.with(func(x *marker) { must(t, x.pair()) })
	if !refused() {
		t.Error("it is forgotten with the older ledger")
	}
	m.with(func(x *marker) {
		if err := x.outgrown(next, ""); err != nil {
			t.Error(err)
		}
	})
}
