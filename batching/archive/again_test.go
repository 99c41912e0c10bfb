package archive

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// sum is what an archive serves and counts.
func sum(t *testing.T, a *Archive) string {
	t.Helper()
	st := a.Stats()
	var served []string
	for _, it := range history(t, a, Query{Gateway: "*"}) {
		served = append(served, fmt.Sprintf("%s/%d@%d", it.Gateway, it.Reading.Seq, it.Position))
	}
	return fmt.Sprintf("%s; %d batches, %d readings, %d alarms, %d waiting", strings.Join(served, " "), st.Batches, st.Readings, st.Alarms, st.Waiting)
}

func expect(t *testing.T, a *Archive, want string) {
	t.Helper()
	if got := sum(t, a); got != want {
		t.Errorf("archive has %s\nwant %s", got, want)
	}
}

func TestABatchThatCameBeforeTheFileThatNamesItsGatewayCounts(t *testing.T) {
	barn, mill := newSigner("barn", 1), newSigner("mill", 2)
	s, ix := newMemoryStream(), newMemoryIndex()
	s.put(mill.block(t, run(1, 2)...), barn.block(t, run(1, 1)...))
	a := open(t, s, ix, barn)
	index(t, a)
	expect(t, a, "barn/1@2; 1 batches, 1 readings, 0 alarms, 1 waiting")
	a = open(t, s, ix, barn) // no other file: nothing is looked at again
	index(t, a)
	expect(t, a, "barn/1@2; 1 batches, 1 readings, 0 alarms, 1 waiting")
	s.put(mill.block(t, run(3, 4)...))
	synctest.Test(t, func(t *testing.T) {
		s.put() // the channel to wait at must be of this bubble
		a := open(t, s, ix, barn, mill)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, a, "barn/1@2 mill/1@1 mill/2@1 mill/3@3 mill/4@3; 3 batches, 5 readings, 0 alarms, 0 waiting")
		if len(a.Stats().Refused) > 0 {
			t.Errorf("refused %v", a.Stats().Refused)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	if keys := ix.keys([]byte{kindWaiting}, nil, false); len(keys) > 0 {
		t.Errorf("%q still wait", keys)
	}
}

func TestABatchThatCameBeforeTheFileThatNamesItsKeyCounts(t *testing.T) {
	old, young := newSigner("barn", 1), newSigner("barn", 2)
	s, ix := newMemoryStream(), newMemoryIndex()
	s.put(old.block(t, run(1, 2)...), young.block(t, run(3, 4)...))
	index(t, open(t, s, ix, old))
	a := open(t, s, ix, young)
	index(t, a)
	expect(t, a, "barn/1@1 barn/2@1 barn/3@2 barn/4@2; 2 batches, 4 readings, 0 alarms, 0 waiting")
}

func TestABlockWaitsUntilAFileNamesItsGateway(t *testing.T) {
	barn, mill, shed := newSigner("barn", 1), newSigner("mill", 2), newSigner("shed", 3)
	s, ix := newMemoryStream(), newMemoryIndex()
	s.put(mill.block(t, run(1, 1)...), shed.block(t, run(1, 1)...), mill.block(t, run(2, 2)...))
	index(t, open(t, s, ix, barn))
	s.drop(3)
	a := open(t, s, ix, barn, shed)
	index(t, a)
	expect(t, a, "shed/1@2; 1 batches, 1 readings, 0 alarms, 1 waiting") // what is not kept any more does not wait
	a = open(t, s, ix, mill)
	index(t, a)
	expect(t, a, "mill/1@1 shed/1@2; 2 batches, 2 readings, 0 alarms, 0 waiting")
}

func TestOnlyWhatIsABatchByEveryOtherRuleWaits(t *testing.T) {
	barn, mill := newSigner("barn", 1), newSigner("mill", 2)
	foreign := newSigner("mill", 2)
	foreign.genesis[0]++
	flipped := mill.seal(t, run(1, 5)...)
	flipped[len(flipped)-1] ^= 1
	s := newMemoryStream()
	s.put(foreign.block(t, run(1, 5)...), wrap(t, envelope.Tag("mill"), flipped, 0), wrap(t, envelope.Tag("mill"), []byte("hello"), 0),
		wrap(t, envelope.Tag("barn"), mill.seal(t, run(1, 5)...), 0), wrap(t, envelope.Tag(""), mill.seal(t, run(1, 5)...), 0))
	a := open(t, s, newMemoryIndex(), barn)
	index(t, a)
	expect(t, a, "; 0 batches, 0 readings, 0 alarms, 0 waiting")
}

// What was served already stays as it is, though a block that waited stands
// before it.
func TestABlockThatWaitedAddsOnlyWhatNoOtherHolds(t *testing.T) {
	first, then := newSigner("mill", 1), newSigner("mill", 1)
	first.name = "mull" // what the gateway was called
	other := run(2, 4)
	other[0].Value = reading.Int(-1)
	s, ix := newMemoryStream(), newMemoryIndex()
	s.put(first.block(t, run(1, 3)...), then.block(t, other...))
	index(t, open(t, s, ix, then))
	a := open(t, s, ix, first)
	index(t, a)
	expect(t, a, "mull/1@1 mill/2@2 mill/3@2 mill/4@2; 2 batches, 4 readings, 1 alarms, 0 waiting")
}

// The process is killed before every write in turn, and what comes out is as if
// it had not been.
func TestAfterACutWhileLookingAgainTheIndexIsTheSame(t *testing.T) {
	barn, mill, shed := newSigner("barn", 1), newSigner("mill", 2), newSigner("shed", 3)
	s, before := newMemoryStream(), newMemoryIndex()
	for n := range uint64(groupBatches + 10) {
		s.put(mill.block(t, run(n+1, n+2)...))
		if n%32 == 0 {
			s.put(shed.block(t, run(n+1, n+1)...))
		}
	}
	spread := run(100, 2300) // more keys than one write takes
	for i := range spread {
		spread[i].Seq *= 2048
		spread[i].Received *= 1 << spanBits
	}
	s.put(barn.block(t, run(1, 9)...), mill.block(t, spread...), mill.block(t, spread[7:9]...))
	index(t, open(t, s, before, barn))
	for name, forgotten := range map[string]uint64{"those that wait": 0, "all": 1} {
		start := func() *memoryIndex {
			ix := before.copy()
			l, err := decodeLooks(ix.values[string(kindFile)])
			if err != nil {
				t.Fatal(err)
			}
			l.forgotten = forgotten
			ix.values[string(kindFile)] = l.encode()
			return ix
		}
		whole := start()
		a := open(t, s, whole, barn, mill)
		index(t, a)
		want := sum(t, a)
		if whole.writes < 5 || a.Stats().Waiting == 0 || a.Stats().Batches != groupBatches+10+2 {
			t.Fatalf("%s: %d writes, %+v", name, whole.writes, a.Stats())
		}
		for cut := range whole.writes {
			ix := start()
			ix.fail = func(write int) error {
				if write == cut+1 {
					return errCut
				}
				return nil
			}
			if err := open(t, s, ix, barn, mill).all(t.Context()); !errors.Is(err, errCut) {
				t.Fatalf("%s: cut at write %d: %v", name, cut+1, err)
			}
			ix = ix.copy()
			a := open(t, s, ix, barn, mill)
			index(t, a)
			if got := sum(t, a); got != want || len(ix.values) != len(whole.values) {
				t.Errorf("%s: cut at write %d: archive has %s in %d keys\nwant %s in %d", name, cut+1, got, len(ix.values), want, len(whole.values))
			}
		}
	}
}

// What is written of a batch when the process is killed is not served if the
// next file does not name its gateway.
func TestAPartOfABatchIsTakenBack(t *testing.T) {
	barn, mill := newSigner("barn", 1), newSigner("mill", 2)
	spread := run(100, 2300)
	for i := range spread {
		spread[i].Seq *= 2048
		spread[i].Received *= 1 << spanBits
	}
	s, ix := newMemoryStream(), newMemoryIndex()
	s.put(mill.block(t, spread...))
	ix.fail = func(write int) error {
		if write == 2 {
			return errCut
		}
		return nil
	}
	if err := open(t, s, ix, barn, mill).all(t.Context()); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	ix = ix.copy()
	a := open(t, s, ix, barn)
	index(t, a)
	expect(t, a, "; 0 batches, 0 readings, 0 alarms, 1 waiting")
	if err := a.Runs(mill.public(), func(runs [][2]uint64, block stardust.BlockID) bool {
		t.Errorf("%v of %v are left", runs, block)
		return false
	}); err != nil {
		t.Error(err)
	}
	a = open(t, s, ix, mill)
	index(t, a)
	if st := a.Stats(); st.Readings != uint64(len(spread)) || st.Waiting != 0 {
		t.Errorf("Stats = %+v, want %d readings", st, len(spread))
	}
}

// Blocks that found no room among those that wait count nevertheless.
func TestWaitingBlocksAreBoundedAndNoneIsLost(t *testing.T) {
	barn, mill := newSigner("barn", 1), newSigner("mill", 2)
	other := run(1, 2)
	other[1].Value = reading.Int(-1)
	s, ix := newMemoryStream(), newMemoryIndex()
	s.put(mill.block(t, run(1, 1)...), barn.block(t, run(1, 2)...), barn.block(t, other...), mill.block(t, run(2, 2)...))
	index(t, open(t, s, ix, barn))
	// Many others that are not kept any more.
	at := s.put(make([][]byte, MaxWaiting-2)...)
	for n := range uint64(MaxWaiting - 2) {
		ix.values[string(waitingKey(at-n))] = []byte{}
	}
	s.put(mill.block(t, run(3, 3)...), mill.block(t, run(4, 4)...), mill.block(t, run(5, 5)...))
	a := open(t, s, ix, barn)
	index(t, a)
	expect(t, a, "barn/1@2 barn/2@2; 1 batches, 2 readings, 1 alarms, 10000 waiting")
	if n := len(ix.keys([]byte{kindWaiting}, nil, false)); n != MaxWaiting {
		t.Errorf("%d entries, want %d", n, MaxWaiting)
	}
	a = open(t, s, ix, barn, mill)
	index(t, a)
	const want = "barn/1@2 mill/1@1 barn/2@2 mill/2@4 mill/3@10003 mill/4@10004 mill/5@10005; 6 batches, 7 readings, 1 alarms, "
	if got := sum(t, a); !strings.HasPrefix(got, want) {
		t.Errorf("archive has %s\nwant %s", got, want)
	}
	a = open(t, s, ix, mill) // now the list is whole: what is gone leaves it
	index(t, a)
	expect(t, a, want+"0 waiting")
}

// An index that does not say what was refused is gone through as a whole.
func TestAnIndexWithoutAFileIsLookedAtAgain(t *testing.T) {
	barn, mill := newSigner("barn", 1), newSigner("mill", 2)
	s, ix := newMemoryStream(), newMemoryIndex()
	s.put(mill.block(t, run(1, 1)...), barn.block(t, run(1, 2)...))
	index(t, open(t, s, ix, barn))
	delete(ix.values, string(kindFile))
	delete(ix.values, string(waitingKey(1)))
	a := open(t, s, ix, barn, mill)
	index(t, a)
	expect(t, a, "barn/1@2 mill/1@1 barn/2@2; 2 batches, 3 readings, 0 alarms, 0 waiting")
}
