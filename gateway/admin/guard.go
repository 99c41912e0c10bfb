package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of guessing.
const (
	freeFailures = 5                // wrong tokens before a source has to wait
	maxWait      = 30 * time.Second // the longest wait
	forgetAfter  = 10 * time.Minute // a source without failure is new again
	maxSources   = 4096             // sources remembered
)

// A guard admits requests that carry the token. A source that sends wrong
// ones has to wait, longer each time, before anything it sends is looked at.
type guard struct {
	sum [sha256.Size]byte // of the token: comparing sums hides length and content
	now func() time.Time

	mu      sync.Mutex // guards sources
	sources map[netip.Prefix]source
}

// A source is who failed: an IPv4 address or an IPv6 /64 network.
type source struct {
	failures int
	last     time.Time // of its last failure
	until    time.Time // refused before
}

func newGuard(token string, now func() time.Time) *guard {
	return &guard{sum: sha256.Sum256([]byte(token)), now: now, sources: map[netip.Prefix]source{}}
}

// require answers 401 or 429 to requests without the token, and passes the
// others to next. OPTIONS passes: browsers ask it without credentials.
func (g *guard) require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		from := SourceOf(r.RemoteAddr)
		if wait := g.wait(from); wait > 0 {
			seconds := int(wait/time.Second) + 1
			w.Header().Set("Retry-After", strconv.Itoa(seconds))
			writeError(w, http.StatusTooManyRequests, fmt.Sprintf("too many wrong tokens from your address; wait %d s", seconds))
			return
		}
		given := r.Header.Get("Authorization")
		scheme, token, _ := strings.Cut(given, " ")
		sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
		right := subtle.ConstantTimeCompare(sum[:], g.sum[:]) == 1
		if strings.EqualFold(scheme, "Bearer") && right {
			g.succeeded(from)
			next.ServeHTTP(w, r)
			return
		}
		text := "admin token missing; send the header Authorization: Bearer TOKEN, with the token of the file admin.token"
		if given != "" {
			g.failed(from)
			text = "admin token wrong; it stands in the file admin.token, and the header is Authorization: Bearer TOKEN"
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="hedgerow"`)
		writeError(w, http.StatusUnauthorized, text)
	})
}

// wait returns how long a source has to wait still.
func (g *guard) wait(from netip.Prefix) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sources[from].until.Sub(g.now())
}

func (g *guard) succeeded(from netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sources, from)
}

func (g *guard) failed(from netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	s, known := g.sources[from]
	if !known && len(g.sources) >= maxSources {
		g.forget(now)
	}
	if now.Sub(s.last) > forgetAfter {
		s.failures = 0
	}
	s.failures++
	s.last = now
	if over := s.failures - freeFailures; over >= 0 {
		s.until = now.Add(min(maxWait, time.Second<<min(over, 10)))
	}
	g.sources[from] = s
}

// forget makes room: what is old goes, or else the source that failed longest
// ago. The caller holds mu.
func (g *guard) forget(now time.Time) {
	var oldest netip.Prefix
	for p, s := range g.sources {
		if now.Sub(s.last) > forgetAfter {
			delete(g.sources, p)
		} else if o, ok := g.sources[oldest]; !ok || s.last.Before(o.last) {
			oldest = p
		}
	}
	if len(g.sources) >= maxSources {
		delete(g.sources, oldest)
	}
}

// SourceOf returns the network that a client is counted under, the IPv4 address
// or the IPv6 /64 that one host can own; the zero Prefix when remote, host and
// port, names none.
func SourceOf(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
