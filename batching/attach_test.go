package batching

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestParentsAreRefreshedWhenTheyChange(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.p.takes = 3500 * time.Millisecond
		r.submit("x")
		<-time.After(2*time.Second + 1500*time.Millisecond) // sealed at 2 s, looked at after 1 s
		synctest.Wait()
		if r.p.calls != 1 {
			t.Errorf("%d searches while the tips stay, want 1", r.p.calls)
		}
		r.l.setTips(1, 2)
		<-time.After(time.Second)
		synctest.Wait()
		if r.p.calls != 2 || r.Stats().Refreshes != 1 {
			t.Errorf("%d searches after the tips changed, want 2", r.p.calls)
		}
		<-time.After(3 * time.Second)
		synctest.Wait()
		if len(r.l.blocks) != 1 || len(r.l.blocks[0].Parents) != 2 || r.l.blocks[0].Nonce != 2 {
			t.Errorf("blocks %+v", r.l.blocks)
		}
		r.end()
	})
}

func TestNoProofOfWorkAtScoreZero(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.l.score = 0
		r.submit("x")
		<-time.After(3 * time.Second)
		synctest.Wait()
		if r.p.calls != 0 || r.l.attached() != 1 {
			t.Errorf("%d searches, %d attached; want 0, 1", r.p.calls, r.l.attached())
		}
		r.end()
	})
}

func TestMoreTipsDoNotLiftABlockOverItsStep(t *testing.T) {
	var tips []stardust.BlockID
	for i := range 8 {
		tips = append(tips, stardust.BlockID{byte(i)})
	}
	for n := 2; n <= 8; n++ {
		got := someParents(tips, n)
		if len(got) != n || len(stardust.SortParents(got)) != n || got[0].Compare(got[n-1]) >= 0 {
			t.Errorf("%d of 8 tips: %v", n, got)
		}
	}
	if got := someParents(tips[:1], 2); len(got) != 1 {
		t.Errorf("2 of 1 tip: %v", got)
	}
}

func TestTransientErrorsAreTriedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var errFarm = errors.New("farm busy")
		r := newRig(t, func(c *Config) { c.Transient = func(err error) bool { return errors.Is(err, errFarm) } })
		r.p.busy, r.l.busy = 3, 4
		r.submit("x")
		<-time.After(5 * time.Second)
		synctest.Wait()
		if got := r.Stats(); got.Retries != 7 || got.Attached != 1 {
			t.Errorf("%d retries, %d attached; want 7, 1", got.Retries, got.Attached)
		}
		r.l.fail = fmt.Errorf("ledger: %w", errFarm)
		r.submit("y")
		<-time.After(time.Minute)
		synctest.Wait()
		if got := r.Stats(); got.Attached != 1 || got.Retries < 20 || got.Retries > 50 {
			t.Errorf("%d retries, %d attached; want about 35, 1", got.Retries, got.Attached)
		}
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// A tip may be dropped while the nonce is searched: the vote of a gateway that is
// found to have signed two.
func TestABatchWhoseParentIsGoneGetsOthers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		errGone := errors.New("unknown parent")
		r := newRig(t, func(c *Config) { c.Outdated = func(err error) bool { return errors.Is(err, errGone) } })
		r.l.fail = fmt.Errorf("attach: %w", errGone)
		r.submit("x")
		<-time.After(5 * time.Second)
		synctest.Wait()
		r.l.mu.Lock()
		r.l.fail = nil
		r.l.mu.Unlock()
		<-time.After(time.Second)
		synctest.Wait()
		if got := r.Stats(); got.Attached != 1 || got.Refreshes == 0 || got.Retries != 0 {
			t.Errorf("%d attached, %d refreshes, %d retries", got.Attached, got.Refreshes, got.Retries)
		}
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestLastingErrorEndsTheStage(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.l.fail = errBoom
		r.submit("x", "y")
		<-time.After(3 * time.Second)
		synctest.Wait()
		if _, err := r.Submit(Submission{Packet: r.packet("z")}); !errors.Is(err, ErrClosed) {
			t.Errorf("Submit after the end: %v", err)
		}
		if err := r.end(); !errors.Is(err, errBoom) || !strings.HasPrefix(err.Error(), "attach batch 1-2: ") {
			t.Errorf("Run: %v", err)
		}
	})
}

// The ledger refuses a batch for good when one of its readings stands in a
// block already, as after an attachment that was given up and stored after
// all. The others are batched again: nobody dies of it.
func TestBatchWithReadingsAttachedElsewhereIsMadeAnew(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.p.takes = time.Second
		recs := r.submitMany(5)
		<-recs[4].Done()
		<-time.After(DefaultMaxAge + 500*time.Millisecond) // sealed, not attached
		other := stardust.BlockID{7}
		r.l.mu.Lock()
		r.l.marks[1], r.l.marks[4] = other, other
		r.l.mu.Unlock()
		<-time.After(10 * time.Second)
		synctest.Wait()
		for seq := uint64(1); seq <= 5; seq++ {
			state, id, err := r.State(seq)
			if state != Attached || err != nil || (id == other) != (seq == 1 || seq == 4) {
				t.Errorf("reading %d: %s in %v, %v", seq, state, id, err)
			}
		}
		if got := r.l.batches(t); len(got) != 1 || fmt.Sprint(got[0]) != "[[2 3] [5 5]]" {
			t.Errorf("batches of %v, want 2, 3 and 5 in one", got)
		}
		if got := r.Stats(); got.LowWater != 5 || got.Backlog != (Backlog{}) {
			t.Errorf("stats %+v", got)
		}
		rec := r.submit("later")
		<-rec.Done()
		<-time.After(10 * time.Second)
		if state, _, err := r.State(rec.First()); state != Attached {
			t.Errorf("a later reading: %s, %v", state, err)
		}
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestStoppedLedgerIsNoError(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.l.fail = fmt.Errorf("ledger: %w", ErrClosed)
		r.submit("x")
		<-time.After(3 * time.Second)
		rec := r.submit("y") // is still made durable
		<-rec.Done()
		if rec.Err() != nil {
			t.Errorf("receipt: %v", rec.Err())
		}
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestDrainAttachesEverythingTakenIn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.delay, r.p.takes = time.Second, time.Second
		r.submit("committing")
		synctest.Wait()
		waiting := r.submit("waiting")
		r.CloseIntake()
		if _, err := r.Submit(Submission{Packet: r.packet("late")}); !errors.Is(err, ErrClosed) {
			t.Errorf("Submit after CloseIntake: %v", err)
		}
		if err := r.Ready(); !errors.Is(err, ErrClosed) {
			t.Errorf("Ready after CloseIntake: %v", err)
		}
		begin := time.Now()
		if err := r.ended(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if waiting.Err() != nil || r.l.attached() != 2 {
			t.Errorf("receipt %v, %d attached; want nil, 2", waiting.Err(), r.l.attached())
		}
		if d := time.Since(begin); d > 4*time.Second {
			t.Errorf("draining took %v", d)
		}
	})
}

func TestEndOfContextResolvesWhatWaits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.delay = time.Second
		committing := r.submit("committing")
		synctest.Wait()
		waiting := r.submit("waiting")
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if !resolved(committing) || committing.Err() != nil || !resolved(waiting) || !errors.Is(waiting.Err(), ErrClosed) {
			t.Errorf("receipts: %v and %v", committing.Err(), waiting.Err())
		}
	})
}
