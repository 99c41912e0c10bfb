package ledger_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/blake2b"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestEveryOrderOfArrivalGivesTheSameReplica(t *testing.T) {
	d := draw(t, "g -> a b; a b -> c; g c -> d; b -> e; d e -> f")
	want := digestOf(d)
	orders := 0
	permute(slices.Clone(d.order), len(d.order), func(order []string) {
		orders++
		s := newMemory()
		l := start(t, ledger.Config{}, s)
		for _, name := range order {
			if err := receive(t, l, d.raws[name]); err != nil {
				t.Fatalf("%v: receive %s: %v", order, name, err)
			}
		}
		tips, _ := l.AllTips(10)
		got, err := l.Digest()
		if err != nil || got != want || d.named(tips) != "f" || l.Stats().Held != 0 {
			t.Fatalf("%v: digest %x, %v, tips %s, %d held", order, got, err, d.named(tips), l.Stats().Held)
		}
	})
	if orders != 720 {
		t.Errorf("%d orders tried", orders)
	}
}

func permute(names []string, n int, f func([]string)) {
	if n == 1 {
		f(names)
		return
	}
	for i := range n {
		permute(names, n-1, f)
		if n%2 == 0 {
			names[i], names[n-1] = names[n-1], names[i]
		} else {
			names[0], names[n-1] = names[n-1], names[0]
		}
	}
}

// digestOf computes the digest of all blocks of the drawing the plain way.
func digestOf(d *dag) [32]byte {
	var ids []stardust.BlockID
	for _, name := range d.order {
		ids = append(ids, d.ids[name])
	}
	var all []byte
	for _, id := range stardust.SortParents(ids) {
		all = append(all, id[:]...)
	}
	return blake2b.Sum256(all)
}

// chain is a drawing of n blocks, each approving the one before.
func chain(t testing.TB, n int) *dag {
	d := draw(t, "g -> n0")
	for i := 1; i < n; i++ {
		name := fmt.Sprint("n", i)
		d.add(name, newBlock(name, "", d.ids[fmt.Sprint("n", i-1)]))
	}
	return d
}

// settle waits until the ledger has finished what it was given before: the
// first block of a chain is answered while the rest is still being written.
func settle(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	orphan := newBlock("", "", stardust.IDOf([]byte("never stored")))
	if _, err := l.Attach(t.Context(), orphan, nil); !errors.Is(err, ledger.ErrUnknownParent) {
		t.Fatal(err)
	}
}

func TestALongChainReceivedBackwardsIsAttachedAtOnce(t *testing.T) {
	const n = 3000
	d := chain(t, n)
	l := start(t, ledger.Config{}, newMemory())
	for _, name := range slices.Backward(d.order) {
		if err := receive(t, l, d.raws[name]); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, l)
	s := l.Stats()
	if got, err := l.Digest(); s.Blocks != n || s.Held != 0 || s.Dropped != 0 || got != digestOf(d) || err != nil {
		t.Errorf("Stats = %+v, digest %x, %v", s, got, err)
	}
	if tips := d.named(l.Tips()); tips != "n2998 n2999" {
		t.Errorf("tips are %s", tips)
	}
}

func TestHeldBlocksAreBoundedAndTheOldestDropped(t *testing.T) {
	d := draw(t, "g -> p; p -> a b c d e")
	size := len(d.raws["a"])
	for name, cfg := range map[string]ledger.Config{
		"by count": {HoldCount: 3},
		"by bytes": {HoldBytes: 3*size + size/2},
	} {
		l := start(t, cfg, newMemory())
		for _, name := range []string{"a", "b", "c", "c", "d", "e"} {
			if err := receive(t, l, d.raws[name]); err != nil {
				t.Fatal(err)
			}
		}
		if s := l.Stats(); s.Held != 3 || s.HeldBytes != 3*size || s.Dropped != 2 {
			t.Errorf("%s: Stats = %+v, want 3 held and 2 dropped", name, s)
		}
		d.attach(l, "p")
		if s := l.Stats(); s.Blocks != 4 || s.Held != 0 || s.HeldBytes != 0 {
			t.Errorf("%s: Stats = %+v, want p, c, d and e stored", name, s)
		}
		if _, err := l.Block(d.ids["a"]); err == nil {
			t.Errorf("%s: the oldest block was kept", name)
		}
		d.attach(l, "a", "b") // a dropped block may come again
	}
}

func TestHeldBlockOfAnotherParentSurvivesDrops(t *testing.T) {
	d := draw(t, "g -> p q; p q -> x; p -> a; q -> b; a b -> y")
	l := start(t, ledger.Config{HoldCount: 2}, newMemory())
	for _, name := range []string{"x", "y", "b", "q", "p"} {
		if err := receive(t, l, d.raws[name]); err != nil {
			t.Fatal(err)
		}
	}
	// x was dropped for b; q made b solid; y still misses a.
	if s := l.Stats(); s.Blocks != 3 || s.Held != 1 || s.Dropped != 1 {
		t.Errorf("Stats = %+v", s)
	}
	d.attach(l, "a")
	if s := l.Stats(); s.Blocks != 5 || s.Held != 0 {
		t.Errorf("Stats = %+v", s)
	}
}

func TestReceiveRefusesWhatIsTooLong(t *testing.T) {
	l := start(t, ledger.Config{}, newMemory())
	err := receive(t, l, make([]byte, stardust.MaxBlockSize+1))
	if err == nil || !strings.Contains(err.Error(), "32769 bytes, at most 32768 allowed") {
		t.Errorf("Receive = %v", err)
	}
}

// Whatever comes in is refused, held or stored, never anything else; what is
// stored is the block itself.
func FuzzReceive(f *testing.F) {
	d := draw(f, "g -> a b; a b -> c")
	for _, raw := range d.raws {
		f.Add(raw, uint8(0))
	}
	f.Add([]byte{}, uint8(1))
	l := start(f, ledger.Config{HoldCount: 64}, newMemory())
	f.Fuzz(func(t *testing.T, raw []byte, parents uint8) {
		if n := int(parents % 3); n > 0 { // valid parents make the rest of the block matter
			ids := slices.Concat([]stardust.BlockID{stardust.GenesisID}, l.Tips())
			head := []byte{stardust.ProtocolVersion, 0}
			for _, id := range stardust.SortParents(ids[:min(n, len(ids))]) {
				head = append(head, id[:]...)
				head[1]++
			}
			body := binary.LittleEndian.AppendUint32(head, uint32(max(0, len(raw)-8)))
			raw = append(body, raw...)
		}
		err := receive(t, l, raw)
		b, parseErr := stardust.ParseBlock(raw)
		if (err == nil) != (parseErr == nil) {
			t.Errorf("Receive(%x) = %v, ParseBlock says %v", raw, err, parseErr)
		}
		if stored, err := l.Block(stardust.IDOf(raw)); err == nil && (string(stored) != string(raw) || b == nil) {
			t.Errorf("stored %x for %x", stored, raw)
		}
	})
}
