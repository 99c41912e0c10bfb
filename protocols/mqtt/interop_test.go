package mqtt

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
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
