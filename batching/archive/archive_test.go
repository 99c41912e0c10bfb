package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestABatchOfAMemberIsServed(t *testing.T) {
	barn, mill := newSigner("barn", 1), newSigner("mill", 2)
	s := newMemoryStream()
	rs := run(1, 5)
	rs[2].Unit, rs[2].Time, rs[2].Clock, rs[2].Auth = "Cel", 77000, reading.ClockBad, reading.AuthPSK
	raw := barn.block(t, rs...)
	s.put(wrap(t, []byte("other"), nil, 0), raw, mill.block(t, run(1, 2)...))
	a := open(t, s, newMemoryIndex(), barn, mill)
	index(t, a)
	items := history(t, a, Query{Gateway: "barn"})
	if len(items) != 5 {
		t.Fatalf("%d readings, want 5", len(items))
	}
	for i, it := range items {
		if want := (Item{"barn", rs[i], stardust.IDOf(raw), 2}); it != want {
			t.Errorf("item %d = %+v, want %+v", i, it, want)
		}
	}
	if got := ids(history(t, a, Query{Gateway: "*", Limit: 3})); got != "barn/1 mill/1 barn/2 mill/2 barn/3 barn/4 barn/5" {
		t.Errorf("all gateways: %s", got)
	}
	if got := ids(history(t, a, Query{Gateway: "*", Without: "barn"})); got != "mill/1 mill/2" {
		t.Errorf("without barn: %s", got)
	}
	if st := a.Stats(); st.Position != 3 || st.Batches != 2 || st.Readings != 7 || len(st.Refused) != 0 {
		t.Errorf("Stats = %+v", st)
	}
	if got := strings.Join(a.Gateways(), " "); got != "barn mill" {
		t.Errorf("Gateways = %s", got)
	}
}

func TestWhatIsNoBatchOfItsTagsGatewayIsRefused(t *testing.T) {
	barn, mill := newSigner("barn", 1), newSigner("mill", 2)
	forger := newSigner("barn", 3) // says barn, has another key
	foreign := newSigner("barn", 1)
	foreign.genesis[0]++
	flipped := barn.seal(t, run(1, 5)...)
	flipped[len(flipped)-1] ^= 1
	for _, tt := range []struct {
		name string
		raw  []byte
		want string // reason
	}{
		{"signed with another key", forger.block(t, run(1, 5)...), "key"},
		{"signature changed", wrap(t, envelope.Tag("barn"), flipped, 0), "signature"},
		{"another network", foreign.block(t, run(1, 5)...), "signature"},
		{"another member's batch under the tag", wrap(t, envelope.Tag("barn"), mill.seal(t, run(1, 5)...), 0), "key"},
		{"name of a gateway that is no member", newSigner("shed", 4).block(t, run(1, 5)...), "member"},
		{"no envelope", wrap(t, envelope.Tag("barn"), []byte("hello"), 0), "syntax"},
		{"nothing", wrap(t, envelope.Tag("barn"), nil, 0), "syntax"},
		{"no name", wrap(t, envelope.Tag(""), barn.seal(t, run(1, 5)...), 0), "member"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newMemoryStream()
			s.put(tt.raw)
			a := open(t, s, newMemoryIndex(), barn, mill)
			index(t, a)
			if st := a.Stats(); st.Refused[tt.want] != 1 || len(st.Refused) != 1 || st.Readings != 0 || st.Position != 1 {
				t.Errorf("Stats = %+v, want one refused because of %q", st, tt.want)
			}
			if items := history(t, a, Query{Gateway: "*"}); len(items) > 0 {
				t.Errorf("it is served: %s", ids(items))
			}
			// It does not keep the real one out.
			s.put(barn.block(t, run(1, 5)...))
			index(t, a)
			if items := history(t, a, Query{Gateway: "barn"}); len(items) != 5 {
				t.Errorf("the real batch has %d readings", len(items))
			}
		})
	}
}

// One key may not say another member's name under its own tag.
func TestTagAndNameMustAgree(t *testing.T) {
	barn := newSigner("barn", 1)
	alias := newSigner("mill", 1) // the same key
	s := newMemoryStream()
	s.put(wrap(t, envelope.Tag("barn"), alias.seal(t, run(1, 5)...), 0))
	a := open(t, s, newMemoryIndex(), barn)
	index(t, a)
	if st := a.Stats(); st.Refused["gateway"] != 1 || st.Batches != 0 {
		t.Errorf("Stats = %+v, want one refused because of the gateway", st)
	}
}

