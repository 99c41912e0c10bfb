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
	if rest := p.rest(p.began.Add(paceWindow/2), Telemetry); rest != 0 {
		t.Errorf("rests %v in the middle of a window", rest)
	}
	if rest := p.rest(p.began.Add(paceWindow), Telemetry); rest == 0 {
		t.Error("does not rest after a window in which it got nothing")
	}
}

func TestAnUrgentSearchNeverRests(t *testing.T) {
	p := pacer{share: 0.5}
	p.start()
	if rest := p.rest(p.began.Add(paceWindow), Urgent); rest != 0 {
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

// windows has p end crowded windows for as long as that, and returns the last
// rest.
func windows(p *pacer, lasts time.Duration, of Priority) (rest time.Duration) {
	for range lasts / paceWindow {
		rest = p.rest(p.began.Add(paceWindow), of)
	}
	return rest.Round(time.Microsecond)
}

const (
	restLeast = 64667 * time.Microsecond // at a share of paceLeast
	restLater = 2 * time.Millisecond     // at paceLater
)

func TestWhatLastsIsProvenFaster(t *testing.T) {
	var p pacer
	p.start()
	if rest := windows(&p, paceBurst-time.Second, Telemetry); rest != restLeast {
		t.Errorf("rests %v in a burst, want %v", rest, restLeast)
	}
	p.began = p.began.Add(paceIdle / 2) // between two jobs
	if rest := windows(&p, 2*time.Second, Telemetry); rest != restLater {
		t.Errorf("rests %v when it lasts, want %v", rest, restLater)
	}
	p.began = p.began.Add(2 * paceIdle)
	if rest := windows(&p, time.Second, Telemetry); rest != restLeast {
		t.Errorf("rests %v in the next burst, want %v", rest, restLeast)
	}
}

func TestAGuestIsNeverProvenFaster(t *testing.T) {
	var p pacer
	p.start()
	if rest := windows(&p, 2*paceBurst, Guest); rest != restLeast {
		t.Errorf("rests %v from a guest's search however long it lasts, want %v", rest, restLeast)
	}
	if rest := windows(&p, time.Second, Telemetry); rest != restLeast {
		t.Errorf("rests %v in a burst behind it, want %v", rest, restLeast)
	}
}
