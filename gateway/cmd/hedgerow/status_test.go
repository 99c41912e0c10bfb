package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

// Peers and workers are printed when the gateway tells of them, and nothing
// that they are called steers the terminal.
func TestStatusShowsPeersWorkersAndAlarms(t *testing.T) {
	var s gatewayStatus
	if err := json.Unmarshal([]byte(`{"name":"barn-7","ready":false,"notReady":"disk full",
		"quorum":{"needed":3,"up":2,"weight":4,"members":4},
		"lastMilestone":{"index":912,"id":"0x00112233445566778899","timestamp":1790000000},"certified":910,
		"peers":[{"name":"silo","key":"0xaabbccddeeff00112233","up":true,"votes":true,"blocks":12,"lag":0,"milestone":911,"milestoneLag":1,"score":0.98,"refused":1},
			{"name":"mill\u001b[2J","key":"0x1","up":false,"blocks":1,"lag":20,"milestoneLag":-3,"score":0.25,"lastSeen":"2026-11-22T10:15:04Z"},
			{"name":"shed","key":"0x2","lastSeen":null},{"name":"dairy","key":"0x3","up":true,"votes":false}],
		"bus":{"mode":"embedded","connected":true,"routes":[{"name":"silo"}],"clients":2,"refused":3},
		"workers":[{"name":"box-2","alive":true,"triesPerSecond":2500000,"found":4,"wrong":1},{"name":"","key":"0x3333333333333333","alive":false}],
		"alarms":[{"name":"clock","text":"the clock is not set"}]}`), &s); err != nil {
		t.Fatal(err)
	}
	for _, colours := range []bool{false, true} {
		var b strings.Builder
		if err := printStatus(&b, &s, colours); err != nil {
			t.Fatal(err)
		}
		text := b.String()
		if strings.Contains(text, "\x1b[31m") != colours || strings.Contains(text, "\x1b[2J") {
			t.Errorf("with colours %v: %q", colours, text)
		}
		if colours {
			continue
		}
		at := 0
		for _, want := range []string{
			"barn-7 is not ready: disk full\n", "quorum         weight 2 of 4 up, 3 needed, 4 members\n", "s old, certified up to 910, 0x0011223344…\n",
			"nats           embedded, connected, 1 route, 2 clients, 3 refused\n",
			"peers          silo (0xaabbccddee…) up, 12 blocks, lag 0, 1 milestone behind, score 0.98, 1 refused\n",
			"\n                 mill\uFFFD[2J (0x1) down, last heard of 2026-11-22T10:15:04Z, 1 block, lag 20, 3 milestones ahead, score 0.25, 0 refused\n",
			"\n                 shed (0x2) down, not heard of since the start, 0 blocks, lag 0, score 0, 0 refused\n",
			"\n                 dairy (0x3) up, does not vote, 0 blocks, lag 0, score 0, 0 refused\n",
			"workers        box-2 alive, 2.5 million tries/s, 4 found, 1 wrong\n",
			"0x3333333333… silent, no speed measured yet, 0 found, 0 wrong\n", "alarm clock: the clock is not set\n",
		} {
			i := strings.Index(text[at:], want)
			if i < 0 {
				t.Fatalf("%q does not follow in\n%s", want, text)
			}
			at += i
		}
	}
}

func TestStatusShowsTheAgeOfTheLastMilestone(t *testing.T) {
	now := time.Unix(1790000000, 0)
	for _, tt := range []struct{ text, want string }{
		{`{}`, "milestone      none yet\n"},
		{`{"lastMilestone":{"index":7,"id":"0x12","timestamp":1789999910},"certified":7}`, "milestone      7, 1m30s old, certified up to 7, 0x12\n"},
		{`{"lastMilestone":{"index":7,"id":"0x12","timestamp":1790000002}}`, "milestone      7, 0s old, certified up to 0, 0x12\n"}, // another clock
	} {
		var s gatewayStatus
		if err := json.Unmarshal([]byte(tt.text), &s); err != nil {
			t.Fatal(err)
		}
		p := &page{}
		p.milestone(&s, now)
		if got := strings.TrimSpace(p.text.String()); got != strings.TrimSpace(tt.want) {
			t.Errorf("%s prints %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestStatusShowsTheServerOfAnExternalCluster(t *testing.T) {
	for text, want := range map[string]string{
		`{"bus":{"mode":"external","connected":true,"server":"10.0.0.9:4222","routes":[]}}`: "nats           external, connected to 10.0.0.9:4222, 0 refused\n",
		`{"bus":{"mode":"external","connected":false,"routes":[],"refused":2}}`:             "nats           external, not connected, 2 refused\n",
	} {
		var s gatewayStatus
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := printStatus(&b, &s, false); err != nil || !strings.Contains(b.String(), want) {
			t.Errorf("%s prints, %v,\n%s, want %q in it", text, err, b.String(), want)
		}
	}
}

func TestFindingsHaveALineEachAndAdviceBelow(t *testing.T) {
	fs := []gateway.Finding{
		{Check: "disk_speed", Verdict: gateway.VerdictOK, Found: "fast\x1b[2J"},
		{Check: "clock", Verdict: gateway.VerdictBad, Found: "1970", Advice: "set it"},
	}
	var plainText, coloured strings.Builder
	if err := printFindings(&plainText, fs, false); err != nil {
		t.Fatal(err)
	}
	want := "ok    disk speed    fast\uFFFD[2J\nbad   clock         1970\n                    set it\n\n1 ok, 0 warn, 1 bad\n"
	if plainText.String() != want {
		t.Errorf("got\n%s\nwant\n%s", plainText.String(), want)
	}
	if err := printFindings(&coloured, fs, true); err != nil || !strings.Contains(coloured.String(), "\x1b[31mbad  \x1b[0m clock") {
		t.Errorf("with colours: %q, %v", coloured.String(), err)
	}
}
