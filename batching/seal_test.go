package batching

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestLoneReadingIsSealedAfterMaxAge(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		for range 3 {
			<-time.After(7 * time.Second)
			rec := r.submit("x")
			<-rec.Done()
			<-time.After(DefaultMaxAge - time.Millisecond)
			synctest.Wait()
			state, _, err := r.State(rec.First())
			if state != Stored || err != nil {
				t.Errorf("just before max age: %s, %v", state, err)
			}
			<-time.After(2 * time.Millisecond)
			synctest.Wait()
			state, id, err := r.State(rec.First())
			if state != Attached || err != nil || id == (stardust.BlockID{}) {
				t.Errorf("after max age: %s in %v, %v", state, id, err)
			}
		}
		if got := r.Stats(); got.Batches != 3 || got.Attached != 3 || got.LowWater != 3 || got.Backlog != (Backlog{}) {
			t.Errorf("stats %+v", got)
		}
		r.end()
	})
}

// Readings that a full batch left behind age from their own arrival.
func TestLeftoverIsSealedAfterItsOwnMaxAge(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MaxReadings = 10 })
		r.submitMany(5)
		<-time.After(time.Second)
		r.submitMany(8) // 10 go at once, 3 stay
		synctest.Wait()
		if n := r.l.attached(); n != 10 {
			t.Errorf("%d attached at once, want 10", n)
		}
		<-time.After(DefaultMaxAge - time.Millisecond)
		synctest.Wait()
		if n := r.l.attached(); n != 10 {
			t.Errorf("%d attached before max age, want 10", n)
		}
		<-time.After(2 * time.Millisecond)
		synctest.Wait()
		if n := r.l.attached(); n != 13 {
			t.Errorf("%d attached after max age, want 13", n)
		}
		r.end()
	})
}

func TestStatesGoForward(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.p.takes = time.Second
		rec := r.submit("x")
		<-rec.Done()
		var got []State
		for range 5 {
			synctest.Wait()
			state, _, err := r.State(1)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, state)
			<-time.After(750 * time.Millisecond)
		}
		if want := []State{Stored, Stored, Stored, Batched, Attached}; !slices.Equal(got, want) {
			t.Errorf("states %v, want %v", got, want)
		}
		for _, seq := range []uint64{0, 2} {
			if state, _, err := r.State(seq); !errors.Is(err, ErrNotFound) {
				t.Errorf("State(%d) = %s, %v", seq, state, err)
			}
		}
		r.end()
	})
}

// feed stores n readings as an earlier process would have.
func feed(t *testing.T, j *memJournal, n int) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		v, err := reading.Float(float64(random.IntN(5000)) / 100)
		if err != nil {
			t.Fatal(err)
		}
		p := Packet{Readings: []reading.Reading{{Device: fmt.Sprintf("probe-%d", random.IntN(50)), Name: "temperature", Unit: "Cel", Value: v}}}
		if _, err := j.Append([]Packet{p}, Stamp{Received: 1764000000000 + int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBlocksFillJustUnderTheStep(t *testing.T) {
	for _, tt := range []struct {
		score         uint32
		target, limit int
	}{
		{100, 0, 1771}, {100, 3000, 3000}, {500, 0, 3188}, {1500, 0, 3188}, {4000, 0, 3587}, {0, 0, 32768}, {10, 0, 17714},
	} {
		t.Run(fmt.Sprintf("score %d target %d", tt.score, tt.target), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newRig(t, func(c *Config) { c.Target = tt.target })
				r.l.score = tt.score
				for i := range 3000 { // a steady stream, as fast as blocks go
					r.submit(fmt.Sprintf("%d", rand.Int64()))
					if i%20 == 0 {
						<-time.After(time.Millisecond)
					}
				}
				<-time.After(3 * time.Second)
				synctest.Wait()
				sizes := r.l.sizes
				if r.l.attached() != 3000 {
					t.Fatalf("%d attached", r.l.attached())
				}
				for i, size := range sizes {
					if size > tt.limit || size < tt.limit*85/100 && i > 1 && i < len(sizes)-2 && len(r.l.batches(t)[i]) > 0 && tt.limit < 10000 {
						t.Errorf("block %d of %d has %d bytes, want just under %d", i, len(sizes), size, tt.limit)
					}
				}
				r.end()
			})
		})
	}
}

func TestBlocksGrowWithTheBacklog(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		j := newMemJournal()
		feed(t, j, 5000)
		r := startRig(t, j, newMemLedger(), &memProver{takes: 100 * time.Millisecond}, func(c *Config) { c.MaxReadings = 10000 })
		for r.l.attached() < 5000 {
			<-time.After(100 * time.Millisecond)
		}
		sizes := r.l.sizes
		if first, most := sizes[0], slices.Max(sizes); first > 1771 || most > 15943 || most < 14000 {
			t.Errorf("first block of %d bytes, largest of %d, want up to 1771 before the speed is known, then just under 15943", first, most)
		}
		if !slices.ContainsFunc(sizes, func(n int) bool { return n <= 1771 }) {
			t.Errorf("blocks of %v bytes never came down to 1771", sizes)
		}
		if j.reads > 2*5000 {
			t.Errorf("%d readings read to batch 5000", j.reads)
		}
		r.end()
	})
}

