package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

func TestOutcomesAreInTheOrderOfTheBlocks(t *testing.T) {
	d := draw(t, "g -> a b; a b -> c; c -> d; g -> x; x -> y")
	l := start(t, ledger.Config{}, newMemory())
	d.attach(l, "a")
	out, err := l.Receive(t.Context(), incoming("other", [][]byte{
		d.raws["a"], {1, 2, 3}, d.raws["b"], d.raws["c"], make([]byte, stardust.MaxBlockSize+1), d.raws["y"], d.raws["d"], d.raws["b"],
	}...))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range out {
		switch {
		case errors.Is(o.Err, ledger.ErrInvalid):
			got = append(got, "invalid")
		case o.Err != nil:
			t.Errorf("%v", o.Err)
		case len(o.Missing) > 0:
			got = append(got, d.names[o.ID]+" misses "+d.named(o.Missing))
		case o.Known:
			got = append(got, d.names[o.ID]+" known")
		default:
			got = append(got, d.names[o.ID])
		}
	}
	if want := "a known, invalid, b, c, invalid, y misses x, d, b"; strings.Join(got, ", ") != want {
		t.Errorf("outcomes are %s; want %s", strings.Join(got, ", "), want)
	}
	if s := l.Stats(); s.Blocks != 4 || s.Held != 1 || s.Refused != 2 {
		t.Errorf("Stats = %+v", s)
	}
}

func TestManyBlocksAreReceivedAtOnce(t *testing.T) {
	d := chain(t, 1000)
	raws := make([][]byte, 0, len(d.order))
	for _, name := range d.order {
		raws = append(raws, d.raws[name])
	}
	for name, order := range map[string]func(){
		"in order": func() {},
		"shuffled": func() { rand.Shuffle(len(raws), func(i, j int) { raws[i], raws[j] = raws[j], raws[i] }) },
	} {
		order()
		l := start(t, ledger.Config{}, newMemory())
		if _, err := l.Receive(t.Context(), incoming("other", raws...)); err != nil {
			t.Fatal(err)
		}
		settle(t, l)
		if got, err := l.Digest(); got != digestOf(d) || err != nil || l.Stats().Held != 0 {
			t.Errorf("%s: digest %x, %v, %d held", name, got, err, l.Stats().Held)
		}
	}
	l := start(t, ledger.Config{}, newMemory())
	if _, err := l.Receive(t.Context(), make([]ledger.Incoming, ledger.MaxReceive+1)); err == nil {
		t.Error("more than MaxReceive blocks are received")
	}
}

func TestReceiveEndsWithItsContextAndWithTheLedger(t *testing.T) {
	d := draw(t, "g -> a b")
	l, err := ledger.New(ledger.Config{Network: testNetwork()}, newMemory())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Receive(ctx, incoming("other", [][]byte{d.raws["a"]}...)); !errors.Is(err, context.Canceled) {
		t.Errorf("Receive before Run and after its context: %v", err)
	}
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Receive(t.Context(), incoming("other", [][]byte{d.raws["b"]}...)); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("Receive after Run: %v", err)
	}
}

// Who floods with blocks that never become solid pushes out its own.
func TestAFloodOfOrphansPushesOutItsOwnOnly(t *testing.T) {
	d := draw(t, "g -> p; p -> good")
	l := start(t, ledger.Config{HoldCount: 4}, newMemory())
	if _, err := l.Receive(t.Context(), incoming("honest", [][]byte{d.raws["good"]}...)); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		raw, err := newBlock("flood", fmt.Sprint(i), stardust.IDOf(fmt.Append(nil, i))).AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Receive(t.Context(), incoming("flooder", [][]byte{raw}...)); err != nil {
			t.Fatal(err)
		}
	}
	d.attach(l, "p")
	if _, err := l.Block(d.ids["good"]); err != nil {
		t.Errorf("the honest gateway's block was pushed out: %v", err)
	}
}

func TestOwnBlocksAreAnnouncedAndReceivedOnesAreNot(t *testing.T) {
	d := draw(t, "g -> a b; a b -> c")
	var told []stardust.BlockID
	l := start(t, ledger.Config{Announce: func(id stardust.BlockID, raw []byte) {
		if stardust.IDOf(raw) != id {
			t.Errorf("%v announced with other bytes", id)
		}
		told = append(told, id)
	}}, newMemory())
	d.attach(l, "a")
	if err := receive(t, l, d.raws["b"]); err != nil {
		t.Fatal(err)
	}
	d.attach(l, "c")
	settle(t, l)
	if got := d.named(told); got != "a c" {
		t.Errorf("announced %s, want a c", got)
	}
}

