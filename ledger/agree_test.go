package ledger_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A federation is gateways whose ledgers hear of each other at once, as far as
// they are up.
type federation struct {
	t    testing.TB
	file *network.File
	keys []ed25519.PrivateKey
	all  []*member
	lost atomic.Uint32 // milestone whose signatures get lost when they are published
}

// A member is a gateway of a federation.
type member struct {
	f     *federation
	index int
	store ledger.Store // outlives a stop: the others may be reading
	inbox chan []byte

	retention ledger.Retention // of the next start
	clock     func() uint64

	mu sync.Mutex // guards what follows
	l  *ledger.Ledger
	up bool

	stop func()
}

func testKey(i int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(make([]byte, 31), byte(i+1)))
}

// federate starts n gateways of equal weight with fast rounds.
func federate(t testing.TB, n int, newStore func() ledger.Store) *federation {
	t.Helper()
	f := &federation{t: t}
	var gateways []network.Gateway
	for i := range n {
		key := testKey(i)
		f.keys = append(f.keys, key)
		gateways = append(gateways, network.Gateway{Name: fmt.Sprint("g", i), PublicKey: network.PublicKey(key.Public().(ed25519.PublicKey)), Weight: 1})
	}
	f.file = network.Create("test", gateways)
	f.file.MinPoWScore = 0
	f.file.RoundInterval, f.file.DataRoundInterval = network.Duration(20*time.Millisecond), network.Duration(20*time.Millisecond)
	for i := range n {
		m := &member{f: f, index: i, store: newStore()}
		if err := ledger.Begin(m.store); err != nil {
			t.Fatal(err)
		}
		f.all = append(f.all, m)
	}
	for _, m := range f.all {
		m.start()
	}
	return f
}

func memories() ledger.Store { return newMemory() }

func (m *member) start() {
	f := m.f
	f.t.Helper()
	inbox := make(chan []byte, 100_000)
	l, err := ledger.New(ledger.Config{
		Network: f.file, Key: f.keys[m.index], Retention: m.retention, Clock: m.clock,
		Announce: func(_ stardust.BlockID, raw []byte) { m.others(func(o *member, _ *ledger.Ledger) { o.deliver(raw) }) },
		Publish: func(sig consensus.Signature) {
			if sig.Index == f.lost.Load() {
				return
			}
			m.others(func(_ *member, l *ledger.Ledger) { _ = l.Certify([]consensus.Signature{sig}) })
		},
	}, m.store)
	if err != nil {
		f.t.Fatal(err)
	}
	m.mu.Lock()
	m.l, m.up, m.inbox = l, true, inbox
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Run(ctx); err != nil && !errors.Is(err, errPower) {
			f.t.Error(err)
		}
	})
	wg.Go(func() { m.receive(ctx, l, inbox) })
	wg.Go(func() { m.exchange(ctx, l) })
	m.stop = sync.OnceFunc(func() {
		m.mu.Lock()
		m.up = false
		m.mu.Unlock()
		cancel()
		wg.Wait()
	})
	f.t.Cleanup(m.stop)
}

func (m *member) ledger() *ledger.Ledger {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.l
}

// others calls tell for the other gateways that are up, if this one is.
func (m *member) others(tell func(*member, *ledger.Ledger)) {
	for _, o := range m.f.all {
		o.mu.Lock()
		l, up := o.l, o.up
		o.mu.Unlock()
		if o != m && up {
			tell(o, l)
		}
	}
}

func (m *member) deliver(raw []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.up {
		m.inbox <- raw
	}
}

