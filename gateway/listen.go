package gateway

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
)

// A Listener is an address that the gateway listens on.
type Listener struct {
	Protocol string // mqtt, websocket, coap, http, routes or clients
	Address  string // as it is reached: with the port that was found
	Instead  string // the address that was taken, when another port was found
}

// sockets are the open listeners. The stages that are given them close them;
// close is for when no stage was made.
type sockets struct {
	mqtt      []net.Listener
	webSocket []net.Listener
	coap      []*net.UDPConn
	http      net.Listener
	named     []Listener
}

func (s *sockets) close() {
	for _, l := range slices.Concat(s.mqtt, s.webSocket) {
		_ = l.Close()
	}
	for _, c := range s.coap {
		_ = c.Close()
	}
	if s.http != nil {
		_ = s.http.Close()
	}
}

// openSockets opens every listener of the configuration, or none.
func openSockets(cfg *Config) (_ *sockets, err error) {
	s := &sockets{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for _, address := range cfg.MQTT.Listen {
		l, err := listenTCP(cfg, s, "mqtt", address)
		if err != nil {
			return nil, err
		}
		s.mqtt = append(s.mqtt, l)
	}
	for _, address := range cfg.MQTT.WebSocket.Listen {
		l, err := listenTCP(cfg, s, "websocket", address)
		if err != nil {
			return nil, err
		}
		s.webSocket = append(s.webSocket, l)
	}
	for _, address := range cfg.CoAP.Listen {
		c, err := listenUDP(cfg, s, address)
		if err != nil {
			return nil, err
		}
		s.coap = append(s.coap, c)
	}
	s.http, err = listenTCP(cfg, s, "http", cfg.API.Listen)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func listenTCP(cfg *Config, s *sockets, protocol, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	instead := ""
	if free, ok := freePort(cfg, address, err); ok {
		instead = address
		l, err = net.Listen("tcp", free)
	}
	if err != nil {
		return nil, listenError(protocol, address, err)
	}
	s.named = append(s.named, Listener{protocol, l.Addr().String(), instead})
	return l, nil
}

func listenUDP(cfg *Config, s *sockets, address string) (*net.UDPConn, error) {
	open := func(address string) (*net.UDPConn, error) {
		a, err := net.ResolveUDPAddr("udp", address)
		if err != nil {
			return nil, err
		}
		return net.ListenUDP("udp", a)
	}
	c, err := open(address)
	instead := ""
	if free, ok := freePort(cfg, address, err); ok {
		instead = address
		c, err = open(free)
	}
	if err != nil {
		return nil, listenError("coap", address, err)
	}
	s.named = append(s.named, Listener{"coap", c.LocalAddr().String(), instead})
	return c, nil
}

// freePort returns the address to try when a sandbox's default one is taken.
// An address that somebody chose is not replaced behind their back.
func freePort(cfg *Config, address string, err error) (string, bool) {
	d := Default()
	isDefault := slices.ContainsFunc(d.listens(), func(l listenKey) bool { return l.address == address })
	host, _, splitErr := net.SplitHostPort(address)
	if cfg.Home == "" || !isDefault || splitErr != nil || !errors.Is(err, syscall.EADDRINUSE) {
		return "", false
	}
	return net.JoinHostPort(host, "0"), true
}

func listenError(protocol, address string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen for %s on %s: another program has this address; stop it or choose another port", protocol, address)
	}
	_, port, _ := net.SplitHostPort(address)
	if n, _ := strconv.Atoi(port); errors.Is(err, syscall.EACCES) && n < 1024 {
		return fmt.Errorf("listen for %s on %s: ports below 1024 need a privilege; choose another port", protocol, address)
	}
	return fmt.Errorf("listen for %s on %s: %w", protocol, address, err)
}

// limited bounds the connections of a listener: those beyond wait in the
// kernel's queue.
type limited struct {
	net.Listener
	slots  chan struct{} // a token per open connection
	closed chan struct{}
	once   sync.Once
}

func limit(l net.Listener, n int) *limited {
	return &limited{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slotConn{Conn: c, free: func() { <-l.slots }}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// slotConn gives its slot back when it is closed.
type slotConn struct {
	net.Conn
	once sync.Once
	free func()
}

func (c *slotConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.free)
	return err
}
