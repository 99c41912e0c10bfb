package bus

import (
	"net"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	// A member may have two addresses, and some are those of members that left
	// or have moved.
	dialsPerMember, dialsMore = 2, 8
	// What one address is dialled at most: a server dials once a second, and
	// again at once when both ends of a route have dialled one another.
	dialBurst   = 8
	dialsPerSec = 1.5
	dialForget  = 30 * time.Second // after the last attempt
)

// dials bounds what servers of other members make ours dial. Each line of
// theirs about a server that we do not know has ours start a goroutine, which
// dials an address in that line for days, and no option limits either. So it
// is ended before it dials what is too much. The routes of our own
// configuration are dialled always.
type dials struct {
	configured map[string]bool // host:port
	members    func() []Member

	mu   sync.Mutex // guards told
	told map[string]*dialled
}

// dialled is a bucket of attempts for one address.
type dialled struct {
	left float64
	last time.Time
}

func newDials(routes []*url.URL, members func() []Member) *dials {
	d := &dials{configured: map[string]bool{}, members: members, told: map[string]*dialled{}}
	for _, r := range routes {
		d.configured[strings.ToLower(r.Host)] = true
	}
	return d
}

// allow tells whether the calling goroutine of the server may dial the address
// now.
func (d *dials) allow(address string, now time.Time) bool {
	if d.isConfigured(address) {
		return !told() // another goroutine dials it already
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) == nil {
		return false // servers tell of one another by the address that they see
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.told[address]
	if t == nil {
		if !d.room(now) {
			return false
		}
		t = &dialled{left: dialBurst, last: now}
		d.told[address] = t
	}
	t.left = min(dialBurst, t.left+dialsPerSec*now.Sub(t.last).Seconds())
	t.last = now
	if t.left < 1 {
		return false
	}
	t.left--
	return true
}

func (d *dials) isConfigured(address string) bool { return d.configured[strings.ToLower(address)] }

// room forgets what is not dialled any more, and tells whether one more
// address can be remembered. The caller holds mu.
func (d *dials) room(now time.Time) bool {
	most := dialsPerMember*len(d.members()) + dialsMore
	if len(d.told) < most {
		return true
	}
	for address, t := range d.told {
		if now.Sub(t.last) > dialForget {
			delete(d.told, address)
		}
	}
	return len(d.told) < most
}

// told tells whether the calling goroutine was started by a line of another
// server.
func told() bool {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if strings.Contains(f.Function, ".processImplicitRoute") {
			return true
		}
		if !more {
			return false
		}
	}
}
