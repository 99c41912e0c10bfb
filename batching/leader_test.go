package batching

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A testLeader counts what it is told.
type testLeader struct {
	told atomic.Int32
	more bool
}

func (l *testLeader) Resolved()  { l.told.Add(1) }
func (l *testLeader) More() bool { return l.more }

// newLedRig returns a rig on a disk that is known to be quick.
func newLedRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, nil)
	for range ledAfter {
		<-r.submit("x").Done()
		time.Sleep(time.Second) // alone
	}
	synctest.Wait()
	return r
}

// led submits a packet of l's.
func (r *rig) led(l Leader) *Receipt {
	r.t.Helper()
	rec, err := r.Submit(Submission{Packet: r.packet("x"), Leader: l})
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

func TestLeaderCommitsItself(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newLedRig(t)
		r.j.delay = 200 * time.Microsecond
		synctest.Wait()
		var l testLeader
		rec := r.led(&l)
		synctest.Wait()
		if resolved(rec) {
			t.Fatal("committed by somebody else")
		}
		if l.more = true; r.Lead(&l) || resolved(rec) {
			t.Fatal("committed though another packet is at hand")
		}
		if l.more = false; !r.Lead(&l) || !resolved(rec) || rec.Err() != nil {
			t.Errorf("led, and resolved is %t", resolved(rec))
		}
		if r.Lead(&l) {
			t.Error("led again with nothing due")
		}
		if l.told.Load() != 0 {
			t.Errorf("told %d times what it did itself", l.told.Load())
		}
		r.end()
	})
}

// Whoever commits, everybody learns of it: the leader of a commit of the
// collector's, another leader whose packet is in the group, and one whose
// packet is the repetition of one in it.
func TestLeadersAreToldOfWhatOthersCommit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newLedRig(t)
		r.j.delay = time.Second
		synctest.Wait()
		var a, b, c testLeader
		sub := Submission{Packet: r.packet("x"), Recall: true, Leader: &a}
		sub.Key = Key{Message: [16]byte{1}}
		_, err1 := r.Submit(sub)
		sub.Leader = &b
		_, err2 := r.Submit(sub)
		other := r.led(&c)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if !r.Lead(&c) || !resolved(other) || a.told.Load() != 1 || b.told.Load() != 1 || c.told.Load() != 0 {
			t.Errorf("told %d, %d and %d times, want 1, 1 and 0", a.told.Load(), b.told.Load(), c.told.Load())
		}
		r.end()
	})
}

// What becomes due while the collector commits is not forgotten when its
// leader is turned away.
func TestLeaderTurnedAwayIsServed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newLedRig(t)
		r.j.delay = time.Second
		first := r.submit("by the collector")
		synctest.Wait()
		var l testLeader
		rec := r.led(&l)
		if r.Lead(&l) {
			t.Fatal("led while another commit is on")
		}
		<-rec.Done()
		synctest.Wait()
		if !resolved(first) || rec.Err() != nil || l.told.Load() != 1 {
			t.Errorf("told %d times, %v; want 1, nil", l.told.Load(), rec.Err())
		}
		r.end()
	})
}

// A leader turned away by another leader is served as well.
func TestLeadersServeEachOther(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newLedRig(t)
		r.j.delay = time.Second
		synctest.Wait()
		var a, b testLeader
		r.led(&a)
		go r.Lead(&a)
		synctest.Wait()
		rec := r.led(&b)
		if r.Lead(&b) {
			t.Fatal("led while another commit is on")
		}
		begin := time.Now()
		<-rec.Done()
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("waited %v", d)
		}
		r.end()
	})
}

func TestLargeGroupIsTheCollectors(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newLedRig(t)
		l := testLeader{more: true}
		var rec *Receipt
		for range ledPackets + 1 {
			if rec = r.led(&l); r.Lead(&l) {
				t.Fatal("led")
			}
		}
		synctest.Wait()
		if !resolved(rec) || l.told.Load() != 1 {
			t.Errorf("resolved %t, told %d times", resolved(rec), l.told.Load())
		}
		r.end()
	})
}

// The collector commits what waits for company that does not come, also when
// it was asleep while leaders committed.
func TestLeadersWaitForCompanyNoLongerThanTheLinger(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newLedRig(t)
		var l testLeader
		for n := range 100 { // ten clients that wait for their answers, and then one
			var rec *Receipt
			for range min(10, 100-n) {
				rec = r.led(&l)
				time.Sleep(10 * time.Microsecond)
			}
			begin := time.Now()
			if !r.Lead(&l) {
				<-rec.Done()
			}
			if d := time.Since(begin); d > DefaultLinger {
				t.Fatalf("round %d waited %v for company, want at most %v", n, d, DefaultLinger)
			}
		}
		if l.told.Load() == 0 {
			t.Error("waited for nobody")
		}
		r.end()
	})
}

