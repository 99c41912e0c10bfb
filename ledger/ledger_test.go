package ledger_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func TestTipsAreTheBlocksWithoutChildren(t *testing.T) {
	for _, tt := range []struct{ dag, tips string }{
		{"g -> a", "a"},
		{"g -> a b", "a b"},
		{"g -> a b; a b -> c", "c"},
		{"g -> a b; a -> c", "b c"},
		{"g -> a; a g -> b; g -> c", "b c"},
		{"g -> a b c; a b -> d; d c -> e; g -> f", "e f"},
	} {
		s := newMemory()
		d := draw(t, tt.dag)
		l := start(t, ledger.Config{}, s)
		d.attach(l)
		if tips, _ := l.AllTips(10); d.named(tips) != tt.tips {
			t.Errorf("%s: tips are %s, want %s", tt.dag, d.named(tips), tt.tips)
		}
	}
}

func TestBlocksAreReadBack(t *testing.T) {
	d := draw(t, "g -> a b; a b -> c")
	l := start(t, ledger.Config{}, open(t, t.TempDir()))
	d.attach(l)
	for name, id := range d.ids {
		raw, err := l.Block(id)
		if name == "g" {
			if !errors.Is(err, ledger.ErrNotFound) {
				t.Errorf("Block(genesis) = %x, %v", raw, err)
			}
			continue
		}
		if string(raw) != string(d.raws[name]) || err != nil {
			t.Errorf("Block(%s) = %x, %v", name, raw, err)
		}
		m, err := l.Metadata(id)
		if d.named(m.Parents) != d.named(d.blocks[name].Parents) || !m.Solid || m.Attached.IsZero() || err != nil {
			t.Errorf("Metadata(%s) = %+v, %v", name, m, err)
		}
		if ids, next, err := l.Tagged([]byte(name), 10, ""); d.named(ids) != name || next != "" || err != nil {
			t.Errorf("Tagged(%s) = %s, %q, %v", name, d.named(ids), next, err)
		}
	}
	if m, err := l.Metadata(stardust.GenesisID); len(m.Parents) > 0 || !m.Solid || err != nil {
		t.Errorf("Metadata(genesis) = %+v, %v", m, err)
	}
	for name, want := range map[string]string{"g": "a b", "a": "c", "c": ""} {
		if ids, err := l.Children(d.ids[name]); d.named(ids) != want || err != nil {
			t.Errorf("Children(%s) = %s, %v; want %s", name, d.named(ids), err, want)
		}
	}
	if s := l.Stats(); s.Blocks != 3 || s.Tips != 1 || s.LastAttached.IsZero() {
		t.Errorf("Stats = %+v", s)
	}
	unknown := stardust.IDOf(nil)
	_, errBlock := l.Block(unknown)
	_, errMeta := l.Metadata(unknown)
	_, errChildren := l.Children(unknown)
	for what, err := range map[string]error{"Block": errBlock, "Metadata": errMeta, "Children": errChildren} {
		if !errors.Is(err, ledger.ErrNotFound) || !strings.Contains(err.Error(), unknown.String()) {
			t.Errorf("%s of an unknown block: %v", what, err)
		}
	}
}

func TestTaggedGoesOnWhereItsCursorEnds(t *testing.T) {
	l := start(t, ledger.Config{}, newMemory())
	var want, got []stardust.BlockID
	for i := range 25 {
		id, err := l.Attach(t.Context(), newBlock("meter", string(rune('a'+i)), stardust.GenesisID), nil)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, id)
	}
	pages := 0
	for cursor := ""; pages == 0 || cursor != ""; pages++ {
		ids, next, err := l.Tagged([]byte("meter"), 5, cursor)
		if err != nil {
			t.Fatal(err)
		}
		got, cursor = append(got, ids...), next
	}
	if pages != 5 || len(got) != len(want) {
		t.Fatalf("%d blocks on %d pages, want %d on 5", len(got), pages, len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("block %d is %v, want %v", i, got[i], want[i])
		}
	}
	if _, _, err := l.Tagged([]byte("meter"), 5, "not ours!"); !errors.Is(err, ledger.ErrCursor) {
		t.Errorf("foreign cursor: %v", err)
	}
}

func TestAttachNamesTheUnknownParent(t *testing.T) {
	d := draw(t, "g -> a; a -> b; g b -> c")
	l := start(t, ledger.Config{}, newMemory())
	_, err := l.Attach(t.Context(), d.blocks["c"], nil)
	if !errors.Is(err, ledger.ErrUnknownParent) || !strings.Contains(err.Error(), d.ids["b"].String()) {
		t.Errorf("Attach = %v, want ErrUnknownParent with %v", err, d.ids["b"])
	}
	if n := l.Stats().Held; n != 0 {
		t.Errorf("%d blocks held, attached ones must not be", n)
	}
}

