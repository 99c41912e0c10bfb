package remote

import (
	"cmp"
	"crypto/rand"
	"math"
	"slices"
	"time"
)

const (
	aliveFor  = 3*helloEvery + time.Second // without a hello
	helloRate = 5                          // signatures of hellos checked per second and sender
	maxRate   = 1e15                       // tries per second that are shown at most

	// Before it has found, a worker counts as if it had found so many nonces at
	// the announced speed, which is believed up to so many times the local
	// one, or to that of a large box. What it did counts half after a while.
	prior        = 2
	localTimes   = 1000
	largeBox     = 1e9
	forgetHalf   = 10 * time.Minute
	overdueTimes = 8 // the expected time, after which a search is as good as not answered
	overdueLeast = time.Second

	liarFirst, liarLongest = 30 * time.Second, time.Hour // how long a liar is left alone
	slowFirst, slowLongest = 2 * time.Second, 5 * time.Minute
)

// A Worker is a worker on another box, as a gateway sees it. Counts are since
// the gateway started.
type Worker struct {
	Name           string // the member's, or what the worker calls itself; "" before its first hello
	Key            Key
	Kernel         string
	TriesPerSecond uint64    // announced
	Earned         uint64    // tries per second by the nonces that it found
	Alive          bool      // it announced itself lately
	LastSeen       time.Time // zero: never
	Queued         int       // searches that it holds of all gateways, as announced
	Open           int       // of them ours
	LeftAloneUntil time.Time // for a lie or silence; zero or past: it is asked

	Given     uint64 // searches that it was asked for
	Found     uint64 // nonces that were right
	Wrong     uint64 // nonces that were not
	TimedOut  uint64 // no answer by the deadline
	Lost      uint64 // it died, left or started again in mid-search
	Expired   uint64 // it answered that it had not found in time
	Refused   uint64 // it answered that it was busy, or that the search was too long
	Cancelled uint64 // another searcher was first, or the digest was given up
}

// entry is what the pool knows of one worker. The pool's mu guards it.
type entry struct {
	Worker
	slots   int
	most    int // zeros that it takes on
	session uint64
	stamp   uint64    // of its last hello
	refused uint64    // stamp of the hello at which it refused; it is asked again at the next
	trusted float64   // of the announced speed, tries per second
	paid    float64   // nonces found
	spent   float64   // seconds of search per try of each
	since   time.Time // when paid and spent were brought up to date
	silent  int       // times in a row without an answer
	random  [8]byte   // begins the requests to it
	asked   uint64    // how many there were
	hellos  budget    // of its last session
	starts  budget    // of others
	answers budget
}

func newEntry(k Key, name string) *entry {
	e := &entry{
		Worker: Worker{Name: name, Key: k},
		hellos: budget{rate: helloRate}, starts: budget{rate: helloRate}, answers: budget{rate: answerRate},
	}
	_, _ = rand.Read(e.random[:]) // never fails
	return e
}

// budget returns the one for a hello.
func (e *entry) budget(h *hello, now time.Time) *budget {
	if e.stamp != 0 && h.session == e.session && h.stamp-e.stamp <= uint64(now.Sub(e.LastSeen)+aliveFor) {
		return &e.hellos
	}
	return &e.starts
}

// earned is the speed by which workers are chosen.
func (e *entry) earned() float64 {
	return min(e.trusted, e.trusted*(prior+e.paid)/(prior+e.trusted*e.spent))
}

// trust takes the announced speed as far as it can be believed, given the
// local one, which is 0 if unknown.
func (e *entry) trust(local float64) {
	e.trusted = min(float64(e.TriesPerSecond), max(largeBox, localTimes*local))
}

// forget brings the account up to date.
func (e *entry) forget(now time.Time) {
	if !e.since.IsZero() && now.After(e.since) {
		half := math.Exp2(-now.Sub(e.since).Seconds() / forgetHalf.Seconds())
		e.paid, e.spent = e.paid*half, e.spent*half
	}
	e.since = now
}

// searched notes that the worker searched for so long, and whether it found.
func (e *entry) searched(a *ask, now time.Time, found bool) {
	e.forget(now)
	e.spent += now.Sub(a.began).Seconds() / a.search.tries
	if found {
		e.paid++
	}
}

// cancelled notes that the search was ended by others; a worker that has been
// silent for far too long is not better than one that misses the deadline.
func (e *entry) cancelled(a *ask, now time.Time) {
	e.Cancelled++
	if now.Sub(a.began) > max(overdueLeast, overdueTimes*a.expected) {
		e.silent++
		e.leaveAlone(now, e.silent, slowFirst, slowLongest)
	}
}

// leaveAlone keeps the worker from being asked for a time that doubles with
// each time before.
func (e *entry) leaveAlone(now time.Time, times int, first, most time.Duration) {
	d := first
	for ; times > 1 && d < most; times-- {
		d *= 2
	}
	if until := now.Add(min(d, most)); until.After(e.LeftAloneUntil) {
		e.LeftAloneUntil = until
	}
}

// free tells whether the worker may be asked for a search now.
func (e *entry) free(s *search, now time.Time) bool {
	return e.Alive && !now.Before(e.LeftAloneUntil) && e.refused != e.stamp && e.Open < e.slots && s.zeros <= e.most && s.asks[e] == nil
}

// replayed tells whether a hello was heard before. A worker that was started
// again may have a clock that was set back.
func (e *entry) replayed(h *hello) bool {
	return h.stamp <= e.stamp && (e.Alive || h.session == e.session)
}

// greet takes a hello that its sender signed. It returns true when the worker
// does not know any more what it was asked.
func (e *entry) greet(h *hello, named bool, now time.Time) (lost bool) {
	lost = h.leaving || h.session != e.session
	e.session, e.stamp = h.session, h.stamp
	if !named {
		e.Name = h.name
	}
	e.Kernel, e.TriesPerSecond = h.kernel, min(h.rate, maxRate)
	e.slots, e.most, e.Queued = int(h.slots), int(h.most), int(h.queued)
	e.Alive, e.LastSeen = !h.leaving, now
	return lost
}

// Workers returns every worker that announced itself since the start, and
// those that were configured, by name and key.
func (p *Pool) Workers() []Worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Worker
	for _, e := range p.workers {
		if e.stamp == 0 && !p.configured[e.Key] {
			continue // a member that lends nothing
		}
		w := e.Worker
		w.Earned = uint64(e.earned())
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b Worker) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.Key[:], b.Key[:]))
	})
	return out
}
