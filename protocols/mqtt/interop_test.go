package mqtt

import (
	"bufio"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

func TestPahoPublishesAndSubscribes(t *testing.T) {
	sink := newSink(true)
	b := start(t, sink, nil)
	options := paho.NewClientOptions().AddBroker("tcp://" + b.addr).SetClientID("paho").SetCleanSession(false)
	c := paho.NewClient(options)
	wait(t, c.Connect())
	defer c.Disconnect(100)
	got := make(chan string, 300)
	wait(t, c.Subscribe("readings/#", 1, func(_ paho.Client, m paho.Message) { got <- string(m.Payload()) }))
	var tokens []paho.Token
	var sent []string
	for i := range 300 {
		payload := fmt.Sprint(i)
		sent = append(sent, payload)
		tokens = append(tokens, c.Publish(temp, byte(i%3), false, payload))
	}
	for _, tok := range tokens {
		wait(t, tok)
	}
	eventually(t, "all stored", func() bool { return sink.count() == 300 })
	var received []string
	for range 300 {
		select {
		case p := <-got:
			received = append(received, p)
		case <-time.After(patienceInTests):
			t.Fatalf("%d of 300 delivered", len(received))
		}
	}
	slices.Sort(sent)
	slices.Sort(received)
	if !slices.Equal(sent, received) {
		t.Errorf("delivered %v, want %v", received, sent)
	}
}

func wait(t *testing.T, tok paho.Token) {
	t.Helper()
	if !tok.WaitTimeout(patienceInTests) {
		t.Fatal("no answer")
	}
	if err := tok.Error(); err != nil {
		t.Fatal(err)
	}
}

// program returns a mosquitto client or skips the test without it.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("HEDGEROW_NO_SKIP") == "1" {
			t.Fatalf("%s is missing: %v", name, err)
		}
		t.Skipf("%s is not installed (package mosquitto-clients)", name)
	}
	return path
}

func TestMosquittoClients(t *testing.T) {
	pubPath, subPath := program(t, "mosquitto_pub"), program(t, "mosquitto_sub")
	for _, version := range []string{"mqttv311", "mqttv5"} {
		for _, qos := range []string{"0", "1", "2"} {
			t.Run(version+" QoS "+qos, func(t *testing.T) {
				sink := newSink(true)
				b := start(t, sink, nil)
				_, port, _ := strings.Cut(b.addr, ":")
				args := []string{"-h", "127.0.0.1", "-p", port, "-V", version, "-q", qos}

				sub := exec.CommandContext(t.Context(), subPath, append(args, "-t", "readings/#", "-C", "3", "-W", "10", "-F", "%t %p %r")...)
				out, err := sub.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := sub.Start(); err != nil {
					t.Fatal(err)
				}
				eventually(t, "subscribed", func() bool { return b.Stats().Subscriptions == 1 })

				pub := exec.CommandContext(t.Context(), pubPath, append(args, "-t", temp, "-l", "-r")...)
				pub.Stdin = strings.NewReader("21.5\ntrue\n{\"v\":3,\"u\":\"Cel\"}\n")
				if text, err := pub.CombinedOutput(); err != nil {
					t.Fatalf("mosquitto_pub: %v\n%s", err, text)
				}
				lines := bufio.NewScanner(out)
				for _, want := range []string{"21.5", "true", `{"v":3,"u":"Cel"}`} {
					if !lines.Scan() || lines.Text() != temp+" "+want+" 0" {
						t.Errorf("mosquitto_sub printed %q, want %s", lines.Text(), want)
					}
				}
				if err := sub.Wait(); err != nil {
					t.Errorf("mosquitto_sub: %v", err)
				}
				if n := sink.count(); n != 3 || sink.stored[2].Readings[0].Unit != "Cel" {
					t.Errorf("stored %+v, want three readings", sink.stored)
				}
				late, err := exec.CommandContext(t.Context(), subPath, append(args, "-t", temp, "-C", "1", "-W", "10", "-F", "%p %r")...).Output()
				if err != nil || string(late) != "{\"v\":3,\"u\":\"Cel\"} 1\n" {
					t.Errorf("late subscriber got %q, %v; want the retained reading", late, err)
				}
			})
		}
	}
}

func TestMosquittoListensToEvents(t *testing.T) {
	subPath := program(t, "mosquitto_sub")
	for _, version := range []string{"mqttv311", "mqttv5"} {
		t.Run(version, func(t *testing.T) {
			b := start(t, newSink(true), func(c *Config) {
				c.Events = stateOf{"milestone-info/latest": {{"milestone-info/latest", []byte("now")}}}
			})
			_, port, _ := strings.Cut(b.addr, ":")
			sub := exec.CommandContext(t.Context(), subPath, "-h", "127.0.0.1", "-p", port, "-V", version,
				"-t", "milestone-info/latest", "-t", "block-metadata/+", "-C", "3", "-W", "10", "-F", "%t %p %r")
			out, err := sub.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := sub.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			read := func(want string) {
				if !lines.Scan() || lines.Text() != want {
					t.Errorf("mosquitto_sub printed %q, want %q", lines.Text(), want)
				}
			}
			read("milestone-info/latest now 1")
			eventually(t, "subscribed", func() bool { return b.Wanted("block-metadata/0x00") })
			b.Event("milestone-info/latest", []byte("next"))
			b.Event("block-metadata/0x00", []byte("{}"))
			read("milestone-info/latest next 0")
			read("block-metadata/0x00 {} 0")
			if err := sub.Wait(); err != nil {
				t.Errorf("mosquitto_sub: %v", err)
			}
		})
	}
}

func TestTheClientLibrariesOfNpmWork(t *testing.T) {
	modules := os.Getenv("HEDGEROW_NODE_MODULES")
	node, err := exec.LookPath("node")
	if modules == "" || err != nil {
		const why = "needs node, and HEDGEROW_NODE_MODULES with the packages of ledger/api/testdata/iotajs/package.json"
		if os.Getenv("HEDGEROW_NO_SKIP") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	sink := newSink(true)
	b, devices := startWeb(t, sink, func(c *Config) {
		c.Events = stateOf{"milestone-info/latest": {{"milestone-info/latest", []byte(`{"index":7}`)}}}
	})
	srv := httptest.NewServer(b.GuestEvents())
	defer srv.Close()
	events := "ws" + strings.TrimPrefix(srv.URL, "http") + "/api/mqtt/v1"
	cmd := exec.CommandContext(t.Context(), node, filepath.Join("testdata", "client.mjs"), devices, events)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(10 * time.Millisecond) // the script subscribes when it comes to it
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.Event("blocks", []byte("block"))
			b.Event("blocks/tagged-data/0x6162", []byte("tagged"))
			b.Event("block-metadata/referenced", []byte(`{"isSolid":true}`))
			b.Event("outputs/unlock/address/hdg1a/spent", []byte(`{"isSpent":true}`))
			continue
		case err = <-ended:
		}
		break
	}
	if err != nil || strings.TrimSpace(out.String()) != "ok" {
		t.Errorf("client.mjs: %v\n%s", err, out.String())
	}
	if n := sink.count(); n != 9 {
		t.Errorf("%d readings stored, want 9", n)
	}
}
