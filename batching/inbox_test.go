package batching

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Two connections of one client send the same again at the same time: the
// second comes while the first looks for the original in the journal.
func TestCopiesOfEachOtherAreStoredOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.delay = time.Second
		sub := Submission{Packet: r.packet("x"), Recall: true, Within: time.Hour}
		sub.Key = Key{Message: [16]byte{1}}
		var second *Receipt
		r.j.onRecall = func() { second, _ = r.Submit(sub) }
		first, err := r.Submit(sub)
		if err != nil {
			t.Fatal(err)
		}
		<-first.Done()
		<-second.Done()
		if first.First() != second.First() || r.j.Next() != 2 {
			t.Errorf("numbers %d and %d, %d readings stored; want one", first.First(), second.First(), r.j.Next()-1)
		}
		r.end()
	})
}

// What waits for a slow disk is bounded in bytes, too: few large packets are
// as much as many small ones.
func TestInboxFullOfLargePacketsIsBusy(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.delay = time.Hour
		long := strings.Repeat("x", 8<<10)
		p := Submission{Packet: r.packet(long, long, long, long)}
		taken := 0
		for ; taken <= inboxReadings/len(p.Readings); taken++ {
			if _, err := r.Submit(p); err != nil {
				if !errors.Is(err, ErrBusy) {
					t.Fatal(err)
				}
				break
			}
		}
		if most := inboxBytes / (4 * len(long)); taken > most || taken < most*9/10 {
			t.Errorf("%d packets of 32 KiB wait, want about %d", taken, most)
		}
		synctest.Wait()
		r.end()
	})
}
