package gateway

import (
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

func TestAConflictEndsWhenSomebodySaysSo(t *testing.T) {
	cfg := usedBox(t, t.TempDir())
	d := &Doctor{Config: cfg}
	says := func(v Verdict, text string) {
		t.Helper()
		if f := d.VoteAgain(); len(f) != 1 || f[0].Verdict != v || !strings.Contains(f[0].Found, text) {
			t.Errorf("VoteAgain = %+v, want %s: %s", f, v, text)
		}
	}
	says(VerdictOK, "no milestone conflict")
	s, err := store.Open(ledgerDir(cfg), store.Options{Reserve: 1})
	must(t, err)
	must(t, s.Commit(ledger.Change{Conflict: new(uint32(7))}))
	must(t, s.Close())
	g := start(t, cfg)
	if at := g.stages.ledger.Trouble().Conflict; at != 7 {
		t.Errorf("the conflict is at %d, want 7", at)
	}
	says(VerdictBad, "in use")
	must(t, g.stop())
	says(VerdictOK, "at milestone 7 is over")
	g = start(t, cfg)
	if at := g.stages.ledger.Trouble().Conflict; at != 0 {
		t.Errorf("the conflict is at %d, want none", at)
	}
	must(t, g.stop())
}