func TestAttachingAgainIsHarmless(t *testing.T) {
	d := draw(t, "g -> a; a -> b")
	l := start(t, ledger.Config{}, open(t, t.TempDir()))
	d.attach(l)
	for _, runs := range [][][2]uint64{nil, {{1, 3}, {5, 5}}, {{1, 3}, {5, 5}}, {{1, 3}, {7, 9}}} {
		if id, err := l.Attach(t.Context(), d.blocks["a"], runs); id != d.ids["a"] || err != nil {
			t.Fatalf("Attach with %v = %v, %v", runs, id, err)
		}
	}
	if got := allMarks(t, l, d); got != "1-3 a, 5-5 a, 7-9 a" {
		t.Errorf("marks are %s", got)
	}
	if err := receive(t, l, d.raws["b"]); err != nil {
		t.Error(err)
	}
	if s := l.Stats(); s.Blocks != 2 || s.Tips != 1 {
		t.Errorf("Stats = %+v", s)
	}
}

func allMarks(t *testing.T, l *ledger.Ledger, d *dag) string {
	t.Helper()
	var parts []string
	if err := l.MarksFrom(0, func(run [2]uint64, id stardust.BlockID) bool {
		parts = append(parts, strings.Join([]string{runText(run), d.names[id]}, " "))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(parts, ", ")
}

func runText(run [2]uint64) string {
	b, _ := json.Marshal(run)
	return strings.ReplaceAll(strings.Trim(string(b), "[]"), ",", "-")
}

func TestNoReadingStandsInTwoBlocks(t *testing.T) {
	d := draw(t, "g -> a b")
	l := start(t, ledger.Config{}, open(t, t.TempDir()))
	if _, err := l.Attach(t.Context(), d.blocks["a"], [][2]uint64{{10, 20}, {30, 40}}); err != nil {
		t.Fatal(err)
	}
	for _, runs := range [][][2]uint64{{{20, 25}}, {{10, 20}}, {{1, 10}}, {{15, 16}}, {{1, 100}}, {{21, 29}, {40, 50}}} {
		_, err := l.Attach(t.Context(), d.blocks["b"], runs)
		if !errors.Is(err, ledger.ErrMarked) || !strings.Contains(err.Error(), d.ids["a"].String()) {
			t.Errorf("Attach with %v = %v, want ErrMarked with %v", runs, err, d.ids["a"])
		}
	}
	if _, err := l.Attach(t.Context(), d.blocks["a"], [][2]uint64{{10, 19}}); !errors.Is(err, ledger.ErrMarked) {
		t.Errorf("other run of the same block: %v, want ErrMarked", err)
	}
	if n := l.Stats().Blocks; n != 1 {
		t.Errorf("%d blocks stored, want 1", n)
	}
	if _, err := l.Attach(t.Context(), d.blocks["b"], [][2]uint64{{21, 29}, {41, 50}}); err != nil {
		t.Error(err)
	}
	for seq, want := range map[uint64]string{9: "", 10: "a", 20: "a", 21: "b", 29: "b", 30: "a", 50: "b", 51: ""} {
		id, ok, err := l.Marked(seq)
		if err != nil || ok != (want != "") || ok && d.names[id] != want {
			t.Errorf("Marked(%d) = %s, %v, %v; want %q", seq, d.names[id], ok, err, want)
		}
	}
}

func TestRunsMustAscendAndNotTouch(t *testing.T) {
	d := draw(t, "g -> a")
	l := start(t, ledger.Config{}, newMemory())
	many := make([][2]uint64, ledger.MaxRuns+1)
	for i := range many {
		many[i] = [2]uint64{uint64(2 * i), uint64(2 * i)}
	}
	for _, runs := range [][][2]uint64{{{2, 1}}, {{1, 2}, {3, 4}}, {{1, 2}, {2, 4}}, {{5, 6}, {1, 2}}, {{0, 1<<64 - 1}, {0, 0}}, many} {
		if _, err := l.Attach(t.Context(), d.blocks["a"], runs); !errors.Is(err, ledger.ErrInvalid) {
			t.Errorf("%d runs, first %v: %v, want ErrInvalid", len(runs), runs[0], err)
		}
	}
	if n := l.Stats().Blocks; n != 0 {
		t.Errorf("%d blocks stored", n)
	}
}

// Every block of the vectors must be refused by both ways in; the control must
// get past validation.
func TestInvalidBlocksAreRefused(t *testing.T) {
	text, err := os.ReadFile("stardust/testdata/invalid_blocks.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Blocks []struct {
			Name, Serialized string
			MustReject       bool
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil || len(vectors.Blocks) != 22 {
		t.Fatalf("%d vectors, %v", len(vectors.Blocks), err)
	}
	l := start(t, ledger.Config{Network: network.NewOfOne("test", "gw", make([]byte, 32))}, newMemory())
	for _, v := range vectors.Blocks {
		raw, err := hex.DecodeString(strings.TrimPrefix(v.Serialized, "0x"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := stardust.ParseBlock(raw)
		if err == nil {
			_, err = l.Attach(t.Context(), b, nil)
		}
		if v.MustReject == errors.Is(err, ledger.ErrUnknownParent) || err == nil {
			t.Errorf("%s: parse and attach: %v", v.Name, err)
		}
		err = receive(t, l, raw)
		if v.MustReject != (errors.Is(err, ledger.ErrInvalid) || errors.Is(err, ledger.ErrScore)) {
			t.Errorf("%s: receive: %v", v.Name, err)
		}
	}
	if s := l.Stats(); s.Blocks != 0 || s.Held != 1 || s.Refused == 0 {
		t.Errorf("Stats = %+v, want only the control held", s)
	}
}

func TestLowScoreSaysWhatIsMissing(t *testing.T) {
	l := start(t, ledger.Config{Network: network.NewOfOne("test", "gw", make([]byte, 32))}, newMemory())
	_, err := l.Attach(t.Context(), newBlock("tag", "data", stardust.GenesisID), nil)
	const want = "pow score too low: 62 bytes at score 100 need 8 trailing zero trits, the nonce gives "
	if !errors.Is(err, ledger.ErrScore) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Attach = %v, want %s…", err, want)
	}
}

func TestFullQueueIsBusyAndACancelledWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := draw(t, "g -> a b")
		l, err := ledger.New(ledger.Config{Network: testNetwork(), Queue: 1}, newMemory())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() {
			_, err := l.Attach(ctx, d.blocks["a"], nil) // waits: nobody runs the ledger
			first <- err
		}()
		synctest.Wait()
		if _, err := l.Attach(t.Context(), d.blocks["b"], nil); !errors.Is(err, ledger.ErrBusy) {
			t.Errorf("second block: %v, want ErrBusy", err)
		}
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("first block: %v, want context.Canceled", err)
		}
	})
}

