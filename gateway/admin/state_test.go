package admin

import (
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Readings of this gateway and of others go on from attached with what the
// gateways agree on, wherever they are shown.
func TestStatesGoOnFromAttached(t *testing.T) {
	for _, tt := range []struct {
		progress  ledger.Progress
		state     string
		milestone any // nil: absent
	}{
		{ledger.Progress{}, "attached", nil},
		{ledger.Progress{Approved: true}, "approved", nil},
		{ledger.Progress{Approved: true, Milestone: 912}, "confirmed", 912.0},
		{ledger.Progress{Approved: true, Milestone: 912, Certified: true}, "certified", 912.0},
	} {
		b := newBox(t, Config{})
		b.fill(3)
		b.mill(3)
		b.stage.through = 3
		b.ledger.progress = map[stardust.BlockID]ledger.Progress{fakeBlock: tt.progress}
		for _, path := range []string{"readings", "readings?gateway=mill", "readings?gateway=*&state=" + tt.state, "latest?gateway=*"} {
			got := items(t, b.get("/api/hedgerow/v1/"+path)).Items
			if len(got) == 0 {
				t.Errorf("%s with %+v has no items", path, tt.progress)
			}
			for _, item := range got {
				if item["state"] != tt.state || item["milestone"] != tt.milestone || item["blockId"] != fakeBlock.String() {
					t.Errorf("%s with %+v has %v, want %s, milestone %v", path, tt.progress, item, tt.state, tt.milestone)
				}
			}
		}
		for _, other := range states() {
			want := 0
			if other == tt.state {
				want = 6
			}
			if got := items(t, b.get("/api/hedgerow/v1/readings?gateway=*&state="+other)).Items; len(got) != want {
				t.Errorf("with %+v, %d readings are %s, want %d", tt.progress, len(got), other, want)
			}
		}
		body, _, err := fetch(t, b, "gateway=*&format=csv")
		if err != nil || strings.Count(body, ","+tt.state+",0x") != 6 || strings.Count(body, ",912\r\n") != map[any]int{912.0: 6}[tt.milestone] {
			t.Errorf("CSV with %+v: %v\n%s", tt.progress, err, body)
		}
		for _, path := range []string{"readings/barn-7/1", "readings/mill/1"} {
			if w := b.get("/api/hedgerow/v1/" + path); !strings.Contains(w.Body.String(), `"state":"`+tt.state+`","blockId":"0x`) {
				t.Errorf("%s with %+v is %s", path, tt.progress, w.Body)
			}
		}
	}
}

func TestABlockIsLookedUpOnceAPage(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(450)
	b.stage.through = 450
	b.ledger.progress = map[stardust.BlockID]ledger.Progress{fakeBlock: {Approved: true}}
	for path, want := range map[string]int{"readings?limit=200": 1, "readings?limit=450": 3, "latest": 1, "readings?limit=10&state=stored": 3} {
		b.ledger.lookups = 0
		if w := b.get("/api/hedgerow/v1/" + path); w.Code != 200 || b.ledger.lookups != want {
			t.Errorf("%s = %d after %d look-ups, want %d", path, w.Code, b.ledger.lookups, want)
		}
	}
}

func TestABlockThatIsNotKeptIsAttached(t *testing.T) {
	b := newBox(t, Config{})
	b.fill(1)
	b.stage.through = 1
	if got := items(t, b.get("/api/hedgerow/v1/readings")).Items[0]; got["state"] != "attached" || got["milestone"] != nil {
		t.Errorf("a reading in a block that is not kept is %v, want attached", got)
	}
	b.ledger.broken = errBroken
	if w := b.get("/api/hedgerow/v1/readings"); w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("a broken store = %d %s, want 500 without details", w.Code, w.Body)
	}
}
