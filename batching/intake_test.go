package batching

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

func TestReceiptsNumberPacketsInOrderOfSubmission(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.delay = time.Millisecond
		next := uint64(1)
		var recs []*Receipt
		for i := range 500 {
			recs = append(recs, r.submit([]string{"a", "b", "c"}[:1+i%3]...))
		}
		for i, rec := range recs {
			<-rec.Done()
			if rec.Err() != nil || rec.First() != next {
				t.Fatalf("packet %d: first %d, %v; want %d", i, rec.First(), rec.Err(), next)
			}
			next += uint64(1 + i%3)
			for _, later := range recs[i+1:] {
				if resolved(later) && !resolved(rec) {
					t.Fatalf("a receipt was resolved before packet %d", i)
				}
			}
		}
		if got := r.Stats(); got.Acked != next-1 || got.Waiting != 0 {
			t.Errorf("stats %+v, want %d acked", got, next-1)
		}
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestCopyJoinsThePacketThatWaits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.delay = time.Second
		sub := Submission{Packet: r.packet("x"), Recall: true, Within: time.Hour}
		sub.Key = Key{Message: [16]byte{1}}
		first, err1 := r.Submit(sub)
		copy1, err2 := r.Submit(sub) // waits as well
		synctest.Wait()
		copy2, err3 := r.Submit(sub) // the commit is on
		<-first.Done()
		copy3, err4 := r.Submit(sub) // stored
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
		for i, c := range []*Receipt{copy1, copy2} {
			if !resolved(c) || c.Err() != nil || c.First() != first.First() {
				t.Errorf("copy %d of a waiting packet: %v, first %d, want %d", i+1, c.Err(), c.First(), first.First())
			}
		}
		if first.Duplicate() || !copy1.Duplicate() || !copy2.Duplicate() || !copy3.Duplicate() {
			t.Errorf("duplicate: %t, copies %t %t %t; want false, then true",
				first.Duplicate(), copy1.Duplicate(), copy2.Duplicate(), copy3.Duplicate())
		}
		if !resolved(copy3) || copy3.Err() != nil || copy3.First() != first.First() {
			t.Errorf("copy of a stored packet: %v, first %d, want %d", copy3.Err(), copy3.First(), first.First())
		}
		if got := r.Stats(); got.Acked != 1 || got.Duplicates != 3 || r.j.Next() != 2 {
			t.Errorf("%d acked, %d duplicates, next %d", got.Acked, got.Duplicates, r.j.Next())
		}
		r.end()
	})
}

// A copy that joined a packet which the journal refuses is refused, too: the
// device must send it again.
func TestCopyOfARefusedPacketIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.delay, r.j.fail = time.Second, fmt.Errorf("disk below reserve: %w", ErrBusy)
		sub := Submission{Packet: r.packet("x"), Recall: true, Within: time.Hour}
		sub.Key = Key{Message: [16]byte{1}}
		first, err1 := r.Submit(sub)
		again, err2 := r.Submit(sub)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		<-again.Done()
		if !errors.Is(first.Err(), ErrBusy) || !errors.Is(again.Err(), ErrBusy) || !again.Duplicate() {
			t.Errorf("packet %v, its copy %v, duplicate %t; want ErrBusy twice, true", first.Err(), again.Err(), again.Duplicate())
		}
		third, err := r.Submit(sub)
		if err != nil {
			t.Fatal(err)
		}
		if <-third.Done(); third.Err() != nil || third.Duplicate() {
			t.Errorf("sent once more: %v, duplicate %t; want nil, false", third.Err(), third.Duplicate())
		}
		r.end()
	})
}

func TestEqualPacketIsNewWithoutRecall(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		sub := Submission{Packet: r.packet("x")}
		sub.Key = Key{Message: [16]byte{1}}
		for range 2 {
			rec, err := r.Submit(sub)
			if err != nil {
				t.Fatal(err)
			}
			<-rec.Done()
		}
		sub.Key, sub.Recall = Key{}, true // a zero key recognises nothing
		for range 2 {
			rec, err := r.Submit(sub)
			if err != nil {
				t.Fatal(err)
			}
			<-rec.Done()
		}
		if r.j.Next() != 5 {
			t.Errorf("%d readings stored, want 4", r.j.Next()-1)
		}
		r.end()
	})
}

// While a copy looks for its original in the journal, the original comes and
// is committed: it was neither waiting nor stored when looked for.
func TestCopyIsRecognisedAcrossACommit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		sub := Submission{Packet: r.packet("x")}
		sub.Key = Key{Message: [16]byte{1}}
		var original *Receipt
		r.j.onRecall = func() {
			original, _ = r.Submit(sub)
			<-original.Done()
		}
		again := sub
		again.Recall = true
		rec, err := r.Submit(again)
		if err != nil {
			t.Fatal(err)
		}
		<-rec.Done()
		if rec.First() != original.First() || r.j.Next() != 2 {
			t.Errorf("copy has number %d, original %d; %d stored", rec.First(), original.First(), r.j.Next()-1)
		}
		r.end()
	})
}

func TestIdlePacketIsCommittedAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Linger = 5 * time.Millisecond })
		for range 100 {
			begin := time.Now()
			<-r.submit("x").Done()
			if d := time.Since(begin); d != 0 {
				t.Errorf("waited %v for company", d)
			}
			<-time.After(10 * time.Millisecond)
		}
		r.end()
	})
}

