package admin

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
)

// site gives the box three other gateways: mill is up, silo is shunned, and
// nothing was ever heard of shed.
func (b box) site() {
	until := time.UnixMilli(4795342504120)
	others := []peer.Member{
		{
			Gateway: network.Gateway{Name: "mill", PublicKey: network.PublicKey{0xab}, Weight: 2},
			Up:      true, Votes: true, Heard: time.UnixMilli(1795342504120), Position: 120, Behind: 3, Standing: 0.98765,
			MemberCounts: peer.MemberCounts{
				New: 1, Duplicates: 2, Held: 3, Useless: 7, Invalid: 10, Malformed: 200, Replayed: 3000, Forged: 40_000, Limited: 500_000, Shunned: 6_000_000,
				Unanswered: 4, Served: 5,
			},
		},
		{Gateway: network.Gateway{Name: "silo", Weight: 1}, Votes: true, Heard: time.UnixMilli(1), Standing: 0.5, ShunnedUntil: until},
		{Gateway: network.Gateway{Name: "shed", Weight: 1}, Votes: true, Standing: 1},
	}
	for _, m := range others {
		b.file.Gateways = append(b.file.Gateways, m.Gateway)
	}
	*b.peers = fakePeers{Members: others, Sent: 11, Unsent: 12, Strange: 13, Wanted: 14, SignaturesUnsent: 15, SignaturesUnread: 16}
}

const (
	millLine = `"name":"mill","key":"0xab00000000000000000000000000000000000000000000000000000000000000","up":true,"votes":true,` +
		`"lastSeen":"2026-11-22T10:15:04.120Z","blocks":120,"lag":3,"milestone":null,"milestoneLag":null,"score":0.99,"refused":6543210`
	millCounts = `,"weight":2,"new":1,"duplicates":2,"held":3,"useless":7,"invalid":10,"unsupported":0,"malformed":200,"replayed":3000,"forged":40000,` +
		`"limited":500000,"shunned":6000000,"unanswered":4,"servedBytes":5`
)