func TestBlocksOfAFormerMemberStay(t *testing.T) {
	barn, mill := newSigner("barn", 1), newSigner("mill", 2)
	s, ix := newMemoryStream(), newMemoryIndex()
	s.put(barn.block(t, run(1, 2)...), mill.block(t, run(1, 2)...))
	index(t, open(t, s, ix, barn, mill))
	s.put(mill.block(t, run(3, 4)...))
	a := open(t, s, ix, barn)
	index(t, a)
	if got := ids(history(t, a, Query{Gateway: "mill"})); got != "mill/1 mill/2" || a.Stats().Refused["member"] != 1 {
		t.Errorf("mill has %s, %v", got, a.Stats())
	}
	if it, err := a.ByID("mill", 2); err != nil || it.Reading.Seq != 2 {
		t.Errorf("ByID = %v, %v", it, err)
	}
}

func TestTheFirstOfTwoRecordsCounts(t *testing.T) {
	barn := newSigner("barn", 1)
	other := run(4, 8)
	other[1].Value = reading.Int(-1) // number 5
	for _, tt := range []struct {
		name   string
		blocks func() [][]byte
		served string // number@position
		// dup, conflict: readings that were there already
		dup, conflict uint64
		alarm         string // number of first and second block
	}{
		{"the same envelope in another block", func() [][]byte {
			data := barn.seal(t, run(1, 3)...)
			return [][]byte{wrap(t, envelope.Tag("barn"), data, 0), wrap(t, envelope.Tag("barn"), data, 1)}
		}, "1@1 2@1 3@1", 3, 0, ""},
		{"the same records batched anew", func() [][]byte {
			return [][]byte{barn.block(t, run(1, 3)...), barn.block(t, run(3, 5)...), barn.block(t, run(1, 6)...)}
		}, "1@1 2@1 3@1 4@2 5@2 6@3", 6, 0, ""},
		{"another record", func() [][]byte {
			return [][]byte{barn.block(t, run(1, 6)...), barn.block(t, other...)}
		}, "1@1 2@1 3@1 4@1 5@1 6@1 7@2 8@2", 2, 1, "5 1 2"},
		{"another incarnation", func() [][]byte {
			again := *barn
			again.incarnation[7] = 9
			return [][]byte{barn.block(t, run(1, 3)...), again.block(t, run(2, 4)...)}
		}, "1@1 2@1 2@2 3@1 3@2 4@2", 0, 0, ""},
		{"numbers of two thousands", func() [][]byte {
			return [][]byte{barn.block(t, run(1022, 1025)...), barn.block(t, run(1020, 1023)...)}
		}, "1020@2 1021@2 1022@1 1023@1 1024@1 1025@1", 2, 0, ""},
	} {
		for _, together := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, in one write %v", tt.name, together), func(t *testing.T) {
				s, ix := newMemoryStream(), newMemoryIndex()
				a := open(t, s, ix, barn)
				var blocks []stardust.BlockID
				for _, raw := range tt.blocks() {
					s.put(raw)
					blocks = append(blocks, stardust.IDOf(raw))
					if !together {
						index(t, a)
					}
				}
				index(t, a)
				var served []string
				for _, it := range history(t, a, Query{Gateway: "barn"}) {
					served = append(served, fmt.Sprintf("%d@%d", it.Reading.Seq, it.Position))
				}
				if got := strings.Join(served, " "); got != tt.served {
					t.Errorf("served %s, want %s", got, tt.served)
				}
				st := a.Stats()
				if st.Duplicates != tt.dup || st.Conflicts != tt.conflict || st.Readings != uint64(len(served)) {
					t.Errorf("Stats = %+v, want %d duplicates, %d conflicts", st, tt.dup, tt.conflict)
				}
				alarms, err := a.Alarms()
				if err != nil {
					t.Fatal(err)
				}
				got := ""
				for _, al := range alarms {
					got = fmt.Sprintf("%d %d %d", al.Seq, slices.Index(blocks, al.First)+1, slices.Index(blocks, al.Second)+1)
					if al.Gateway != "barn" || !al.Key.Equal(barn.public()) || al.Incarnation != barn.incarnation {
						t.Errorf("alarm is %+v", al)
					}
				}
				if got != tt.alarm || len(alarms) != st.Alarms || len(alarms) != open(t, s, ix, barn).Stats().Alarms {
					t.Errorf("alarms are %q (%d), want %q", got, st.Alarms, tt.alarm)
				}
			})
		}
	}
}

