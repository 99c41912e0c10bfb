package gateway

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// A stage that fails ends all the others, and its error is the gateway's.
func TestAFailingStageEndsTheGateway(t *testing.T) {
	g, err := New(testSandbox(t, t.TempDir()), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.Run(context.Background(), nil) }()
	r := &runner{Gateway: g, t: t, token: g.Token()}
	r.readings(0) // it serves
	if err := g.stages.http.listener.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "http: ") {
			t.Errorf("Run = %v, want the error of http", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Run goes on for 30 s after its HTTP server failed")
	}
}

// The second signal ends a drain that would go on; what was acknowledged is
// there at the next start.
func TestTheSecondSignalEndsTheDrain(t *testing.T) {
	home := t.TempDir()
	cfg := testSandbox(t, home, "powfarm.workers=0", "shutdown.drain=10m")
	g, err := New(cfg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	now, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- g.Run(ctx, now) }()
	r := &runner{Gateway: g, t: t, token: g.Token()}
	if code, err := r.put("/readings/probe/count", "1"); err != nil || code != codes.Changed {
		t.Fatalf("PUT = %v, %v; want 2.04", code, err)
	}
	cancel()
	select {
	case err := <-done:
		t.Fatalf("Run = %v, want it to wait for the reading to be attached", err)
	case <-time.After(300 * time.Millisecond):
	}
	close(now)
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run = %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Run goes on for 30 s after the second signal")
	}
	start(t, testSandbox(t, home)).readings(1)
}

// Connections beyond the limit wait until one before them ends.
func TestLimitedListenerHoldsConnectionsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &pipeListener{conns: make(chan net.Conn, 3), closed: make(chan struct{})}
		l := limit(inner, 2)
		for range 3 {
			c, _ := net.Pipe()
			inner.conns <- c
		}
		accepted := make(chan net.Conn, 3)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					close(accepted)
					return
				}
				accepted <- c
			}
		}()
		synctest.Wait()
		if n := len(accepted); n != 2 {
			t.Fatalf("%d connections accepted, want 2", n)
		}
		first := <-accepted
		_ = first.Close()
		_ = first.Close() // gives its place back once
		synctest.Wait()
		if n := len(accepted); n != 2 {
			t.Errorf("%d connections accepted after one ended, want the third", n)
		}
		_ = l.Close()
		synctest.Wait()
		for range accepted { // ends, because Accept did
		}
	})
}

// pipeListener accepts what it is given.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipeListener) Close() error {
	close(p.closed)
	return nil
}

func (p *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }
