package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	logEvery    = time.Minute // between two lines about the same thing
	logKeys     = 256         // things that are remembered
	maxLogLine  = 300
	oftenWithin = 15 * time.Second
)

// A limiter lets one line about each thing through in a minute.
type limiter struct {
	mu   sync.Mutex // guards last
	last map[string]time.Time
}

func newLimiter() *limiter { return &limiter{last: map[string]time.Time{}} }

func (l *limiter) allow(thing string) bool { return l.pass(thing, logEvery) }

// pass lets a thing through that has not passed for so long.
func (l *limiter) pass(thing string, every time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if at, ok := l.last[thing]; ok && now.Sub(at) < every {
		return false
	}
	if len(l.last) >= logKeys {
		for k, at := range l.last {
			if now.Sub(at) >= logEvery {
				delete(l.last, k)
			}
		}
		if len(l.last) >= logKeys {
			return false
		}
	}
	l.last[thing] = now
	return true
}

// often reports whether the thing has come for the third time within a short
// while, once a minute.
func (l *limiter) often(thing string) bool {
	return !l.pass(thing+" 1", oftenWithin) && !l.pass(thing+" 2", oftenWithin) && l.allow(thing)
}

// serverLog takes the lines of the embedded server. What the server calls an
// error heals by itself and is a warning here; its notices are for debugging.
type serverLog struct {
	log     *slog.Logger
	limited *limiter
	fatal   chan string // why the server does not start; of size 1
	// noClients is true when the server is made to fail at its listener for
	// clients, see noPort.
	noClients bool
	dials     *dials
	sources   *sources
}

func (s *serverLog) Noticef(format string, v ...any) {
	text := line(format, v)
	s.log.Debug("nats server", "text", text)
	address, rest, _ := strings.Cut(text, " - ")
	if strings.HasSuffix(rest, routeClosed) && s.limited.often("route closed "+address) {
		s.log.Warn("route is closed by the other side each time that it is made; hedgerow doctor says whether it refuses this gateway's key, as one does whose network file is older", "address", address)
	}
}
func (s *serverLog) Warnf(format string, v ...any) { s.warn(line(format, v)) }
func (s *serverLog) Errorf(format string, v ...any) {
	if strings.HasPrefix(format, routeDown) && len(v) == 2 {
		if strings.HasPrefix(fmt.Sprint(v[1]), "lookup for host ") && told() {
			s.endDial("a name")
		}
		s.routeDown(v[0], v[1])
		return
	}
	s.warn(line(format, v))
}

// Debugf is where a dial can be ended: the goroutine that dials says so
// before, and has nothing to undo that it has not deferred.
func (s *serverLog) Debugf(format string, v ...any) {
	if !strings.HasPrefix(format, routeDial) || len(v) != 2 {
		return
	}
	address := fmt.Sprint(v[0])
	if !s.dials.allow(address, time.Now()) {
		s.endDial(address)
	}
	if s.dials.isConfigured(address) { // whom we dial may dial us
		if ip, err := netip.ParseAddrPort(fmt.Sprint(v[1])); err == nil {
			s.sources.note(net.TCPAddrFromAddrPort(ip))
		}
	}
}

// endDial ends the calling goroutine of the server.
func (s *serverLog) endDial(address string) {
	if s.limited.allow("told of routes") {
		s.log.Warn("a member's server tells of more routes than there can be; only those in the configuration are sure to be made", "address", address[:min(len(address), maxLogLine)])
	}
	runtime.Goexit()
}
func (s *serverLog) Tracef(string, ...any) {} // would hold payloads

func (s *serverLog) Fatalf(format string, v ...any) {
	if s.noClients && strings.HasPrefix(format, "Error listening on port: ") {
		return
	}
	select {
	case s.fatal <- line(format, v):
	default:
	}
}

// routeDown begins what the server says when it dialled a route in vain; the
// number of the attempt and the error are its arguments.
const routeDown = "Error trying to connect to route"

// routeDial begins what the server says before it dials a route; the address
// of the configuration or of another server, and what it resolves to, are its
// arguments.
const routeDial = "Trying to connect to route on "

// routeClosed ends what the server says when the other end of a route goes, and
// so when it refuses our key: that it does after our side of the handshake is
// done. Routes that others have dialled come from another port each time.
const routeClosed = " - Router connection closed: Read Error"

// downAttempts is how many attempts, a second each, pass before a route is said
// to be down: the boxes of a site start together, but not at once.
const downAttempts = 5

func (s *serverLog) routeDown(attempt, why any) {
	if n, ok := attempt.(int); ok && n < downAttempts {
		return
	}
	address, err := "", fmt.Sprint(why)
	var op *net.OpError
	if e, ok := why.(error); ok && errors.As(e, &op) && op.Addr != nil {
		address, err = op.Addr.String(), op.Err.Error()
	}
	err = err[:min(len(err), maxLogLine)]
	const text = "route is down, dialled until it is up"
	switch {
	case address == "" && s.limited.allow("route down "+err): // its name has no address: the error tells it
		s.log.Info(text, "err", err)
	case address != "" && s.limited.allow("route down "+address):
		s.log.Info(text, "address", address, "err", err)
	}
}

func (s *serverLog) warn(text string) {
	if strings.HasPrefix(text, "TLS certificate chain and hostname of solicited routes will not be verified") {
		return // they are, by key
	}
	host, text := splitLine(text)
	thing := text // of the server itself
	if host != "" {
		thing = host + " " + text[:min(len(text), 24)] // what follows may be the other side's
	}
	if !s.limited.allow(thing) {
		return
	}
	switch {
	case strings.Contains(text, strangeKey):
		s.log.Warn("handshake refused; a newcomer is let in once its epoch has begun here, a worker if its key is in powfarm.remote.workers", "address", host, "err", text)
		return
	case strings.Contains(text, formerKey):
		s.log.Warn("handshake of a former member refused; stop that gateway, or add it to the network again", "address", host, "err", text)
		return
	}
	s.log.Warn("nats server", "address", host, "err", text)
}

// One of these is in the error of a handshake with a key that may not connect.
const (
	strangeKey = "is not one of the network"
	formerKey  = "which is no member any more"
)

func line(format string, v []any) string {
	text := fmt.Sprintf(format, v...)
	return strings.ToValidUTF8(text[:min(len(text), maxLogLine)], "")
}

// splitLine takes the connection off a line such as
// "10.0.0.8:6222 - rid:5 - TLS route handshake error: EOF".
func splitLine(text string) (host, rest string) {
	address, rest, ok := strings.Cut(text, " - ")
	host, _, err := net.SplitHostPort(address)
	if !ok || err != nil || !strings.HasPrefix(rest, "rid:") && !strings.HasPrefix(rest, "cid:") {
		return "", text
	}
	_, rest, _ = strings.Cut(rest, " - ")
	return host, rest
}