func TestRunFollowsTheStreamAndRestsWhenNothingComes(t *testing.T) {
	barn := newSigner("barn", 1)
	blocks := [][]byte{barn.block(t, run(1, 3)...), wrap(t, []byte("vote"), nil, 0), barn.block(t, run(4, 6)...), wrap(t, []byte("vote"), nil, 1)}
	synctest.Test(t, func(t *testing.T) {
		s, ix := newMemoryStream(), newMemoryIndex()
		a := open(t, s, ix, barn)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		s.put(blocks[0], blocks[1])
		synctest.Wait()
		s.put(blocks[2])
		time.Sleep(groupTime)
		synctest.Wait()
		if st := a.Stats(); st.Position != 3 || st.Readings != 6 || ix.writes != 1 {
			t.Errorf("after a while: %+v, %d writes; want both batches in one", st, ix.writes)
		}
		s.put(blocks[3])
		time.Sleep(time.Hour)
		synctest.Wait()
		if ix.writes != 1 {
			t.Errorf("%d writes although no batch came", ix.writes)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func TestARefusedWriteIsTriedAgain(t *testing.T) {
	barn := newSigner("barn", 1)
	raw := barn.block(t, run(1, 3)...)
	synctest.Test(t, func(t *testing.T) {
		s, ix := newMemoryStream(), newMemoryIndex()
		ix.fail = func(write int) error {
			if write < 5 {
				return fmt.Errorf("disk full: %w", errBusy)
			}
			return nil
		}
		s.put(raw)
		a := open(t, s, ix, barn)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if st := a.Stats(); st.Readings != 3 || ix.writes != 5 {
			t.Errorf("after %d writes: %+v", ix.writes, st)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func TestRunEndsWhenTheIndexIsInDoubt(t *testing.T) {
	barn := newSigner("barn", 1)
	raw := barn.block(t, run(1, 3)...)
	synctest.Test(t, func(t *testing.T) {
		s, ix := newMemoryStream(), newMemoryIndex()
		ix.fail = func(int) error { return errCut }
		s.put(raw)
		if err := open(t, s, ix, barn).Run(t.Context()); !errors.Is(err, errCut) {
			t.Errorf("Run = %v, want the cause", err)
		}
	})
}

// The process is killed before every write in turn, and what comes out is as if
// it had not been.
func TestAfterACutAtAnyWriteTheIndexIsTheSame(t *testing.T) {
	barn, mill := newSigner("barn", 1), newSigner("mill", 2)
	s := newMemoryStream()
	other := run(1, 30)
	other[7].Value = reading.Int(-7)
	spread := run(100, 3000) // more keys than one write takes
	for i := range spread {
		spread[i].Seq *= 2048
		spread[i].Received *= 1 << spanBits
		spread[i].Device, spread[i].Name = fmt.Sprint(i%100), "n"
	}
	s.put(barn.block(t, run(1, 20)...), barn.block(t, run(15, 40)...), mill.block(t, run(1, 9)...),
		barn.block(t, spread[:2100]...), mill.block(t, run(9, 12)...), barn.block(t, other...), barn.block(t, spread[2090:2110]...))
	whole := newMemoryIndex()
	index(t, open(t, s, whole, barn, mill))
	if whole.writes < 4 {
		t.Fatalf("all is indexed in %d writes; the test wants several for one block", whole.writes)
	}
	for cut := range whole.writes {
		ix := newMemoryIndex()
		ix.fail = func(write int) error {
			if write == cut+1 {
				return errCut
			}
			return nil
		}
		if err := open(t, s, ix, barn, mill).all(t.Context()); !errors.Is(err, errCut) {
			t.Fatalf("cut at write %d: %v", cut+1, err)
		}
		ix = ix.copy()
		a := open(t, s, ix, barn, mill)
		index(t, a)
		for k, v := range whole.values {
			if !bytes.Equal(ix.values[k], v) {
				t.Errorf("cut at write %d: key %q is %x, want %x", cut+1, k, ix.values[k], v)
			}
		}
		if len(ix.values) != len(whole.values) {
			t.Errorf("cut at write %d: %d keys, want %d", cut+1, len(ix.values), len(whole.values))
		}
	}
}

func TestGroupsAreBounded(t *testing.T) {
	barn := newSigner("barn", 1)
	s, ix := newMemoryStream(), newMemoryIndex()
	for seq := uint64(1); seq <= 600; seq++ {
		s.put(barn.block(t, run(seq, seq)...))
	}
	index(t, open(t, s, ix, barn))
	if ix.writes != 3 {
		t.Errorf("600 batches in %d writes, want 3", ix.writes)
	}
	for n := range uint64(groupBlocks + 1) {
		s.put(wrap(t, nil, nil, n))
	}
	index(t, open(t, s, ix, barn))
	if ix.writes != 5 {
		t.Errorf("%d blocks that are no batch in %d writes, want 2", groupBlocks+1, ix.writes-3)
	}
}

func TestRunsTellsWhatStandsInWhichBlock(t *testing.T) {
	barn, again := newSigner("barn", 1), newSigner("barn", 1)
	again.incarnation[3] = 5
	s := newMemoryStream()
	gaps := append(run(1, 3), run(7, 9)...)
	blocks := [][]byte{barn.block(t, gaps...), barn.block(t, run(2, 5)...), again.block(t, run(1, 4)...), barn.block(t, run(1000, 1030)...)}
	s.put(blocks...)
	a := open(t, s, newMemoryIndex(), barn)
	index(t, a)
	s.drop(2)
	var got []string
	if err := a.Runs(barn.public(), func(runs [][2]uint64, block stardust.BlockID) bool {
		at := slices.IndexFunc(blocks, func(raw []byte) bool { return stardust.IDOf(raw) == block })
		got = append(got, fmt.Sprint(runs, at+1))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got) // the order of two incarnations is that of random numbers
	if want := "[[1 3] [7 9]] 1, [[1 4]] 3, [[1000 1023]] 4, [[1024 1030]] 4, [[4 5]] 0"; strings.Join(got, ", ") != want {
		t.Errorf("Runs yields %s, want %s", strings.Join(got, ", "), want)
	}
	n := 0
	if err := a.Runs(barn.public(), func([][2]uint64, stardust.BlockID) bool { n++; return false }); n != 1 || err != nil {
		t.Errorf("Runs goes on: %d, %v", n, err)
	}
}

// Whatever is damaged in the index, answers are errors and not panics.
func TestDamageIsAnError(t *testing.T) {
	barn := newSigner("barn", 1)
	s, good := newMemoryStream(), newMemoryIndex()
	other := run(3, 5)
	other[0].Value = reading.Bool(true)
	s.put(barn.block(t, run(1, 4)...), barn.block(t, other...), wrap(t, []byte("x"), nil, 0))
	index(t, open(t, s, good, barn))
	ask := func(ix *memoryIndex) error {
		a, err := New(config(barn), s, ix)
		if err != nil {
			return err
		}
		_, _, history := a.History(Query{Gateway: "*"})
		_, byID := a.ByID("barn", 1)
		_, _, latest := a.Latest("barn", "", "", "", 0)
		_, alarms := a.Alarms()
		runs := a.Runs(barn.public(), func([][2]uint64, stardust.BlockID) bool { return true })
		return errors.Join(history, byID, latest, alarms, runs)
	}
	if err := ask(good); err != nil {
		t.Fatal(err)
	}
	for key, value := range good.values {
		for _, bad := range [][]byte{{}, value[:len(value)/2], bytes.Repeat([]byte{0xff}, len(value)), append(bytes.Clone(value), 0xff)} {
			ix := good.copy()
			ix.values[key] = bad
			if err := ask(ix); err != nil && !errors.Is(err, ErrDamaged) && !strings.Contains(err.Error(), "layout") {
				t.Errorf("key %q with %x: %v, want ErrDamaged", key, bad, err)
			}
		}
		if key[0] == kindProgress || key[0] == kindGateway {
			continue
		}
		ix := good.copy()
		delete(ix.values, key)
		ix.values[key[:len(key)-1]] = value // a key cut short
		if err := ask(ix); err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotFound) {
			t.Errorf("key %q cut short: %v, want ErrDamaged", key, err)
		}
	}
	// An entry that leads to a block that is no batch.
	ix := good.copy()
	ix.values[string(batchKey("barn", 1, 3))] = (&part{low: 1, high: 2, filter: filter{0xff}}).encode()
	if err := ask(ix); !errors.Is(err, ErrDamaged) {
		t.Errorf("entry of no batch: %v, want ErrDamaged", err)
	}
}

func TestAlarmsAreBounded(t *testing.T) {
	barn := newSigner("barn", 1)
	s, ix := newMemoryStream(), newMemoryIndex()
	for n := range uint64(MaxAlarms - 2) {
		ix.values[string(alarmKey(1<<40+n))] = []byte("{}")
	}
	s.put(barn.block(t, run(1, 2)...))
	for i := range 5 {
		other := run(1, 2)
		other[0].Value = reading.Int(int64(100 + i))
		s.put(barn.block(t, other...))
	}
	a := open(t, s, ix, barn)
	index(t, a)
	alarms, err := a.Alarms()
	if st := a.Stats(); len(alarms) != MaxAlarms || err != nil || st.Alarms != MaxAlarms || st.Conflicts != 5 {
		t.Errorf("%d alarms, %v, %+v; want %d and 5 conflicts", len(alarms), err, st, MaxAlarms)
	}
}
