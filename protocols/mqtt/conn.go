package mqtt

import (
	"errors"
	"net"
	"sync"
	"time"
)

// errOversized ends a connection whose packet claims more bytes than a client
// that is not known may send.
var errOversized = errors.New("packet of an unknown client is too large")

// A conn guards one client's net.Conn. The library reads and writes through
// it; our acks go the same way. Reads are made by one goroutine at a time.
type conn struct {
	net.Conn
	b       *Broker
	address string // what connections are counted by
	guest   bool   // came by the public path for events
	gate    gate
	sess    *session // set by the reader before the library knows the client

	replies []byte // PUBCOMP packets to be sent before the next read

	writing   chan struct{} // holds one token while a Write is under way
	writable  time.Time     // the write deadline that is set; owned by the token's holder
	flow      flow
	deadlines sync.Mutex
	readable  time.Time // the read deadline that is set; zero for none
	lingering bool      // no more reads; Close waits for the ack writer
	closed    bool
}

func newConn(c net.Conn, b *Broker, guest bool) *conn {
	g := &conn{
		Conn: c, b: b, address: groupOf(remote(c.RemoteAddr())), guest: guest,
		gate:    gate{limit: b.limits.PacketBeforeLogin},
		writing: make(chan struct{}, 1),
		flow:    flow{wake: make(chan struct{}, 1)},
	}
	g.readable = time.Now().Add(b.limits.ConnectTimeout)
	_ = c.SetReadDeadline(g.readable) // a closed connection says so on the first read
	return g
}

// Read hands the library the first packet alone and the rest as it comes. The
// library asks again only when it has used up what it got, so replies gathered
// meanwhile go out in one write.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.replies) > 0 {
		_, _ = c.Write(c.replies) // an error closes, and the read below says so
		c.replies = c.replies[:0]
	}
	switch {
	case c.gate.passed && !c.guest:
		return c.Conn.Read(p)
	case c.gate.passed: // no packet of a guest has a reason to be large
		c.gate = gate{limit: guestPacket}
	}
	n, err := c.Conn.Read(p[:c.gate.want(len(p))])
	if !c.gate.feed(p[:n]) {
		c.b.counts.oversized.Add(1)
		return 0, errOversized
	}
	return n, err
}

// Write sends p within the write timeout or closes the connection, because
// half a packet cannot be taken back. Concurrent calls do not mix.
func (c *conn) Write(p []byte) (int, error) {
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	// Setting a deadline for every packet costs as much as writing it.
	if now := time.Now(); c.writable.Sub(now) < c.b.limits.WriteTimeout {
		c.writable = now.Add(c.b.limits.WriteTimeout + time.Second)
		_ = c.Conn.SetWriteDeadline(c.writable)
	}
	n, err := c.Conn.Write(p)
	if err != nil {
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			c.b.counts.slowCloses.Add(1)
		}
		c.shut()
		return n, err
	}
	return n, nil
}

// SetDeadline sets the read deadline; write deadlines are ours. It is called
// for every packet, so a deadline at most a second late is left as it is.
func (c *conn) SetDeadline(t time.Time) error {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	switch {
	case c.lingering:
		return nil
	case t.IsZero() && c.readable.IsZero():
		return nil
	case !t.IsZero() && !c.readable.Before(t) && c.readable.Sub(t) <= time.Second:
		return nil
	case !t.IsZero():
		t = t.Add(time.Second)
	}
	c.readable = t
	return c.Conn.SetReadDeadline(t)
}

// become goes on over what was made of the connection, with the deadline that
// making it cleared.
func (c *conn) become(n net.Conn) {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	c.Conn = n
	if c.lingering {
		c.readable = time.Unix(1, 0)
	}
	_ = n.SetReadDeadline(c.readable) // a closed connection says so on the first read
}

// linger ends reading and keeps the connection open for answers until shut.
func (c *conn) linger() {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	c.lingering = true
	_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // a closed connection needs no waking
}

// Close closes the connection, unless it still waits for its answers.
func (c *conn) Close() error {
	c.deadlines.Lock()
	lingering := c.lingering
	c.deadlines.Unlock()
	if !lingering {
		c.shut()
	}
	return nil
}

// shut closes the connection at once.
func (c *conn) shut() {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if !c.closed {
		c.closed = true
		_ = c.Conn.Close() // nothing is left to be told
	}
}

// A gate looks at the head of a client's first packet, of a guest's every
// packet, while it arrives. It never lets a read go beyond that packet, so that what follows is read only
// after the login was decided, and it refuses the packet before its body is
// read or room for it is made.
type gate struct {
	limit  int
	passed bool // the first packet is complete
	head   int  // bytes of the fixed header seen
	left   int  // remaining length, then bytes of the body still to come
	shift  uint
	body   bool // the fixed header is complete
}

// want returns how many bytes to read next, at most most.
func (g *gate) want(most int) int {
	switch {
	case !g.body && g.head == 0:
		return min(2, most) // no packet is shorter
	case !g.body:
		return min(1, most)
	}
	return min(g.left, most)
}

// feed takes in the bytes that were read. It reports false when the packet
// exceeds the limit.
func (g *gate) feed(p []byte) bool {
	for len(p) > 0 && !g.body {
		if g.head > 0 {
			g.left |= int(p[0]&0x7f) << g.shift
			g.shift += 7
			// A fourth length byte is the last there can be.
			g.body = p[0]&0x80 == 0 || g.shift == 28
		}
		g.head++
		p = p[1:]
	}
	if !g.body {
		return true
	}
	if g.head+g.left > g.limit {
		return false
	}
	g.left -= len(p)
	g.passed = g.left == 0
	return true
}
