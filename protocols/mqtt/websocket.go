package mqtt

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/gorilla/websocket"
)

// maxHandshake bounds the request that opens a WebSocket, in bytes. Browsers
// send the cookies of everything that the host serves.
const maxHandshake = 16 << 10

// errText ends a connection whose client sends text (MQTT-6.0.0-1).
var errText = errors.New("websocket message is not binary")

// WebSocket says how devices reach the broker over WebSocket. They have the
// guards and the limits of those on TCP.
type WebSocket struct {
	// Listeners are open; Run closes them.
	Listeners []net.Listener
	// Path of the requests, default /mqtt; others are answered 404.
	Path string
	// Origins of the pages whose scripts may connect, such as
	// https://example.org, or * for any. Clients that are no browsers send no
	// origin and are let in. A page's origin is checked because a browser
	// inside the site, on a page from outside, would be a way around what lets
	// devices in by where they are; its own host is no exception, as a name
	// can be made to point here.
	Origins []string
}

// allows tells whether a request may come from where it says.
func (ws *WebSocket) allows(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	return len(origins) == 0 || slices.Contains(ws.Origins, "*") ||
		len(origins) == 1 && slices.Contains(ws.Origins, origins[0])
}

// open makes a WebSocket of a connection that was accepted. The deadline for
// CONNECT runs already.
func (b *Broker) open(c *conn) error {
	br := bufio.NewReader(io.LimitReader(c.Conn, maxHandshake))
	r, err := http.ReadRequest(br)
	if err != nil {
		return fmt.Errorf("read websocket request: %w", err)
	}
	w := &handshake{conn: c.Conn, br: br, header: http.Header{}}
	switch {
	case r.URL.Path != b.cfg.WebSocket.Path:
		http.Error(w, "MQTT is served on "+b.cfg.WebSocket.Path, http.StatusNotFound)
		return errors.New("websocket request for another path")
	case !b.cfg.WebSocket.allows(r):
		http.Error(w, "pages of this origin are not allowed to connect", http.StatusForbidden)
		return errors.New("websocket request of a foreign origin")
	}
	ws, err := b.upgrade(w, r)
	if err != nil {
		return err
	}
	c.become(ws)
	return nil
}

// upgrade answers a request for a WebSocket. The caller has checked its
// origin.
func (b *Broker) upgrade(w http.ResponseWriter, r *http.Request) (*webConn, error) {
	// Buffers are those that the HTTP connection has. Compression is not
	// offered: it costs memory and time for each connection, and opens the
	// question how much a small frame may unfold to.
	u := websocket.Upgrader{
		HandshakeTimeout: b.limits.WriteTimeout,
		Subprotocols:     []string{"mqtt", "mqttv3.1"},
		CheckOrigin:      func(*http.Request) bool { return true },
	}
	ws, err := u.Upgrade(w, r, nil)
	if err != nil {
		return nil, fmt.Errorf("open websocket: %w", err)
	}
	return &webConn{Conn: ws.NetConn(), ws: ws}, nil
}

// A webConn carries MQTT's bytes in binary messages, however they are cut.
type webConn struct {
	net.Conn // deadlines of reads, addresses, Close
	ws       *websocket.Conn
	message  io.Reader // what is left of a message, or nil
}

// Read returns bytes of one message. It holds no more of it than its buffer,
// whatever length the message claims.
func (w *webConn) Read(p []byte) (int, error) {
	for {
		if w.message == nil {
			kind, r, err := w.ws.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errText
			}
			w.message = r
		}
		n, err := w.message.Read(p)
		if err == io.EOF {
			w.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write sends p as one message. One goroutine at a time may write.
func (w *webConn) Write(p []byte) (int, error) {
	if err := w.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetWriteDeadline is the library's to know: it sets its own with every frame.
func (w *webConn) SetWriteDeadline(t time.Time) error { return w.ws.SetWriteDeadline(t) }

// A handshake answers the one HTTP request of a connection that a listener
// accepted.
type handshake struct {
	conn   net.Conn
	br     *bufio.Reader
	header http.Header
	status int
}

func (h *handshake) Header() http.Header    { return h.header }
func (h *handshake) WriteHeader(status int) { h.status = status }

// Write sends a whole answer.
func (h *handshake) Write(p []byte) (int, error) {
	answer := http.Response{
		StatusCode: h.status, ProtoMajor: 1, ProtoMinor: 1, Header: h.header,
		Body: io.NopCloser(bytes.NewReader(p)), ContentLength: int64(len(p)), Close: true,
	}
	return len(p), answer.Write(h.conn)
}

// Hijack hands the connection over.
func (h *handshake) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(h.br, bufio.NewWriter(h.conn)), nil
}

// GuestEvents returns the handler of the public path for events
// (/api/mqtt/v1, TIP-28): a WebSocket on which clients are let in without
// login, may subscribe to event topics, and nothing else; what they say of
// themselves is not looked at. Pages of any origin may connect, as nothing
// depends on who asks. Requests are answered 503 while there are as many
// guests as may be. It may be called before Run; requests are served until
// Run ends.
func (b *Broker) GuestEvents() http.Handler { return http.HandlerFunc(b.serveGuest) }

func (b *Broker) serveGuest(w http.ResponseWriter, r *http.Request) {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr) // the zero address is an answer
	b.mu.Lock()
	room := b.room(groupOf(ap.Addr().Unmap()), true)
	b.mu.Unlock()
	if !room {
		b.counts.surplus.Add(1)
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many clients listen to events", http.StatusServiceUnavailable)
		return
	}
	ws, err := b.upgrade(w, r)
	if err != nil {
		b.log.Debug("guest refused", "remote", r.RemoteAddr, "err", err)
		return
	}
	if c := newConn(ws, b, true); b.enter(c) {
		b.handle("guests", c, b.server.EstablishConnection)
	}
}