func (m *member) receive(ctx context.Context, l *ledger.Ledger, inbox <-chan []byte) {
	for {
		select {
		case raw := <-inbox:
			if _, err := l.Receive(ctx, []ledger.Incoming{{From: "peer", Raw: raw}}); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// exchange tells the others what this one says of itself, and sends them what
// they lack, again and again.
func (m *member) exchange(ctx context.Context, l *ledger.Ledger) {
	key := network.PublicKey(m.f.keys[m.index].Public().(ed25519.PublicKey))
	for {
		m.others(func(o *member, to *ledger.Ledger) {
			to.Hear(key, l.Word())
			_ = l.Blocks(0, func(_ uint64, id stardust.BlockID, raw []byte, _ time.Time) bool {
				if ok, err := to.Has(id); err == nil && !ok {
					o.deliver(raw)
				}
				return ctx.Err() == nil
			})
			if a := to.Agreed(); a.Certified < a.Milestone {
				if sigs, err := l.Signatures(a.Certified+1, a.Milestone, 1000); err == nil {
					_ = to.Certify(sigs)
				}
			}
		})
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// attach attaches n blocks of this gateway and returns their ids.
func (m *member) attach(n int) (ids []stardust.BlockID) {
	m.f.t.Helper()
	l := m.ledger()
	for i := range n {
		b := newBlock(fmt.Sprint("hedgerow/g", m.index), fmt.Sprint(i, time.Now().UnixNano()), l.Tips()...)
		id, err := l.Attach(m.f.t.Context(), b, nil)
		if err != nil {
			m.f.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// certified waits until all gateways have certified the blocks.
func (f *federation) certified(ids []stardust.BlockID, at ...*member) {
	f.t.Helper()
	for _, m := range at {
		l := m.ledger()
		for _, id := range ids {
			eventually(f.t, fmt.Sprintf("block %v is certified at %d, where %+v", id, m.index, l.Agreed()), func() bool {
				p, err := l.Progress(id)
				if err != nil {
					f.t.Fatal(err)
				}
				return p.Certified
			})
		}
	}
}

// agree checks that the gateways have the same milestones.
func (f *federation) agree(at ...*member) {
	f.t.Helper()
	first := at[0].ledger()
	for index := uint32(1); index <= first.Agreed().Milestone; index++ {
		want, err := first.Milestone(index)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, m := range at[1:] {
			got, err := m.ledger().Milestone(index)
			if err == nil && got.ID != want.ID {
				f.t.Errorf("milestone %d is %x at %d, %x at %d", index, got.ID, m.index, want.ID, at[0].index)
			}
		}
	}
}

func TestOneGatewayConfirmsItsBlocks(t *testing.T) {
	f := federate(t, 1, memories)
	g := f.all[0]
	ids := g.attach(5)
	f.certified(ids, g)
	a := g.ledger().Agreed()
	if a.Milestone == 0 || a.Timestamp == 0 || a.Certified != a.Milestone {
		t.Errorf("agreed is %+v", a)
	}
	m, err := g.ledger().Milestone(a.Milestone)
	if err != nil || m.ID != a.ID || consensus.VerifyCertificate(f.file, m.ID, m.Signatures) != nil {
		t.Errorf("milestone is %+v, %v", m, err)
	}
	if index, err := g.ledger().MilestoneIndex(m.ID); index != a.Milestone || err != nil {
		t.Errorf("its index is %d, %v", index, err)
	}
	votes := g.ledger().Stats().Votes
	time.Sleep(200 * time.Millisecond)
	if n := g.ledger().Stats().Votes; n != votes {
		t.Errorf("%d votes while nothing waits", n-votes)
	}
}

func TestFourGatewaysAgree(t *testing.T) {
	f := federate(t, 4, func() ledger.Store { return open(t, t.TempDir()) })
	var ids []stardust.BlockID
	for _, m := range f.all {
		ids = append(ids, m.attach(10)...)
	}
	f.certified(ids, f.all...)
	f.agree(f.all...)

	f.all[3].stop() // three of four are a quorum
	ids = f.all[0].attach(10)
	f.certified(ids, f.all[:3]...)

	f.all[2].stop() // two are none
	before := f.all[0].ledger().Agreed()
	alone := append(f.all[0].attach(5), f.all[1].attach(5)...)
	time.Sleep(500 * time.Millisecond)
	if a := f.all[0].ledger().Agreed(); a.Milestone > before.Milestone+2 {
		t.Errorf("two of four agreed on %+v", a)
	}
	for _, tt := range []struct {
		what string
		id   stardust.BlockID
		want bool
	}{
		{"a block that three of four have confirmed", ids[0], true},
		{"one that two of four have", alone[4], false},
		{"one that nobody has", stardust.BlockID{1}, false},
		{"the genesis", stardust.GenesisID, true},
	} {
		if got, err := f.all[0].ledger().Certified(tt.id); err != nil || got != tt.want {
			t.Errorf("%s is certified: %t, %v; want %t", tt.what, got, err, tt.want)
		}
	}

	f.all[2].start()
	f.all[3].start()
	f.certified(append(ids, alone...), f.all...)
	f.agree(f.all...)
}
