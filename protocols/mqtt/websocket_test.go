package mqtt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/hedgerow-iot/hedgerow/protocols"
)

// startWeb runs a broker with a WebSocket listener and returns its address.
func startWeb(t testing.TB, sink protocols.Sink, change func(*Config)) (b *running, url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b = start(t, sink, func(c *Config) {
		c.WebSocket.Listeners = []net.Listener{ln}
		if change != nil {
			change(c)
		}
	})
	return b, "ws://" + ln.Addr().String() + "/mqtt"
}

// tryWeb opens a WebSocket, or returns the status of the refusal, 0 when there
// was no answer.
func tryWeb(t testing.TB, url, origin string) (c *client, status int) {
	t.Helper()
	header := http.Header{}
	if origin != "" {
		header.Set("Origin", origin)
	}
	d := websocket.Dialer{Subprotocols: []string{"mqtt"}, HandshakeTimeout: patienceInTests}
	ws, resp, err := d.DialContext(t.Context(), url, header)
	if err != nil {
		if resp == nil {
			return nil, 0
		}
		resp.Body.Close()
		return nil, resp.StatusCode
	}
	if p := ws.Subprotocol(); p != "mqtt" {
		t.Errorf("subprotocol is %q, want mqtt", p)
	}
	w := &webConn{Conn: ws.NetConn(), ws: ws}
	t.Cleanup(func() { w.Close() })
	return &client{t: t, Conn: w, r: bufio.NewReader(w)}, http.StatusSwitchingProtocols
}

func dialWeb(t testing.TB, url string) *client {
	t.Helper()
	c, status := tryWeb(t, url, "")
	if c == nil {
		t.Fatalf("%s is answered %d", url, status)
	}
	return c
}

