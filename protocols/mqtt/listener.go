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
	web    bool          // a WebSocket is to be made of connections
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
			if c := newConn(c, l.b, false); l.b.enter(c) {
				go l.serve(c, establish) // waited for by drain
			}
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

// serve runs one connection.
func (l *listener) serve(c *conn, establish listeners.EstablishFn) {
	if !l.web {
		l.b.handle(l.id, c, establish)
		return
	}
	l.b.handle(l.id, c, func(id string, n net.Conn) error {
		if err := l.b.open(c); err != nil {
			return err
		}
		return establish(id, n)
	})
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

// enter counts a connection in, or closes it if there are too many. Whoever
// handles it calls leave.
func (b *Broker) enter(c *conn) bool {
	b.mu.Lock()
	ok := b.room(c.address, c.guest)
	if ok {
		b.conns[c] = struct{}{}
		b.from[source{c.address, c.guest}]++
		if c.guest {
			b.guests++
		}
		b.handlers.Add(1)
	}
	b.mu.Unlock()
	if !ok {
		b.counts.surplus.Add(1)
		c.shut()
		return false
	}
	b.counts.accepted.Add(1)
	return true
}

// room tells whether one more connection may come from an address. Guests and
// devices have their own numbers, so that neither keeps the other out. b.mu is
// held.
func (b *Broker) room(address string, guest bool) bool {
	have, most, each := len(b.conns)-b.guests, b.limits.Connections, b.limits.PerAddress
	if guest {
		have, most, each = b.guests, b.limits.Guests, b.limits.GuestsPerAddress
	}
	return !b.stopping.Load() && have < most && b.from[source{address, guest}] < each
}

func (b *Broker) leave(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, c)
	from := source{c.address, c.guest}
	if b.from[from]--; b.from[from] == 0 {
		delete(b.from, from)
	}
	if c.guest {
		b.guests--
	}
	b.handlers.Done()
}

// remote returns the IP address of a peer, invalid when it has none.
func remote(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	ap, _ := netip.ParseAddrPort(a.String()) // the zero address is an answer
	return ap.Addr().Unmap()
}

// A source is what connections are counted by.
type source struct {
	address string
	guest   bool
}

// groupOf returns what connections from an address are counted by: one host
// can own a whole IPv6 /64.
func groupOf(ip netip.Addr) string {
	if !ip.Is6() {
		return ip.String()
	}
	p, _ := ip.WithZone("").Prefix(64) // 64 is valid for IPv6
	return p.String()
}
