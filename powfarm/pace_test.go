package powfarm

import (
	"testing"
	"time"
)

func TestAWorkerAloneNeverRests(t *testing.T) {
	var p pacer
	for range 100 {
		if rest := p.adjust(2*time.Millisecond, 1900*time.Microsecond, paceLeast); rest != 0 {
			t.Fatalf("rests %v although it had its processor to itself", rest)
		}
	}
}

func TestACrowdedWorkerRestsMoreAndMoreButNotForEver(t *testing.T) {
	var p pacer
	p.adjust(2*time.Millisecond, 2*time.Millisecond, paceLeast)
	last := time.Duration(0)
	for range 50 {
		rest := p.adjust(2*time.Millisecond, time.Millisecond, paceLeast)
		if rest < last {
			t.Fatalf("rests %v after %v", rest, last)
		}
		last = rest
	}
	if want := 65 * time.Millisecond; last.Round(time.Millisecond) != want {
		t.Errorf("rests %v in the end, want %v", last, want)
	}
	for range 20 {
		last = p.adjust(2*time.Millisecond, 2*time.Millisecond, paceLeast)
	}
	if last != 0 {
		t.Errorf("still rests %v after 20 clear windows", last)
	}
}

func TestAWindowIsJudgedWhenItIsOver(t *testing.T) {
	p := pacer{share: 0.5}
	p.start()
	if p.busy != p.began {
		t.Error("what the first search is for is no burst")
	}
	if rest := p.rest(p.began.Add(paceWindow/2), false); rest != 0 {
		t.Errorf("rests %v in the middle of a window", rest)
	}
	if rest := p.rest(p.began.Add(paceWindow), false); rest == 0 {
		t.Error("does not rest after a window in which it got nothing")
	}
}

func TestAnUrgentSearchNeverRests(t *testing.T) {
	p := pacer{share: 0.5}
	p.start()
	if rest := p.rest(p.began.Add(paceWindow), true); rest != 0 {
		t.Errorf("rests %v in an urgent search", rest)
	}
}

// A process that was frozen for hours must not rest for hours.
func TestARestIsShortHoweverLongTheWindowWas(t *testing.T) {
	var p pacer
	p.adjust(2*time.Millisecond, 2*time.Millisecond, paceLeast)
	if rest := p.adjust(8*time.Hour, time.Millisecond, paceLeast); rest != paceMost {
		t.Errorf("rests %v after a window of 8 h, want %v", rest, paceMost)
	}
}

func TestWhatLastsIsProvenFaster(t *testing.T) {
	start := time.Now()
	p := pacer{share: paceLeast, began: start}
	p.idle(start.Add(-paceIdle), start)
	p.idle(start, start.Add(paceIdle/2)) // between two jobs
	for _, tt := range []struct {
		after time.Duration
		want  time.Duration
	}{{paceBurst / 2, 64667 * time.Microsecond}, {paceBurst + time.Second, 2 * time.Millisecond}} {
		p.began, p.ran = start.Add(tt.after), 0
		if got := p.rest(p.began.Add(paceWindow), false); got.Round(time.Microsecond) != tt.want {
			t.Errorf("rests %v after %v of work, want %v", got, tt.after, tt.want)
		}
	}
}
