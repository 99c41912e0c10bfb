package gateway

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"
)

// dialWeb logs in over WebSocket. The client library wants its path as a
// configuration of its own.
func dialWeb(t *testing.T, url, id string) paho.Client {
	t.Helper()
	c := paho.NewClient(paho.NewClientOptions().AddBroker(url).SetClientID(id).SetConnectRetry(false))
	if tok := c.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatalf("connect to %s: %v", url, tok.Error())
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func TestDevicesPublishOverWebSocket(t *testing.T) {
	r := start(t, testSandbox(t, t.TempDir(), "mqtt.listen=", "mqtt.websocket.listen=127.0.0.1:0", "mqtt.websocket.path=/devices"))
	c := dialWeb(t, "ws://"+r.address("websocket")+"/devices", "probe-1")
	if tok := c.Publish("readings/probe-1/temperature", 1, false, "21.5"); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatalf("publish: %v", tok.Error())
	}
	var answer struct{ Items []struct{ Device string } }
	if code := r.get("/api/hedgerow/v1/readings", &answer); code != http.StatusOK || len(answer.Items) != 1 || answer.Items[0].Device != "probe-1" {
		t.Errorf("readings are answered %d %+v", code, answer)
	}
}

func TestEventsAreServedOnTheListenerOfTheAPI(t *testing.T) {
	r := start(t, testSandbox(t, t.TempDir(), "mqtt.listen="))
	var routes struct{ Routes []string }
	if r.get("/api/routes", &routes); !slices.Contains(routes.Routes, "mqtt/v1") {
		t.Errorf("routes are %v, want mqtt/v1 among them", routes.Routes)
	}
	c := dialWeb(t, "ws://"+r.address("http")+"/api/mqtt/v1", "")
	got := make(chan string, 1)
	if tok := c.Subscribe("blocks", 0, func(_ paho.Client, m paho.Message) { got <- string(m.Payload()) }); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatalf("subscribe: %v", tok.Error())
	}
	r.stages.mqtt.Event("blocks", []byte("a block"))
	select {
	case p := <-got:
		if p != "a block" {
			t.Errorf("got %q", p)
		}
	case <-time.After(10 * time.Second):
		t.Error("no event came")
	}
}

func TestEventsNeedTheTokenWhenTheAPIIsNotPublic(t *testing.T) {
	r := start(t, testSandbox(t, t.TempDir(), "api.public=false"))
	for token, want := range map[string]int{"": 401, "Bearer wrong": 401, "Bearer " + r.token: 101} {
		header := http.Header{}
		if token != "" {
			header.Set("Authorization", token)
		}
		ws, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+r.address("http")+"/api/mqtt/v1", header)
		if err == nil {
			ws.Close()
		}
		if resp == nil || resp.StatusCode != want {
			t.Errorf("%q is answered %v, %v; want %d", strings.TrimSuffix(token, r.token), resp, err, want)
		}
	}
}

func TestWebSocketSettingsAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		`listen: ["0.0.0.0:9001"]`:                   `f.yaml:1:29: mqtt.websocket.listen[0]: 0.0.0.0:9001 is reachable from other machines without encryption; listen on 127.0.0.1 or say mqtt.insecure: true`,
		`listen: ["127.0.0.1:1883"]`:                 `f.yaml:1:29: mqtt.websocket.listen[0]: 127.0.0.1:1883 stands at mqtt.listen[0] already`,
		`path: mqtt`:                                 `f.yaml:1:26: mqtt.websocket.path: "mqtt" is not a path; write one such as /mqtt`,
		`path: "/a?b"`:                               `f.yaml:1:26: mqtt.websocket.path: "/a?b" is not a path; write one such as /mqtt`,
		`path: /a/../b`:                              `f.yaml:1:26: mqtt.websocket.path: "/a/../b" is not a path; write one such as /mqtt`,
		`origins: ["https://a.example/"]`:            `f.yaml:1:30: mqtt.websocket.origins[0]: "https://a.example/" is not an origin; write scheme://host or scheme://host:port in lower case, or * for any`,
		`origins: ["a.example"]`:                     `f.yaml:1:30: mqtt.websocket.origins[0]: "a.example" is not an origin; write scheme://host or scheme://host:port in lower case, or * for any`,
		`origins: ["*", "https://a.example:8443"]`:   "",
		`{listen: ["0.0.0.0:9001"]}, insecure: true`: "",
	} {
		if !strings.HasPrefix(text, "{") {
			text = "{" + text + "}"
		}
		_, err := Parse("f.yaml", []byte("mqtt: {websocket: "+text+"}"), nil)
		if got := ""; err != nil {
			if got = err.Error(); got != want {
				t.Errorf("%s:\ngot  %s\nwant %s", text, got, want)
			}
		} else if want != "" {
			t.Errorf("%s is accepted", text)
		}
	}
}