func TestPeersAreListedAndInStatus(t *testing.T) {
	b := newBox(t, Config{})
	for path, empty := range map[string]string{"peers": `"items":[]`, "status": `"peers":[]`} {
		if w := b.get("/api/hedgerow/v1/" + path); w.Code != 200 || !strings.Contains(w.Body.String(), empty) {
			t.Errorf("%s of a gateway alone = %d %s", path, w.Code, w.Body)
		}
	}
	b.site()
	*b.bus = fakeBus{
		Mode: bus.Embedded, Connected: true, Routes: []bus.Route{{Name: "mill", Address: "10.0.0.8:6222", Since: time.UnixMilli(1795342504120)}},
		Clients: 2, Refused: 7, RefusedAt: time.UnixMilli(1795342504120), RefusedWhy: "a wrong key",
	}
	const conn = `{"mode":"embedded","connected":true,"routes":[{"name":"mill","address":"10.0.0.8:6222","since":"2026-11-22T10:15:04.120Z"}],` +
		`"clients":2,"refused":7,"lastRefused":{"time":"2026-11-22T10:15:04.120Z","why":"a wrong key"}}`
	for path, want := range map[string]string{"peers": millLine + millCounts, "status": millLine} {
		var got struct {
			Bus          json.RawMessage
			Items, Peers []json.RawMessage
		}
		if err := json.Unmarshal(b.get("/api/hedgerow/v1/"+path).Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		list := slices.Concat(got.Items, got.Peers)
		if len(list) != 3 || string(list[0]) != "{"+want+"}" || !strings.Contains(string(list[2]), `"lastSeen":null`) {
			t.Errorf("%s lists\n%s, want first\n{%s}", path, list, want)
		}
		if string(got.Bus) != conn {
			t.Errorf("%s has the bus\n%s, want\n%s", path, got.Bus, conn)
		}
		if path == "peers" && !strings.Contains(string(list[1]), `"shunnedUntil":"2121-`) {
			t.Errorf("a shunned peer is %s", list[1])
		}
	}
	if w := b.get("/api/hedgerow/v1/peers?x=1"); w.Code != 400 {
		t.Errorf("peers?x=1 = %d, want 400", w.Code)
	}
}

func TestAlarmsAreListed(t *testing.T) {
	b := newBox(t, Config{})
	if w := b.get("/api/hedgerow/v1/alarms"); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"items":[]}` {
		t.Errorf("without any: %d %s", w.Code, w.Body)
	}
	b.site()
	var got struct{ Items []Alarm }
	if err := json.Unmarshal(b.get("/api/hedgerow/v1/alarms").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if want := b.alarmsNow(t).Alarms; len(want) == 0 || !slices.Equal(got.Items, want) {
		t.Errorf("alarms are %v, in status %v", got.Items, want)
	}
	if w := b.get("/api/hedgerow/v1/alarms?x=1"); w.Code != 400 {
		t.Errorf("alarms?x=1 = %d, want 400", w.Code)
	}
}

func TestQuorumCountsThoseThatAreUp(t *testing.T) {
	b := newBox(t, Config{})
	b.site() // weights 1, 2, 1, 1; the quorum is 3
	for _, tt := range []struct {
		name   string
		change func()
		up     uint64
		text   string // of the alarm; empty: none
	}{
		{"half of it", func() {}, 3, ""},
		{"all", func() { b.peers.Members[1].Up, b.peers.Members[2].Up = true, true }, 5, ""},
		{"one is recovering", func() { b.peers.Members[0].Votes = false }, 3, ""},
		{"one equivocated, too", func() {
			b.src.Trouble = func() Trouble { return Trouble{Equivocators: []string{"silo"}} }
		}, 2, "gateways of weight 2 are up, a quorum is 3; not voting: mill, silo"},
		{"this one does not vote, too", func() { b.ledger.word.Off = true }, 1, "gateways of weight 1 are up, a quorum is 3; not voting: barn-7, mill, silo"},
		{"all vote again", func() {
			b.peers.Members[0].Votes, b.ledger.word.Off = true, false
			b.src.Trouble = func() Trouble { return Trouble{} }
		}, 5, ""},
		{"nobody", func() {
			for i := range b.peers.Members {
				b.peers.Members[i].Up = false
			}
		}, 1, "gateways of weight 1 are up, a quorum is 3; not heard of: mill, silo, shed"},
		{"alone", func() { b.file.Gateways, *b.peers = b.file.Gateways[:1], fakePeers{} }, 1, ""},
		{"alone, and recovering", func() { b.ledger.word.Answers = false }, 0, "gateways of weight 0 are up, a quorum is 1; not voting: barn-7"},
	} {
		tt.change()
		st := b.alarmsNow(t)
		if st.Quorum.Up != tt.up || st.text("quorum") != tt.text {
			t.Errorf("%s: weight %d is up, alarm %q; want %d, %q", tt.name, st.Quorum.Up, st.text("quorum"), tt.up, tt.text)
		}
	}
}

func TestTroubleInTheFederationIsAnAlarm(t *testing.T) {
	b := newBox(t, Config{})
	if st := b.alarmsNow(t); len(st.Alarms) != 0 {
		t.Fatalf("alarms of a gateway alone: %+v", st.Alarms)
	}
	b.site()
	if text := b.alarmsNow(t).text("peer_shunned"); !strings.HasPrefix(text, "silo ") || !strings.Contains(text, "until 2121-") {
		t.Errorf("silo is shunned: %q", text)
	}
	for _, tt := range []struct {
		bus         fakeBus
		alarm, text string
	}{
		{fakeBus{Mode: bus.External}, "nats", "peers.url"},
		{fakeBus{Mode: bus.Embedded}, "nats", "embedded"},
		{fakeBus{Connected: true, Refused: 7, RefusedAt: time.Now(), RefusedWhy: "a wrong key"}, "handshake", "7 since the start: a wrong key. A newcomer? It is let in"},
		{fakeBus{Connected: true, Refused: 7, RefusedAt: time.Now().Add(-time.Hour)}, "handshake", ""},
	} {
		*b.bus = tt.bus
		if text := b.alarmsNow(t).text(tt.alarm); !strings.Contains(text, tt.text) || (text == "") != (tt.text == "") {
			t.Errorf("bus %+v: alarm %s is %q, want %q in it", tt.bus, tt.alarm, text, tt.text)
		}
	}
}

// What status says of the federation.
type statusNow struct {
	Quorum struct{ Up uint64 }
	Alarms []Alarm
}

func (b box) alarmsNow(t *testing.T) (s statusNow) {
	t.Helper()
	if err := json.Unmarshal(b.get("/api/hedgerow/v1/status").Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// text returns that of an alarm, or "".
func (s statusNow) text(name string) string {
	for _, a := range s.Alarms {
		if a.Name == name {
			return a.Text
		}
	}
	return ""
}

func TestMetricsTellOfPeersBusAndArchive(t *testing.T) {
	b := newBox(t, Config{})
	b.site()
	b.mill(2)
	b.archive.alarms = 2
	*b.bus = fakeBus{Connected: true, Routes: make([]bus.Route, 3), Clients: 2, Refused: 7}
	body := call(b, "GET", "/metrics", "").Body.String()
	for _, line := range []string{
		"hedgerow_peers 3", "hedgerow_peers_up 1", `hedgerow_peer_up{peer="mill"} 1`, `hedgerow_peer_up{peer="silo"} 0`,
		`hedgerow_peer_lag_blocks{peer="mill"} 3`, `hedgerow_peer_shunned{peer="silo"} 1`, `hedgerow_peer_score{peer="silo"} 0.5`,
		`hedgerow_peer_unanswered_total{peer="mill"} 4`, `hedgerow_peer_served_bytes_total{peer="mill"} 5`,
		`hedgerow_peer_blocks_total{peer="mill",result="new"} 1`, `hedgerow_peer_blocks_total{peer="mill",result="duplicate"} 2`,
		`hedgerow_peer_blocks_total{peer="mill",result="held"} 3`, `hedgerow_peer_blocks_total{peer="mill",result="invalid"} 10`,
		`hedgerow_peer_refused_total{peer="mill",reason="malformed"} 200`, `hedgerow_peer_refused_total{peer="mill",reason="replayed"} 3000`,
		`hedgerow_peer_refused_total{peer="mill",reason="forged"} 40000`, `hedgerow_peer_refused_total{peer="mill",reason="limited"} 500000`,
		`hedgerow_peer_refused_total{peer="mill",reason="shunned"} 6e+06`,
		"hedgerow_gossip_sent_frames_total 11", "hedgerow_gossip_unsent_blocks_total 12", "hedgerow_gossip_strange_frames_total 13", "hedgerow_peers_wanted_blocks 14",
		"hedgerow_gossip_unsent_signatures_total 15", "hedgerow_gossip_unread_signatures_total 16", "hedgerow_gossip_wrong_signatures_total 17", "hedgerow_votes_total 18", "hedgerow_votes_parked 19",
		"hedgerow_bus_connected 1", "hedgerow_bus_routes 3", "hedgerow_bus_clients 2", "hedgerow_bus_handshakes_refused_total 7",
		"hedgerow_archive_position 2", "hedgerow_archive_alarms 2", "hedgerow_archive_batches 21", "hedgerow_archive_readings 22",
		"hedgerow_archive_duplicate_readings_total 23", "hedgerow_archive_conflicting_readings_total 24",
		`hedgerow_archive_refused_blocks_total{reason="member"} 25`,
	} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("metrics lack %q", line)
		}
	}
	if t.Failed() {
		t.Logf("%s", body)
	}
}
