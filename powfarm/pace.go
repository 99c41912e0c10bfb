package powfarm

import "time"

// How a worker shares its processor with everything else on the box.
const (
	paceWindow = 2 * time.Millisecond // how often a worker looks back
	paceMost   = 50 * paceWindow      // the longest rest, however long a window took
	paceClear  = 0.85                 // a worker that ran this much of a window was alone
	paceLeast  = 0.03                 // of its time a worker searches at least this part,
	paceLater  = 0.5                  // and half of it once it has had something to do
	paceBurst  = 10 * time.Second     // for so long without
	paceIdle   = time.Second          // so long a pause
	paceRise   = 0.05                 // what a clear window gives back
	paceFall   = 0.7                  // what is left of the share after a crowded one
)

// A pacer lets a worker step aside while others want its processor. An
// acknowledgement takes microseconds of work and is waited for; a search takes
// seconds and is not. On two cores the acknowledgement would otherwise wait
// for the search at every hand-over between threads and processes, which cost
// a third of the rate of confirmable CoAP requests.
//
// It notices others by the processor time that the worker did not get, so it
// needs to know nothing about them, and rests for a part of the time that
// grows while they are there. A burst has the processor nearly to itself; what
// lasts must be proven as fast as it comes, or the backlog never ends. Where a
// thread's processor time cannot be had it never rests. The zero pacer is
// ready; one goroutine uses it.
type pacer struct {
	busy    time.Time     // since when the worker has had something to do that is no guest's
	last    time.Time     // when it last had
	share   float64       // of its time that the worker searches; 0 before the first window
	began   time.Time     // of the window
	ran     time.Duration // processor time in it
	entered time.Duration // processor time of the thread when the batch began
}

// start begins the first window after a pause.
func (p *pacer) start() { p.began, p.ran = time.Now(), 0 }

// enter and leave stand around each batch.
func (p *pacer) enter() { p.entered = threadTime() }

func (p *pacer) leave() { p.ran += threadTime() - p.entered }

// rest returns how long the worker should sleep now, mostly 0, and never when
// what it does is urgent. What a guest has it do may wait however long it lasts.
// The window ends with the rest; the caller calls start after it.
func (p *pacer) rest(now time.Time, of Priority) time.Duration {
	window, ran := now.Sub(p.began), p.ran
	if window < paceWindow {
		return 0
	}
	p.began, p.ran = now, 0
	least := paceLeast
	if of != Guest {
		if now.Sub(p.last) >= paceIdle {
			p.busy = now.Add(-window)
		}
		p.last = now
		if now.Sub(p.busy) > paceBurst {
			least = paceLater
		}
	}
	if of == Urgent { // it takes its processor, and learns nothing from it
		return 0
	}
	return p.adjust(window, ran, least)
}

// adjust takes a window in which the worker ran for a while and returns the
// rest that is due after it, at which it still searches least of the time.
func (p *pacer) adjust(window, ran time.Duration, least float64) time.Duration {
	switch {
	case p.share == 0 || !threadTimed:
		p.share = 1
	case float64(ran) < paceClear*float64(window):
		p.share = max(least, p.share*paceFall)
	default:
		p.share = max(least, min(1, p.share+paceRise))
	}
	// A window in which the process was frozen or the machine suspended may be
	// hours long, and nothing ends a rest.
	return min(paceMost, time.Duration(float64(window)*(1-p.share)/p.share))
}