func TestStoppedLedgerTakesNothingButCanBeRead(t *testing.T) {
	d := draw(t, "g -> a b")
	l, err := ledger.New(ledger.Config{Network: testNetwork()}, newMemory())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	d.attach(l, "a")
	if err := l.Ready(); err != nil {
		t.Errorf("Ready = %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
	if _, err := l.Attach(t.Context(), d.blocks["b"], nil); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("Attach = %v, want ErrClosed", err)
	}
	if err := l.Ready(); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("Ready = %v, want ErrClosed", err)
	}
	if err := receive(t, l, d.raws["b"]); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("Receive = %v, want ErrClosed", err)
	}
	if raw, err := l.Block(d.ids["a"]); string(raw) != string(d.raws["a"]) || err != nil {
		t.Errorf("Block = %x, %v", raw, err)
	}
}

func TestFailedCommitEndsRun(t *testing.T) {
	s := newMemory()
	broken := errors.New("fsync: input/output error")
	s.refuse = func() error { return broken }
	l, err := ledger.New(ledger.Config{Network: testNetwork()}, s)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- l.Run(t.Context()) }()
	d := draw(t, "g -> a")
	if _, err := l.Attach(t.Context(), d.blocks["a"], nil); !errors.Is(err, ledger.ErrClosed) || !errors.Is(err, broken) {
		t.Errorf("Attach = %v, want ErrClosed because of the store", err)
	}
	if err := <-done; !errors.Is(err, broken) {
		t.Errorf("Run = %v, want the store's error", err)
	}
	if err := receive(t, l, d.raws["a"]); !errors.Is(err, broken) {
		t.Errorf("Receive = %v, want the store's error", err)
	}
}

func TestBusyStoreLosesNothingAndRecovers(t *testing.T) {
	s := newMemory()
	full := false
	s.refuse = func() error {
		if full {
			return ledger.ErrBusy
		}
		return nil
	}
	d := draw(t, "g -> a b; a b -> c; c -> d")
	l := start(t, ledger.Config{}, s)
	for _, name := range []string{"d", "c", "b"} {
		if err := receive(t, l, d.raws[name]); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	full = true
	s.mu.Unlock()
	if err := receive(t, l, d.raws["a"]); !errors.Is(err, ledger.ErrBusy) {
		t.Errorf("Receive = %v, want ErrBusy", err)
	}
	if err := l.Ready(); !errors.Is(err, ledger.ErrBusy) {
		t.Errorf("Ready = %v, want ErrBusy", err)
	}
	if tips := d.named(l.Tips()); tips != "b g" {
		t.Errorf("tips are %s, want b g", tips)
	}
	if n := l.Stats().Held; n != 2 {
		t.Errorf("%d blocks held, want c and d", n)
	}
	s.mu.Lock()
	full = false
	s.mu.Unlock()
	if err := receive(t, l, d.raws["a"]); err != nil {
		t.Error(err)
	}
	if st := l.Stats(); st.Blocks != 4 || st.Held != 0 || d.named(l.Tips()) != "c d" {
		t.Errorf("Stats = %+v, tips %s", st, d.named(l.Tips()))
	}
}
