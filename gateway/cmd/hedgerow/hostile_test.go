package main_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// While hostile clients send what no client should, the gateway stays up and
// goes on acknowledging a well-behaved one.
func TestHostileInputCostsOnlyItsSender(t *testing.T) {
	b := newBox(t, t.TempDir())
	b.start()
	good := &mqttSensor{addr: b.mqtt, id: "good", topic: "readings/good/count", window: 1, pause: time.Millisecond}
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- good.run(stop, time.Now().Add(time.Minute)) }()

	connect5 := "\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03bad"
	for name, stream := range map[string]string{
		"SUBSCRIBE without its options byte": connect5 + "\x82\x08\x00\x01\x00\x00\x03bad",
		"256 MB claimed before login":        "\x10\xff\xff\xff\x7f",
		"256 MB claimed after login":         connect5 + "\x32\xff\xff\xff\x7f",
		"half a CONNECT":                     connect5[:9],
		"not MQTT":                           "GET / HTTP/1.1\r\n\r\n",
		"topic that is not UTF-8":            connect5 + "\x32\x10\x00\x09readings\xff\x00\x01\x0021",
		"PUBLISH with packet id 0":           connect5 + "\x32\x10\x00\x0creadings/a/b\x00\x00",
	} {
		conn, err := net.Dial("tcp", b.mqtt)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer conn.Close()
		io.WriteString(conn, stream)
	}
	noise := rand.NewChaCha8([32]byte{1})
	udp, err := net.Dial("udp", b.coap)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for range 2000 {
		datagram := make([]byte, 1+noise.Uint64()%200)
		noise.Read(datagram)
		datagram[0] = datagram[0]&0x3f | 0x40 // CoAP version 1
		udp.Write(datagram)
	}
	for range 200 {
		conn, err := net.Dial("tcp", b.mqtt)
		if err != nil {
			t.Fatal(err)
		}
		garbage := make([]byte, 300)
		noise.Read(garbage)
		io.WriteString(conn, connect5)
		conn.Write(garbage)
		conn.Close()
	}
	b.postInvalidBlocks()

	if !b.alive() {
		t.Fatalf("the gateway has ended: %v", b.cmd.ProcessState)
	}
	served := good.count()
	b.await("the well-behaved sensor being served", 10*time.Second, func() bool { return good.count() >= served+20 })
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if code := answerCoAP(t, b.coap); code != 0x44 {
		t.Errorf("CoAP answers %d.%02d afterwards, want 2.04", code>>5, code&31)
	}
	for _, r := range b.readings() {
		if r.Device != "good" && r.Device != "probe" {
			t.Errorf("hostile input left the reading %+v", r)
		}
	}
}

// postInvalidBlocks submits every block of the protocol's vectors that must be
// refused, and bodies that are no block at all.
func (b *box) postInvalidBlocks() {
	b.t.Helper()
	text, err := os.ReadFile("../../../ledger/stardust/testdata/invalid_blocks.json")
	if err != nil {
		b.t.Fatal(err)
	}
	var vectors struct {
		Blocks []struct {
			Name, Serialized string
			MustReject       bool
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		b.t.Fatal(err)
	}
	for _, v := range vectors.Blocks {
		raw, err := hex.DecodeString(strings.TrimPrefix(v.Serialized, "0x"))
		if err != nil {
			b.t.Fatal(err)
		}
		if v.Name == "pow score too low" {
			continue // nonce 0 asks the gateway to do the work
		}
		b.refuses(v.Name, "application/vnd.iota.serializer-v1", raw)
	}
	for _, body := range []string{"", "{", "[]", `{"protocolVersion":2,"parents":"x"}`, `{"protocolVersion":3}`, strings.Repeat("[", 100000)} {
		b.refuses(body[:min(len(body), 40)], "application/json", []byte(body))
	}
}

func (b *box) refuses(name, contentType string, body []byte) {
	b.t.Helper()
	resp, err := http.Post("http://"+b.api+"/api/core/v2/blocks", contentType, bytes.NewReader(body))
	if err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
	defer resp.Body.Close()
	var answer struct {
		Error struct{ Code, Message string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != 400 || answer.Error.Message == "" {
		b.t.Errorf("%s: answered %d %+v (%v), want 400 with a reason", name, resp.StatusCode, answer, err)
	}
}
