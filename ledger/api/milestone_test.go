package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// attach puts blocks with these data above the genesis and returns their ids.
func (l *fakeLedger) attach(t testing.TB, data ...string) []stardust.BlockID {
	t.Helper()
	var ids []stardust.BlockID
	for _, d := range data {
		raw := block(t, l.minScore, d)
		l.mu.Lock()
		ids = append(ids, l.put(raw))
		l.mu.Unlock()
	}
	return ids
}

// entries are blocks without transaction.
func entries(ids ...stardust.BlockID) []consensus.Entry {
	var all []consensus.Entry
	for _, id := range ids {
		all = append(all, consensus.Entry{ID: id})
	}
	return all
}

func TestMetadataTellsMilestonePlaceAndInclusion(t *testing.T) {
	l := newFakeLedger(0)
	s := newTest(t, Config{}, l, nil)
	ids := l.attach(t, "a", "b", "c", "d")
	l.Confirm(entries(l.attach(t, "before")...)...)
	l.Confirm(
		consensus.Entry{ID: ids[0]},
		consensus.Entry{ID: ids[1], Inclusion: consensus.Included},
		consensus.Entry{ID: ids[2], Inclusion: consensus.Conflicting},
	)
	for i, want := range []string{
		`"referencedByMilestoneIndex":2,"whiteFlagIndex":0,"ledgerInclusionState":"noTransaction"}`,
		`"referencedByMilestoneIndex":2,"whiteFlagIndex":1,"ledgerInclusionState":"included"}`,
		`"referencedByMilestoneIndex":2,"whiteFlagIndex":2,"ledgerInclusionState":"conflicting","conflictReason":255}`,
		`"shouldPromote":false,"shouldReattach":false}`,
	} {
		want = fmt.Sprintf(`{"blockId":"%v","parents":["%v"],"isSolid":true,`, ids[i], stardust.GenesisID) + want
		if w := call(s, "GET", "/api/core/v2/blocks/"+ids[i].String()+"/metadata", ""); w.Code != 200 || w.Body.String() != want {
			t.Errorf("metadata of block %d = %d %s, want %s", i, w.Code, w.Body, want)
		}
	}
}

func TestInfoNamesTheLastMilestoneBeforeItIsCertified(t *testing.T) {
	l := newFakeLedger(0)
	s := newTest(t, Config{}, l, nil)
	l.Confirm(entries(l.attach(t, "a")...)...)
	m := l.Confirm(entries(l.attach(t, "b")...)...)
	var got struct{ Status infoStatus }
	if err := json.Unmarshal(call(s, "GET", "/api/core/v2/info", "").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := milestone{2, m.Timestamp, m.ID}
	if got.Status.LatestMilestone != want || got.Status.ConfirmedMilestone != want {
		t.Errorf("info has %+v, want twice %+v", got.Status, want)
	}
}

func TestMilestoneComesByIndexAndIdAndAsAcceptAsks(t *testing.T) {
	l := newFakeLedger(0)
	l.Chain = NewChain(4, 0)
	s := newTest(t, Config{}, l, nil)
	m := l.Confirm(entries(l.attach(t, "a", "b")...)...)
	l.Certify()
	for _, path := range []string{"by-index/1", stardust.MilestoneID(m.ID).String(), "0x" + strings.ToUpper(fmt.Sprintf("%x", m.ID))} {
		w := call(s, "GET", "/api/core/v2/milestones/"+path, "")
		var fromJSON stardust.Milestone
		if err := json.Unmarshal(w.Body.Bytes(), &fromJSON); err != nil {
			t.Fatalf("%s = %d %s: %v", path, w.Code, w.Body, err)
		}
		raw := call(s, "GET", "/api/core/v2/milestones/"+path, "", "Accept: "+mediaBytes).Body.Bytes()
		fromBytes, err := stardust.ParseMilestone(raw)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := fromJSON.AppendBinary(nil); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%s: JSON gives %x, %v; the bytes are %x", path, again, err, raw)
		}
		_, signatures, err := consensus.ParsePayload(fromBytes)
		if err == nil {
			err = consensus.VerifyCertificate(l.File, m.ID, signatures)
		}
		if err != nil || fromBytes.ID() != m.ID {
			t.Errorf("%s: milestone %v, %v; want %x with the signatures of a quorum", path, fromBytes.ID(), err, m.ID)
		}
	}
}

func TestMilestonesThatCannotBeShownAreRefusedByName(t *testing.T) {
	l := newFakeLedger(0)
	s := newTest(t, Config{}, l, nil)
	l.Confirm(entries(l.attach(t, "a")...)...)
	l.Certify()
	l.milestones[0].Signatures = nil // as after they were dropped
	uncertified := l.Confirm(entries(l.attach(t, "b")...)...)
	unknown := "0x" + strings.Repeat("ab", 32)
	for _, tt := range []struct {
		path, text string
		status     int
	}{
		{"by-index/1", "signatures of milestone 1 not kept here", 404},
		{"by-index/2", "milestone 2 is not signed by a quorum", 503},
		{stardust.MilestoneID(uncertified.ID).String(), "milestone 2 is not signed by a quorum", 503},
		{"by-index/0", "milestone 0 not known here", 404},
		{"by-index/3", "milestone 3 not known here", 404},
		{unknown, "milestone " + unknown + " not known here", 404},
		{"by-index/-1", "milestone index in the path", 400},
		{"by-index/4294967296", "milestone index in the path", 400},
		{"0x12", "milestone id in the path: milestone id of 4 characters", 400},
		{"1", "milestone id in the path", 400},
	} {
		w := call(s, "GET", "/api/core/v2/milestones/"+tt.path, "")
		if text := errorText(t, w); w.Code != tt.status || !strings.Contains(text, tt.text) {
			t.Errorf("GET %s = %d %q, want %d with %q", tt.path, w.Code, text, tt.status, tt.text)
		}
		if (w.Code == 503) != (w.Header().Get("Retry-After") != "") {
			t.Errorf("GET %s = %d with Retry-After %q", tt.path, w.Code, w.Header().Get("Retry-After"))
		}
	}
}