func TestReadingsComeOverWebSocket(t *testing.T) {
	each(t, func(t *testing.T, v5 bool) {
		sink := newSink(true)
		b, url := startWeb(t, sink, nil)
		sub := connect(t, b.addr, login{id: "sub"})
		sub.subscribe(1, "readings/#", 0)
		c := dialWeb(t, url).login(login{id: "probe", v5: v5})
		// Messages are not packets: one holds two, and one is cut in two.
		c.send(append(c.packet(pub{topic: temp, payload: "1", qos: 1, id: 1}), c.packet(pub{topic: temp, payload: "2", qos: 2, id: 2})...))
		c.want("QoS 1", 0x40, 0, 1)
		c.want("QoS 2", 0x50, 0, 2)
		p := c.packet(pub{topic: temp, payload: "3", qos: 1, id: 3})
		c.send(p[:5])
		c.send(nil)
		c.send(p[5:])
		c.want("cut in two", 0x40, 0, 3)
		for _, want := range []string{"1", "2", "3"} {
			if _, payload, _ := sub.message(); payload != want {
				t.Errorf("subscriber got %s, want %s", payload, want)
			}
		}
		if n := sink.count(); n != 3 {
			t.Errorf("%d stored, want 3", n)
		}
		ws := c.Conn.(*webConn).ws
		pong := make(chan string, 1)
		ws.SetPongHandler(func(s string) error { pong <- s; return nil })
		if err := ws.WriteControl(websocket.PingMessage, []byte("hi"), time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		c.quiet("a ping of WebSocket is no packet")
		if s := <-pong; s != "hi" {
			t.Errorf("pong holds %q", s)
		}
	})
}

func TestLargeMessagesComeOverWebSocketWhole(t *testing.T) {
	b, url := startWeb(t, newSink(true), nil)
	sub := dialWeb(t, url).login(login{id: "sub"})
	sub.subscribe(1, "x", 0)
	c := connect(t, b.addr, login{id: "probe"})
	large := strings.Repeat("0123456789", 20_000)
	c.publish(pub{topic: "x", payload: large})
	if _, payload, _ := sub.message(); payload != large {
		t.Errorf("got %d bytes, want %d", len(payload), len(large))
	}
}

func TestPagesNeedAnAllowedOrigin(t *testing.T) {
	for _, tt := range []struct {
		allowed []string
		origin  string
		status  int
	}{
		{nil, "", 101},
		{nil, "http://evil.example", 403},
		{nil, "null", 403},
		{[]string{"https://good.example"}, "https://good.example", 101},
		{[]string{"https://good.example"}, "http://good.example", 403},
		{[]string{"https://good.example"}, "https://good.example.evil.example", 403},
		{[]string{"*"}, "http://evil.example", 101},
	} {
		t.Run(fmt.Sprintf("%q of %v", tt.origin, tt.allowed), func(t *testing.T) {
			_, url := startWeb(t, newSink(true), func(c *Config) { c.WebSocket.Origins = tt.allowed })
			if _, status := tryWeb(t, url, tt.origin); status != tt.status {
				t.Errorf("answered %d, want %d", status, tt.status)
			}
		})
	}
	// Not even its own: a name can be made to point here.
	t.Run("the same host", func(t *testing.T) {
		_, url := startWeb(t, newSink(true), nil)
		if _, status := tryWeb(t, url, "http"+strings.TrimSuffix(strings.TrimPrefix(url, "ws"), "/mqtt")); status != 403 {
			t.Errorf("answered %d, want 403", status)
		}
	})
}

func TestWhatIsNoWebSocketIsRefused(t *testing.T) {
	b, url := startWeb(t, newSink(true), nil)
	addr := strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), "/mqtt")
	for name, tt := range map[string]struct{ in, want string }{
		"another path":         {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 "},
		"no upgrade":           {"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 "},
		"another method":       {"POST /mqtt HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 999999999\r\n\r\n", "HTTP/1.1 405 "},
		"MQTT over TCP":        {string(login{id: "probe"}.packet()), ""},
		"half a request":       {"GET /mqtt HTT", ""},
		"an oversized request": {"GET /mqtt HTTP/1.1\r\nHost: x\r\nCookie: " + strings.Repeat("x", maxHandshake) + "\r\n\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, addr)
			c.send([]byte(tt.in))
			c.Conn.(*net.TCPConn).CloseWrite()
			c.SetReadDeadline(time.Now().Add(patienceInTests))
			// A connection that is closed before it was read to its end is reset.
			got, err := io.ReadAll(c.r)
			if tt.want != "" && !strings.HasPrefix(string(got), tt.want) || tt.want == "" && len(got) > 0 {
				t.Errorf("answer is %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	text := dialWeb(t, url)
	text.Conn.(*webConn).ws.WriteMessage(websocket.TextMessage, login{id: "probe"}.packet())
	text.ended("text message")
	eventually(t, "all closed", func() bool { return b.Stats().Connections == 0 })
}

func TestWebSocketsHaveTheGuardsOfTCP(t *testing.T) {
	t.Run("a first packet of 256 MB", func(t *testing.T) {
		b, url := startWeb(t, newSink(true), nil)
		c := dialWeb(t, url)
		c.send([]byte{0x10, 0xff, 0xff, 0xff, 0x7f})
		c.ended("CONNECT of 256 MB")
		eventually(t, "counted", func() bool { return b.Stats().Oversized == 1 })
	})
	t.Run("a panic", func(t *testing.T) {
		b, url := startWeb(t, newSink(true), nil)
		c := dialWeb(t, url).login(login{id: "probe", v5: true})
		c.send(crash)
		c.ended("panic")
		eventually(t, "counted", func() bool { return b.Stats().Panics == 1 })
	})
	t.Run("silence", func(t *testing.T) {
		b, url := startWeb(t, newSink(true), func(c *Config) { c.Limits.ConnectTimeout = 50 * time.Millisecond })
		quiet := dial(t, strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), "/mqtt"))
		quiet.ended("no request")
		c := dialWeb(t, url)
		c.ended("no CONNECT")
		pinging := dialWeb(t, url)
		go func() { // ends with the connection
			for pinging.Conn.(*webConn).ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)) == nil {
			}
		}()
		pinging.ended("nothing but pings")
		eventually(t, "counted", func() bool { return b.Stats().Unconnected == 3 })
	})
	t.Run("connections", func(t *testing.T) {
		b, url := startWeb(t, newSink(true), func(c *Config) { c.Limits.PerAddress = 2 })
		connect(t, b.addr, login{id: "a"})
		dialWeb(t, url)
		if _, status := tryWeb(t, url, ""); status != 0 {
			t.Errorf("the third connection is answered %d, want it closed", status)
		}
	})
	t.Run("a subscriber that does not read", func(t *testing.T) {
		b, url := startWeb(t, newSink(true), func(c *Config) { c.Limits.WriteTimeout = 100 * time.Millisecond })
		slow := dialWeb(t, url).login(login{id: "slow"})
		slow.subscribe(1, "x", 0)
		c := connect(t, b.addr, login{id: "probe"})
		eventually(t, "closed", func() bool {
			c.publish(pub{topic: "x", payload: strings.Repeat("x", 100_000)})
			return b.Stats().SlowCloses > 0
		})
	})
	t.Run("the end of Run", func(t *testing.T) {
		b, url := startWeb(t, newSink(true), nil)
		c := dialWeb(t, url).login(login{id: "probe", v5: true})
		b.stop()
		c.want("good-bye", 0xe0, 0x8b)
		c.ended("stopped")
		if err := func() error { _, err := net.Dial("tcp", c.RemoteAddr().String()); return err }(); err == nil {
			t.Error("a stopped broker accepts connections")
		}
	})
}

// Whatever comes instead of frames, the process lives and serves others.
func FuzzWebSocketStream(f *testing.F) {
	mask := func(head byte, payload []byte) []byte { // with a key of zeros
		return append([]byte{head, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
	}
	hello := login{id: "bad"}.packet()
	f.Add(mask(0x82, hello))
	f.Add(append(mask(0x82, hello), mask(0x82, crash)...))
	f.Add(append(mask(0x02, hello[:3]), mask(0x80, hello[3:])...))
	f.Add(append(mask(0x89, []byte("ping")), mask(0x88, nil)...))
	f.Add(mask(0x81, hello))
	f.Add([]byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x10})
	b, url := startWeb(f, newSink(true), nil)
	good := connect(f, b.addr, login{id: "good"})
	f.Fuzz(func(t *testing.T, in []byte) {
		c := dialWeb(t, url)
		tcp := c.Conn.(*webConn).Conn
		if err := tcp.SetDeadline(time.Now().Add(patienceInTests)); err != nil {
			t.Fatal(err)
		}
		_, _ = tcp.Write(in) // the broker may close before it has read everything
		_ = tcp.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, tcp); errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		good := *good
		good.t = t
		good.quiet("others are served")
	})
}