func TestPacketLingersOnlyUnderLoad(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const linger = 5 * time.Millisecond
		r := newRig(t, func(c *Config) { c.Linger = linger })
		var wg sync.WaitGroup
		for range 500 {
			begin, rec := time.Now(), r.submit("x")
			wg.Go(func() {
				<-rec.Done()
				if d := time.Since(begin); d > linger {
					t.Errorf("waited %v for company, want at most %v", d, linger)
				}
			})
			<-time.After(time.Millisecond)
		}
		wg.Wait()
		if n := len(r.j.groups); n < 80 || n > 150 {
			t.Errorf("500 packets in %d groups, want about 100", n)
		}
		<-time.After(time.Second)
		begin := time.Now()
		<-r.submit("alone").Done()
		if d := time.Since(begin); d != 0 {
			t.Errorf("a lone packet waited %v", d)
		}
		r.end()
	})
}

func TestGroupsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.delay = time.Second
		r.submit("first")
		synctest.Wait()
		recs := r.submitMany(groupReadings + 500)
		<-recs[len(recs)-1].Done()
		if fmt.Sprint(r.j.groups) != fmt.Sprint([]int{1, groupReadings, 500}) {
			t.Errorf("groups of %v", r.j.groups)
		}
		r.end()
	})
}

func TestFullInboxIsBusy(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.delay = time.Hour
		p := Submission{Packet: Packet{Readings: make([]reading.Reading, 1000)}}
		for i := range p.Readings {
			p.Readings[i] = r.packet("x").Readings[0]
		}
		for range inboxReadings / 1000 {
			if _, err := r.Submit(p); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.Submit(p); !errors.Is(err, ErrBusy) {
			t.Errorf("Submit to a full inbox: %v", err)
		}
		if err := r.Ready(); !errors.Is(err, ErrBusy) {
			t.Errorf("Ready with a full inbox: %v", err)
		}
		r.end()
	})
}

func TestFullJournalIsBusyUntilItHasRoom(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.fail = fmt.Errorf("disk below reserve: %w", ErrBusy)
		r.j.full = errBoom
		rec := r.submit("x")
		<-rec.Done()
		if !errors.Is(rec.Err(), ErrBusy) {
			t.Errorf("receipt: %v, want ErrBusy", rec.Err())
		}
		if _, err := r.Submit(Submission{Packet: r.packet("y")}); !errors.Is(err, ErrBusy) {
			t.Errorf("Submit while the journal refuses: %v, want ErrBusy", err)
		}
		r.j.full = nil
		rec = r.submit("z")
		<-rec.Done()
		if rec.Err() != nil {
			t.Errorf("after room came: %v", rec.Err())
		}
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestFailedCommitEndsTheStage(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.delay = time.Second
		r.j.fail = errBoom
		committing := r.submit("x")
		synctest.Wait()
		waiting := r.submit("y")
		<-waiting.Done()
		if !errors.Is(committing.Err(), errBoom) || !errors.Is(waiting.Err(), ErrClosed) {
			t.Errorf("receipts: %v and %v", committing.Err(), waiting.Err())
		}
		if err := r.end(); !errors.Is(err, errBoom) {
			t.Errorf("Run: %v", err)
		}
		if _, err := r.Submit(Submission{Packet: r.packet("z")}); !errors.Is(err, ErrClosed) {
			t.Errorf("Submit after the end: %v", err)
		}
	})
}

func TestSubmitRefusesWhatCannotBeStored(t *testing.T) {
	r := newRig(t, nil)
	defer r.end()
	raw := r.packet("x")
	raw.Readings[0].Value, raw.Readings[0].Err = reading.Bytes(make([]byte, MaxRaw+1)), "no number"
	unnamed := r.packet("x")
	unnamed.Readings[0].Name = ""
	many := Packet{Readings: make([]reading.Reading, MaxPacket+1)}
	var large Packet // each reading may be stored, all of them together not
	for range MaxPacketBytes/MaxRaw + 1 {
		r := raw.Readings[0]
		r.Value = reading.Bytes(make([]byte, MaxRaw))
		large.Readings = append(large.Readings, r)
	}
	odd := r.packet("x")
	odd.Readings[0].Auth = 9
	for name, p := range map[string]Packet{
		"too many bytes": large, "authentication unknown": odd,
		"no reading": {}, "too many readings": many, "no name": unnamed, "raw value too long": raw,
		"text too long": r.packet(strings.Repeat("x", reading.MaxText+1)),
	} {
		if _, err := r.Submit(Submission{Packet: p}); !errors.Is(err, reading.ErrLimit) {
			t.Errorf("%s: %v, want ErrLimit", name, err)
		}
	}
}

func BenchmarkSubmitAndCommit(b *testing.B) {
	r := newRig(b, nil)
	r.j.discard = true
	sub := Submission{Packet: r.packet("21.5")}
	b.ReportAllocs()
	var rec *Receipt
	for i := 0; b.Loop(); i++ {
		sub.Key.Message = [16]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)}
		next, err := r.Submit(sub)
		if errors.Is(err, ErrBusy) {
			<-rec.Done()
			continue
		}
		rec = next
	}
	<-rec.Done()
	r.end()
}