func TestLeadersFailureEndsTheStage(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newLedRig(t)
		r.j.fail = errBoom
		synctest.Wait()
		var l testLeader
		rec := r.led(&l)
		if !r.Lead(&l) || !errors.Is(rec.Err(), errBoom) {
			t.Errorf("receipt: %v", rec.Err())
		}
		if err := r.ended(); !errors.Is(err, errBoom) { // by itself
			t.Errorf("Run: %v", err)
		}
		if r.Lead(&l) {
			t.Error("led after the end")
		}
	})
}

// The journal is closed once Run returned.
func TestRunEndsAfterALeadersCommit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newLedRig(t)
		r.j.delay = time.Second
		synctest.Wait()
		var l testLeader
		rec := r.led(&l)
		go r.Lead(&l)
		synctest.Wait()
		if err := r.end(); err != nil || !resolved(rec) || rec.Err() != nil {
			t.Errorf("Run = %v, resolved %t", err, resolved(rec))
		}
	})
}

// A front end outlives its panics; what the journal did before one is unknown.
func TestPanicInACommitEndsTheStage(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newLedRig(t)
		var l testLeader
		rec := r.led(&l)
		r.cfg.Clock = nil // the commit asks it
		if !r.Lead(&l) || !resolved(rec) || rec.Err() == nil {
			t.Errorf("resolved %t", resolved(rec))
		}
		if err := r.ended(); err == nil || !strings.Contains(err.Error(), "panicked") {
			t.Errorf("Run = %v", err)
		}
	})
}

// While one leader commits several packets, another one's opens the next group;
// with that commit it no longer suffices for one. Somebody has to look after it.
func TestLeadersWaitForEachOthersCompanyNoLongerThanTheLinger(t *testing.T) {
	for size := range 5 {
		inBubble(t, func(t *testing.T) {
			r := newLedRig(t)
			r.j.delay = 200 * time.Microsecond
			var a, b testLeader
			for n := range 300 {
				for range 1 + size {
					r.led(&a)
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					r.Lead(&a)
				}()
				time.Sleep(100 * time.Microsecond) // the commit is on
				rec := r.led(&b)
				r.Lead(&b)
				<-done
				begin := time.Now()
				<-rec.Done()
				if d := time.Since(begin); d > 2*DefaultLinger {
					t.Fatalf("groups of %d, round %d: waited %v", 1+size, n, d)
				}
			}
			r.end()
		})
	}
}

// A leader that has another packet at hand may be held up with it: who joins its
// group does not wait for that.
func TestOthersDoNotWaitForALeader(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newLedRig(t)
		l := testLeader{more: true}
		r.led(&l)
		if r.Lead(&l) {
			t.Fatal("led")
		}
		begin := time.Now()
		<-r.submit("not led").Done()
		if d := time.Since(begin); d > 0 {
			t.Errorf("waited %v", d)
		}
		r.end()
	})
}

// Who commits does not read meanwhile, which matters where commits take long.
func TestNobodyLeadsOnASlowDisk(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		synctest.Wait()
		var l testLeader
		lead := func() bool {
			time.Sleep(time.Second)
			rec := r.led(&l)
			led := r.Lead(&l)
			<-rec.Done()
			return led
		}
		for i := range ledAfter + 1 {
			if led := lead(); led != (i == ledAfter) {
				t.Errorf("commit %d after the start: led %t", i, led)
			}
		}
		r.j.delay = ledTime + time.Microsecond
		if !lead() || lead() {
			t.Error("led again after a slow commit")
		}
		r.j.delay = 0
		lead()
		for i := range ledAfter + 1 {
			if led := lead(); led != (i >= ledAfter-1) {
				t.Errorf("commit %d after a slow one: led %t", i, led)
			}
		}
		r.end()
	})
}

// A reading that comes after a pause waits for nobody, whoever committed before.
func TestALoneReadingAfterLeadersWaitsForNobody(t *testing.T) {
	for n := 1; n < 40; n++ {
		inBubble(t, func(t *testing.T) {
			r := newLedRig(t)
			r.j.delay = 200 * time.Microsecond
			var l testLeader
			for range n {
				var rec *Receipt
				for range 4 {
					rec = r.led(&l)
				}
				if !r.Lead(&l) {
					<-rec.Done()
				}
			}
			time.Sleep(time.Minute)
			begin := time.Now()
			<-r.submit("alone").Done()
			if d := time.Since(begin); d > r.j.delay {
				t.Errorf("after %d groups it waited %v", n, d)
			}
			r.end()
		})
	}
}
