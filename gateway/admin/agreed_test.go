package admin

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/ledger"
)

// agree gives the box a milestone 912 of 12 s ago, of which 910 are certified,
// and readings in every state.
func (b box) agree(t *testing.T) {
	t.Helper()
	b.stage.stats.Backlog = batching.Backlog{Stored: 1, Batched: 2}
	f := &followed{progress: b.Handler.progress, tangle: &b.ledger.fakeTangle}
	f.attach(t, 1, 3, block(1))
	f.attach(t, 4, 7, block(2))
	f.attach(t, 8, 12, block(3))
	time.Sleep(300 * time.Millisecond)
	f.reach(block(2), ledger.Progress{Approved: true})
	f.reach(block(3), ledger.Progress{Approved: true, Milestone: 912})
	f.count(17, 15)
	b.ledger.change(func() {
		b.ledger.agreed = ledger.Agreed{
			Epoch: 3, Milestone: 912, ID: [32]byte{0xab}, Timestamp: uint32(time.Now().Unix() - 12), Certified: 910,
		}
		b.ledger.word.Highest = []uint32{40, 42, 0, 41}
	})
	b.src.Milestones = func() map[string]uint32 { return map[string]uint32{"mill": 905, "silo": 914} }
}

func TestStatusTellsWhatIsAgreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, Config{})
		b.site()
		b.agree(t)
		var got map[string]json.RawMessage
		if err := json.Unmarshal(b.get("/api/hedgerow/v1/status").Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		for field, want := range map[string]string{
			"epoch": `3`, "certified": `910`, "quorum": `{"needed":3,"up":3,"weight":5,"members":4}`,
			"lastMilestone": `{"index":912,"id":"0xab` + strings.Repeat("00", 31) + `","timestamp":946684788}`,
			"backlog":       `{"stored":1,"batched":2,"attached":3,"approved":4,"confirmed":5}`,
		} {
			if string(got[field]) != want {
				t.Errorf("status.%s = %s, want %s", field, got[field], want)
			}
		}
		for _, path := range []string{"status", "peers"} {
			text := b.get("/api/hedgerow/v1/" + path).Body.String()
			for _, want := range []string{`"milestone":905,"milestoneLag":7`, `"milestone":914,"milestoneLag":-2`, `"milestone":null,"milestoneLag":null`} {
				if !strings.Contains(text, want) {
					t.Errorf("%s lacks %s", path, want)
				}
			}
		}
	})
}

func TestMetricsTellWhatIsAgreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, Config{})
		if body := call(b, "GET", "/metrics", "").Body.String(); strings.Contains(body, "milestone_age") || !strings.Contains(body, "\nhedgerow_milestone_index 0\n") {
			t.Errorf("before the first milestone:\n%s", body)
		}
		b.site()
		b.agree(t)
		body := call(b, "GET", "/metrics", "").Body.String()
		for _, line := range []string{
			"hedgerow_milestone_index 912", "hedgerow_round 42", "hedgerow_milestone_certified_index 910", "hedgerow_milestone_age_seconds 12.3",
			"hedgerow_quorum_needed 3", "hedgerow_quorum_up 3", "hedgerow_blocks_approved_total 17", "hedgerow_blocks_confirmed_total 15",
			`hedgerow_backlog_readings{state="stored"} 1`, `hedgerow_backlog_readings{state="batched"} 2`,
			`hedgerow_backlog_readings{state="attached"} 3`, `hedgerow_backlog_readings{state="approved"} 4`, `hedgerow_backlog_readings{state="confirmed"} 5`,
			`hedgerow_peer_milestone_lag{peer="mill"} 7`, `hedgerow_peer_milestone_lag{peer="silo"} -2`,
			`hedgerow_confirm_seconds_bucket{le="0.25"} 0`, `hedgerow_confirm_seconds_bucket{le="0.35"} 1`, `hedgerow_confirm_seconds_count 1`,
			`hedgerow_certify_seconds_count 0`,
		} {
			if !strings.Contains(body, "\n"+line+"\n") {
				t.Errorf("metrics lack %s", line)
			}
		}
		if strings.Contains(body, `hedgerow_peer_milestone_lag{peer="shed"}`) {
			t.Error("the milestone of a gateway that told none is known")
		}
	})
}

func TestTroubleWithConsensusIsAnAlarm(t *testing.T) {
	b := newBox(t, Config{})
	if st := b.alarmsNow(t); len(st.Alarms) != 0 {
		t.Fatalf("alarms without trouble: %+v", st.Alarms)
	}
	b.src.Trouble = func() Trouble {
		return Trouble{Equivocators: []string{"mill", "silo"}, Conflict: 912}
	}
	st := b.alarmsNow(t)
	if text := st.text("equivocation"); !strings.HasPrefix(text, "mill, silo signed two votes") {
		t.Errorf("equivocation: %q", text)
	}
	if text := st.text("milestone_conflict"); !strings.Contains(text, "milestone 912 ") {
		t.Errorf("conflict: %q", text)
	}
}
