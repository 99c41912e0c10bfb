package main_test

import (
	"net"
	"sync"
	"testing"
)

// linkIP is the address of every link, to both sides. Servers tell each other
// under which address others reached them: from here that is one where nobody
// listens, so that no server gets past the links.
const linkIP = "127.0.0.9"

// A link is the cable between two gateways' servers, in one direction of
// dialling. While it is cut nothing gets through, and nobody is told.
type link struct {
	listener net.Listener
	to       string
	busy     sync.WaitGroup

	mu     sync.Mutex    // guards what follows
	open   chan struct{} // closed while the link is whole
	conns  map[net.Conn]struct{}
	closed bool
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	l := &link{to: to, open: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(l.open)
	var err error
	if l.listener, err = net.Listen("tcp", linkIP+":0"); err != nil {
		t.Fatal(err)
	}
	l.busy.Go(l.accept)
	t.Cleanup(l.end)
	return l
}

func (l *link) addr() string { return l.listener.Addr().String() }

func (l *link) accept() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.busy.Go(func() { l.connect(c) })
	}
}

// connect joins a connection with one of its own to the other side.
func (l *link) connect(from net.Conn) {
	defer from.Close()
	if !l.keep(from) {
		return
	}
	defer l.forget(from)
	l.wait()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(linkIP)}}
	to, err := dialer.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer to.Close()
	if !l.keep(to) {
		return
	}
	defer l.forget(to)
	var both sync.WaitGroup
	both.Go(func() { l.copy(to, from) })
	both.Go(func() { l.copy(from, to) })
	both.Wait()
}

// copy passes bytes on, and the end of the connection, while the link is whole.
func (l *link) copy(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		l.wait()
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}

// wait returns when the link is whole.
func (l *link) wait() {
	l.mu.Lock()
	open := l.open
	l.mu.Unlock()
	<-open
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = make(chan struct{})
}

func (l *link) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.open:
	default:
		close(l.open)
	}
}

// keep notes a connection that end closes.
func (l *link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.conns[c] = struct{}{}
	}
	return !l.closed
}

func (l *link) forget(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// end closes everything and returns after the last goroutine.
func (l *link) end() {
	l.listener.Close()
	l.mu.Lock()
	l.closed = true
	for c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.heal()
	l.busy.Wait()
}