func TestBlocksAreFollowedInTheirOrder(t *testing.T) {
	for name, s := range map[string]ledger.Store{"memory": newMemory(), "badger": open(t, t.TempDir())} {
		d := draw(t, "g -> a b; a b -> c; b c -> d e")
		l := start(t, ledger.Config{}, s)
		d.attach(l, "a", "b")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var got []string
		for at := uint64(0); len(got) < 5; {
			if err := l.Wait(ctx, at); err != nil {
				t.Fatalf("%s: wait after %d: %v", name, at, err)
			}
			if err := l.Blocks(at, func(p uint64, id stardust.BlockID, raw []byte, attached time.Time) bool {
				if p <= at || string(raw) != string(d.raws[d.names[id]]) || attached.IsZero() {
					t.Errorf("%s: block %d after %d: %x at %v", name, p, at, raw, attached)
				}
				at, got = p, append(got, d.names[id])
				return len(got)%2 == 1
			}); err != nil {
				t.Fatal(err)
			}
			if len(got) == 2 {
				go d.attach(l, "c", "d", "e")
			}
		}
		if want := []string{"a", "b", "c", "d", "e"}; !slices.Equal(got, want) || l.Position() != 5 {
			t.Errorf("%s: followed %v, position %d", name, got, l.Position())
		}
		cancel()
		if err := l.Wait(ctx, 5); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Wait for what never comes: %v", name, err)
		}
	}
}

// Blocks of 195 bytes with their proof of work, as they come when a replica
// catches up. Reported is the time of all threads beside that of the clock.
func BenchmarkCatchUp(b *testing.B) {
	raws := provenChain(b, 20_000)
	for b.Loop() {
		l := start(b, ledger.Config{Network: proven()}, open(b, b.TempDir()))
		before := cpuTime(b)
		began := time.Now()
		for page := range slices.Chunk(raws, 2000) {
			out, err := l.Receive(b.Context(), incoming("other", page...))
			if err != nil || out[0].Err != nil {
				b.Fatal(err, out)
			}
		}
		b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/float64(len(raws))/1000, "µs-cpu/block")
		b.ReportMetric(float64(len(raws))/time.Since(began).Seconds(), "blocks/s")
	}
}

// The same, one at a time.
func BenchmarkReceiveOne(b *testing.B) {
	raws := provenChain(b, 5000)
	for b.Loop() {
		l := start(b, ledger.Config{Network: proven()}, open(b, b.TempDir()))
		before := cpuTime(b)
		for _, raw := range raws {
			if err := receive(b, l, raw); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/float64(len(raws))/1000, "µs-cpu/block")
	}
}

// proven is a network that asks for the default score.
func proven() *network.File {
	f := testNetwork()
	f.MinPoWScore = 100
	return f
}

// provenChain returns n blocks of 195 bytes, each with the two before it as
// parents and a nonce for the default score.
func provenChain(tb testing.TB, n int) (raws [][]byte) {
	parents := []stardust.BlockID{stardust.GenesisID}
	search := curl.Kernels()[0].NewSearcher()
	data := make([]byte, 100)
	for i := range n {
		copy(data, fmt.Sprint(i))
		block := newBlock("payload!", string(data), parents...)
		raw, err := block.AppendBinary(nil)
		if err != nil {
			tb.Fatal(err)
		}
		search.Reset(stardust.PoWDigest(raw), stardust.TargetZeros(len(raw), proven().MinPoWScore), rand.Uint64())
		for found := false; !found; {
			var nonce uint64
			if nonce, found, _ = search.Batch(); found {
				stardust.SetNonce(raw, nonce)
			}
		}
		raws = append(raws, raw)
		parents = append(parents, stardust.IDOf(raw))
		parents = parents[max(0, len(parents)-2):]
	}
	return raws
}

func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A spoilt store gives back other bytes than it was given, or none.
type spoilt struct {
	*memory
	load func(ledger.Record) (ledger.Record, error)
}

func (s *spoilt) Load(id stardust.BlockID) (ledger.Record, error) {
	rec, err := s.memory.Load(id)
	if err != nil {
		return rec, err
	}
	return s.load(rec)
}

func TestABlockThatCannotBeReadIsFetched(t *testing.T) {
	d := draw(t, "g -> a b; a b -> c")
	for name, load := range map[string]func(ledger.Record) (ledger.Record, error){
		"an error": func(ledger.Record) (ledger.Record, error) { return ledger.Record{}, errors.New("checksum") },
		"other bytes": func(r ledger.Record) (ledger.Record, error) {
			r.Raw = slices.Clone(r.Raw)
			r.Raw[len(r.Raw)-1] ^= 1
			return r, nil
		},
	} {
		answer := d.raws["c"]
		s := &spoilt{memory: newMemory(), load: func(r ledger.Record) (ledger.Record, error) { return r, nil }}
		l := start(t, ledger.Config{Refetch: func(id stardust.BlockID) ([]byte, error) {
			if answer == nil {
				return nil, ledger.ErrNotFound
			}
			return answer, nil
		}}, s)
		d.attach(l)
		s.load = load
		if raw, err := l.Block(d.ids["c"]); string(raw) != string(d.raws["c"]) || err != nil {
			t.Errorf("%s: Block = %x, %v", name, raw, err)
		}
		if m, err := l.Metadata(d.ids["c"]); d.named(m.Parents) != "a b" || err != nil {
			t.Errorf("%s: Metadata = %+v, %v", name, m, err)
		}
		if st := l.Stats(); st.Damaged != 2 || st.Refetched != 2 {
			t.Errorf("%s: Stats = %+v", name, st)
		}
		for what, raw := range map[string][]byte{"another block": d.raws["b"], "nothing": nil} {
			answer = raw
			if raw, err := l.Block(d.ids["c"]); err == nil || errors.Is(err, ledger.ErrNotFound) {
				t.Errorf("%s, %s is fetched: Block = %x, %v", name, what, raw, err)
			}
		}
	}
}