// A box whose nonces take seconds falls behind: a reading then costs less in a
// larger block, and has waited longer than its search takes.
func TestBlocksGrowWithTheBacklogOnASlowBox(t *testing.T) {
	for _, speed := range []float64{400e3, 100e3, 5e3} {
		inBubble(t, func(t *testing.T) {
			j := newMemJournal()
			feed(t, j, 5000)
			for i := range j.rs {
				j.rs[i].Received = time.Now().UnixMilli()
			}
			r := startRig(t, j, newMemLedger(), &memProver{speed: speed}, nil)
			for r.l.attached() < 5000 {
				<-time.After(time.Second)
			}
			tries := 0.0
			for _, zeros := range r.p.zeros {
				tries += math.Pow(3, float64(zeros))
			}
			if most := slices.Max(r.l.sizes); most < 4000 || tries/5000 > 1100 {
				t.Errorf("%v tries a second: blocks of up to %d bytes, %.0f tries a reading; want some above 4000 and at most 1100", speed, most, tries/5000)
			}
			r.end()
		})
	}
}

func TestLargestReadingIsAttached(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.l.setTips(1, 2, 3, 4, 5, 6, 7, 8)
		noise := make([]byte, MaxRaw)
		for i := range noise {
			noise[i] = byte(rand.Uint32())
		}
		odd := func(n int) string { return strings.Repeat("\x01", n) }
		p := Packet{Readings: []reading.Reading{{
			Device: odd(reading.MaxDevice), Name: odd(reading.MaxName), Unit: odd(reading.MaxUnit), Err: odd(reading.MaxErr),
			Value: reading.Bytes(noise),
		}}}
		r.submit("before")
		if _, err := r.Submit(Submission{Packet: p}); err != nil {
			t.Fatal(err)
		}
		r.submit("after")
		<-time.After(10 * time.Second)
		synctest.Wait()
		if r.l.attached() != 3 {
			t.Errorf("%d attached, want 3; blocks of %v bytes", r.l.attached(), r.l.sizes)
		}
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestRestartBatchesExactlyWhatIsNotMarked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		j, l := newMemJournal(), newMemLedger()
		feed(t, j, 30)
		for seq := uint64(1); seq <= 20; seq++ {
			if seq <= 10 || seq >= 15 {
				l.marks[seq] = stardust.BlockID{1}
			}
		}
		r := startRig(t, j, l, &memProver{}, nil)
		synctest.Wait()
		if got, want := fmt.Sprint(l.batches(t)), "[[[11 14] [21 30]]]"; got != want {
			t.Errorf("batches %s, want %s", got, want)
		}
		if got := r.Stats(); got.LowWater != 30 || got.Backlog != (Backlog{}) {
			t.Errorf("stats %+v", got)
		}
		r.end()
	})
}

func TestNumbersThatNoReadingHasAreLeftOut(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		j, l := newMemJournal(), newMemLedger()
		feed(t, j, 30)
		j.rs = append(slices.Clone(j.rs[4:9]), j.rs[12:28]...) // 1-4, 10-12 and 29-30 are gone
		r := startRig(t, j, l, &memProver{}, nil)
		synctest.Wait()
		if got, want := fmt.Sprint(l.batches(t)), "[[[5 9] [13 28]]]"; got != want {
			t.Errorf("batches %s, want %s", got, want)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if got := r.Stats(); got.LowWater != 30 || j.trimmed != 30 {
			t.Errorf("low water %d, trimmed through %d, want 30", got.LowWater, j.trimmed)
		}
		r.end()
	})
}

// A restored journal on a full disk waits for room: no crash loop.
func TestJournalBehindTheMarksWaitsForTheDisk(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		j, l := newMemJournal(), newMemLedger()
		l.marks[5], j.full = stardust.BlockID{1}, errBoom
		r := startRig(t, j, l, &memProver{}, nil)
		rec := r.submit("x")
		<-time.After(time.Hour)
		if err := r.Ready(); !errors.Is(err, errBoom) || resolved(rec) {
			t.Errorf("Ready on a full disk: %v, receipt resolved: %t; want the cause, false", err, resolved(rec))
		}
		j.mu.Lock()
		j.full = nil
		j.mu.Unlock()
		<-rec.Done()
		if rec.Err() != nil || rec.First() != 6 {
			t.Errorf("when there is room: first number %d, %v; want 6", rec.First(), rec.Err())
		}
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestJournalBehindTheMarksGoesOnAboveThem(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		j, l := newMemJournal(), newMemLedger()
		feed(t, j, 10)
		for seq := uint64(1); seq <= 50; seq++ {
			l.marks[seq] = stardust.BlockID{1}
		}
		r := startRig(t, j, l, &memProver{}, nil)
		rec := r.submit("x")
		<-rec.Done()
		<-time.After(3 * time.Second)
		synctest.Wait()
		if rec.First() != 51 || r.Stats().Skipped != 40 || !slices.Equal(l.made, []byte{1}) {
			t.Errorf("first number %d, %d skipped, incarnations %v; want 51, 40, [1]", rec.First(), r.Stats().Skipped, l.made)
		}
		r.end()
	})
}
