package batching

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A testLeader counts what it is told.
type testLeader struct {
	told int
	more bool
}

func (l *testLeader) Resolved()  { l.told++ }
func (l *testLeader) More() bool { return l.more }

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
		r := newRig(t, nil)
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
		if l.told != 0 {
			t.Errorf("told %d times what it did itself", l.told)
		}
		r.end()
	})
}

// Whoever commits, everybody learns of it: the leader of a commit of the
// collector's, another leader whose packet is in the group, and one whose
// packet is the repetition of one in it.
func TestLeadersAreToldOfWhatOthersCommit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
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
		if !r.Lead(&c) || !resolved(other) || a.told != 1 || b.told != 1 || c.told != 0 {
			t.Errorf("told %d, %d and %d times, want 1, 1 and 0", a.told, b.told, c.told)
		}
		r.end()
	})
}

// What becomes due while the collector commits is not forgotten when its
// leader is turned away.
func TestLeaderTurnedAwayIsServed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
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
		if !resolved(first) || rec.Err() != nil || l.told != 1 {
			t.Errorf("told %d times, %v; want 1, nil", l.told, rec.Err())
		}
		r.end()
	})
}

// A leader turned away by another leader is served as well.
func TestLeadersServeEachOther(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
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
		r := newRig(t, nil)
		synctest.Wait()
		l := testLeader{more: true}
		var rec *Receipt
		for range ledPackets + 1 {
			if rec = r.led(&l); r.Lead(&l) {
				t.Fatal("led")
			}
		}
		synctest.Wait()
		if !resolved(rec) || l.told != 1 {
			t.Errorf("resolved %t, told %d times", resolved(rec), l.told)
		}
		r.end()
	})
}

// The collector commits what waits for company that does not come, also when
// it was asleep while leaders committed.
func TestLeadersWaitForCompanyNoLongerThanTheLinger(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		synctest.Wait()
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
		if l.told == 0 {
			t.Error("waited for nobody")
		}
		r.end()
	})
}

func TestLeadersFailureEndsTheStage(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.j.fail = errBoom
		synctest.Wait()
		var l testLeader
		rec := r.led(&l)
		if !r.Lead(&l) || !errors.Is(rec.Err(), errBoom) {
			t.Errorf("receipt: %v", rec.Err())
		}
		if err := r.end(); !errors.Is(err, errBoom) {
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
		r := newRig(t, nil)
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
func TestPanicOfALeaderEndsTheStage(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		synctest.Wait()
		var l testLeader
		r.led(&l)
		r.cfg.Clock = nil // the commit asks it
		func() {
			defer func() { recover() }()
			r.Lead(&l)
		}()
		if err := r.end(); err == nil {
			t.Error("Run = nil")
		}
	})
}
