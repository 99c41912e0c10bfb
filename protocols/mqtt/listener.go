package mqtt

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/mochi-mqtt/server/v2/listeners"
)

// A listener accepts connections for the library: it counts them, wraps them,
// and keeps a panic from ending more than the connection it happened on.
type listener struct {
	b      *Broker
	id     string
	ln     net.Listener
	broken chan<- error  // has room for why accepting ended
	done   chan struct{} // closed when the accept loop has ended
}

func (l *listener) ID() string              { return l.id }
func (l *listener) Address() string         { return l.ln.Addr().String() }
func (l *listener) Protocol() string        { return l.ln.Addr().Network() }
func (l *listener) Init(*slog.Logger) error { return nil }

// Close closes the socket; Run ends the clients.
func (l *listener) Close(listeners.CloseFn) { _ = l.ln.Close() }

// Serve accepts until the listener is closed.
func (l *listener) Serve(establish listeners.EstablishFn) {
	defer close(l.done)
	pause := time.Duration(0)
	for {
		c, err := l.ln.Accept()
		switch {
		case err == nil:
			pause = 0
			l.admit(c, establish)
		case errors.Is(err, net.ErrClosed):
			l.broken <- fmt.Errorf("accept on %s: %w", l.Address(), err)
			return
		default: // out of file descriptors, or a client that left at once
			pause = min(max(5*time.Millisecond, 2*pause), time.Second)
			l.b.log.Warn("accept", "listener", l.Address(), "err", err)
			time.Sleep(pause)
		}
	}
}

// admit starts the handler of a connection, or closes a surplus one.
func (l *listener) admit(raw net.Conn, establish listeners.EstablishFn) {
	b := l.b
	c := newConn(raw, b, group(raw.RemoteAddr()))
	if !b.enter(c) {
		b.counts.surplus.Add(1)
		c.shut()
		return
	}
	b.counts.accepted.Add(1)
	b.handlers.Go(func() { b.handle(l.id, c, establish) })
}

// handle runs one connection from accept to the last answer.
func (b *Broker) handle(id string, c *conn, establish listeners.EstablishFn) {
	defer b.leave(c)
	defer c.shut()
	defer func() {
		if c.sess == nil {
			b.counts.unconnected.Add(1)
			return
		}
		c.sess.end()
	}()
	defer func() {
		if p := recover(); p != nil {
			b.panicked("connection from "+c.RemoteAddr().String(), p)
			if c.sess != nil {
				c.sess.lost()
			}
		}
	}()
	err := establish(id, c)
	b.log.Debug("connection ended", "remote", c.RemoteAddr().String(), "err", err)
}

// panicked counts and logs a panic of the library over what a client sent.
func (b *Broker) panicked(over string, p any) {
	b.counts.panics.Add(1)
	if left, ok := b.denials.allow(); ok { // a client can provoke them at will
		b.log.Warn("panic in the broker", "over", over, "panic", fmt.Sprint(p), "suppressed", left)
	}
	b.log.Debug("stack of the panic", "stack", string(debug.Stack()))
}

// enter counts a connection in, unless there are too many.
func (b *Broker) enter(c *conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopping.Load() || len(b.conns) >= b.limits.Connections || b.from[c.address] >= b.limits.PerAddress {
		return false
	}
	b.conns[c] = struct{}{}
	b.from[c.address]++
	return true
}

func (b *Broker) leave(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, c)
	if b.from[c.address]--; b.from[c.address] == 0 {
		delete(b.from, c.address)
	}
}

// remote returns the IP address of a peer, invalid when it has none.
func remote(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	ap, _ := netip.ParseAddrPort(a.String()) // the zero address is an answer
	return ap.Addr().Unmap()
}

// group returns what connections are counted by: one host can own a whole
// IPv6 /64.
func group(a net.Addr) string {
	ip := remote(a)
	if !ip.Is6() {
		return ip.String()
	}
	p, _ := ip.WithZone("").Prefix(64) // 64 is valid for IPv6
	return p.String()
}
