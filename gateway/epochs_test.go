package gateway

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// chain returns the files of some epochs: change makes each of the one before,
// and all gateways sign it.
func (f *federation) chain(changes ...func(*network.File)) []*network.File {
	f.t.Helper()
	all := []*network.File{f.file}
	for _, change := range changes {
		next := all[len(all)-1].Next()
		change(next)
		for _, key := range f.keys {
			next.Sign(key)
		}
		if err := next.Follows(all[len(all)-1]); err != nil {
			f.t.Fatal(err)
		}
		all = append(all, next)
	}
	return all
}

func weigh(name string, weight uint32) func(*network.File) {
	return func(f *network.File) { _ = f.SetWeight(name, weight) }
}

func leave(name string) func(*network.File) {
	return func(f *network.File) { _ = f.Remove(name) }
}

func (f *federation) join(name string) func(*network.File) {
	if f.keys[name] == nil {
		_, f.keys[name], _ = ed25519.GenerateKey(nil)
	}
	return func(n *network.File) {
		n.Add(network.Gateway{Name: name, PublicKey: network.PublicKey(f.id(name)), Weight: 1})
	}
}

// openedEpochs are those of a gateway that was given a file, with a ledger that
// has stored some.
func (f *federation) openedEpochs(name string, given *network.File, stored ...*network.File) *epochs {
	f.t.Helper()
	return f.reopenedEpochs(name, given, stored, false)
}

// reopenedEpochs are those of a gateway that may not know what it voted last.
func (f *federation) reopenedEpochs(name string, given *network.File, stored []*network.File, lost bool) *epochs {
	f.t.Helper()
	cfg := Config{Name: name, DataDir: Path(f.t.TempDir())}
	must(f.t, given.Save(cfg.networkPath()))
	return newEpochs(&cfg, &home{key: f.keys[name], network: given}, stored, lost, testLog(f.t))
}

func TestAStartWorksWithTheRightMembers(t *testing.T) {
	f := newFederation(t, "north", "south", "west")
	all := f.chain(weigh("north", 2), f.join("east"), weigh("south", 3))
	void := f.file.Next()
	must(t, void.SetWeight("west", 5))
	for _, tt := range []struct {
		name    string
		gateway string
		given   *network.File
		stored  []*network.File
		current uint32 // epoch
		offered bool
	}{
		{"the first start", "north", all[0], nil, 0, false},
		{"as it was left", "north", all[1], all[:2], 1, false},
		{"it ended before the file was saved", "north", all[0], all[:3], 2, false},
		{"the file that was joined did not win", "north", void, all[:2], 1, false},
		{"the next epoch was joined", "north", all[2], all[:2], 1, true},
		{"epochs were missed", "north", all[3], all[:2], 3, true},
		{"a newcomer", "east", all[2], all[:1], 2, true},
		{"a newcomer whose ledger has not begun", "east", all[2], nil, 2, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := f.openedEpochs(tt.gateway, tt.given, tt.stored...)
			if got := e.current().Epoch; got != tt.current || (e.proposed() != nil) != tt.offered {
				t.Errorf("works with epoch %d and offers %v, want %d and %v", got, e.proposed(), tt.current, tt.offered)
			}
			must(t, e.save(e.current()))
			if tt.offered {
				if saved, err := network.Load(e.path); err != nil || saved.Hash() != tt.given.Hash() {
					t.Errorf("the file that was joined is %+v, %v", saved, err)
				}
				return
			}
			if saved, err := network.Load(e.path); err != nil || saved.Hash() != e.current().Hash() {
				t.Errorf("the file is %+v, %v", saved, err)
			}
			for _, of := range tt.stored[:max(0, len(tt.stored)-1)] {
				kept, err := network.Load(epochPath(e.dir, of.Epoch))
				if tt.given.Hash() != e.current().Hash() && (err != nil || kept.Hash() != of.Hash()) {
					t.Errorf("epoch %d is not kept: %v", of.Epoch, err)
				}
			}
		})
	}
}

// Alone in the epoch that its ledger knows, it asks those of the next one what it
// voted last, and else attaches the file that adds them.
func TestWhoHasForgottenItsVotesWorksWithThoseThatKnowThem(t *testing.T) {
	f := newFederation(t, "north")
	all := f.chain(f.join("south"))
	for lost, want := range map[bool]uint32{false: 0, true: 1} {
		if got := f.reopenedEpochs("north", all[1], all[:1], lost).current().Epoch; got != want {
			t.Errorf("forgotten %v: works with epoch %d, want %d", lost, got, want)
		}
	}
}

// Members that leave stay connected until they can know it, and are named when
// they are refused.
func TestConnectionsOfMembersThatLeaveEnd(t *testing.T) {
	f := newFederation(t, "north", "south", "west")
	all := f.chain(leave("west"), f.join("east"))
	e := f.openedEpochs("north", all[2], all[:2]...) // east is to come
	names := func() (names []string) {
		for _, g := range e.pinned() {
			names = append(names, g.Name)
		}
		return names
	}
	if got := names(); !slices.Equal(got, []string{"north", "south", "east"}) {
		t.Errorf("pinned are %v", got)
	}
	e = f.openedEpochs("north", all[0], all[:1]...)
	synctest.Test(t, func(t *testing.T) {
		e.adopt(all[1])
		if got := names(); !slices.Equal(got, []string{"north", "south", "west"}) {
			t.Errorf("pinned are %v at once", got)
		}
		time.Sleep(leavingFor)
		if got := names(); !slices.Equal(got, []string{"north", "south"}) {
			t.Errorf("pinned are %v later", got)
		}
	})
	if got := e.former(f.id("west")); got != "west" {
		t.Errorf("west was %q", got)
	}
	if got := e.former(f.id("east")); got != "" {
		t.Errorf("a stranger was %q", got)
	}
	if a := e.standing(); len(a) != 0 {
		t.Errorf("north, which stays, has %v", a)
	}
}

// post hands in a file and returns the answer.
func (r *runner) post(path string, body []byte) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+r.address("http")+path, bytes.NewReader(body))
	must(r.t, err)
	req.Header.Set("Authorization", "Bearer "+r.token)
	resp, err := http.DefaultClient.Do(req)
	must(r.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(r.t, err)
	return resp.StatusCode, string(b)
}

func fileText(t *testing.T, f *network.File) []byte {
	t.Helper()
	text, err := json.Marshal(f)
	must(t, err)
	return text
}

// crowded is a file that no block takes.
func crowded(f *network.File) {
	var names []string
	for i := range 60 {
		g := network.Gateway{Name: fmt.Sprintf("gateway-with-a-long-name-%d", i), Weight: 1}
		g.PublicKey[0], g.PublicKey[1] = 1, byte(i)
		f.Add(g)
		names = append(names, g.Name)
	}
	for i := range 20 {
		f.Operators = append(f.Operators, network.Operator{PublicKey: network.PublicKey{2, byte(i)}, Gateways: names})
	}
}

func TestARunningGatewayTakesTheNextEpochAndNothingElse(t *testing.T) {
	cfg := testSandbox(t, t.TempDir())
	r := start(t, cfg)
	genesis, key := r.epochs.current(), r.home.key
	next := func(after *network.File, change func(*network.File)) *network.File {
		f := after.Next()
		change(f)
		f.Sign(key)
		return f
	}
	good := next(genesis, weigh("sandbox", 2))
	forged := next(genesis, weigh("sandbox", 3))
	forged.Signatures[0].Signature[7] ^= 1
	unsigned := genesis.Next()
	elsewhere := network.NewOfOne("elsewhere", "sandbox", key.Public().(ed25519.PublicKey))
	for _, tt := range []struct {
		name string
		body []byte
		code int
		text string
	}{
		{"garbage", []byte("{"), 400, "network file invalid"},
		{"of another network", fileText(t, next(elsewhere, weigh("sandbox", 2))), 409, "another network"},
		{"with a gap", fileText(t, next(good, weigh("sandbox", 3))), 409, "it has epoch 2, the next one is 1"},
		{"forged", fileText(t, forged), 409, "signed wrongly"},
		{"unsigned", fileText(t, unsigned), 409, "weight 1 is needed"},
		{"too large", fileText(t, next(genesis, crowded)), 413, "too large for a block"},
		{"in force", fileText(t, genesis), 200, `"inForce"`},
		{"the next epoch", fileText(t, good), 202, `"attached"`},
	} {
		if code, text := r.post("/api/hedgerow/v1/network", tt.body); code != tt.code || !strings.Contains(text, tt.text) {
			t.Errorf("%s: %d %s, want %d with %q", tt.name, code, text, tt.code, tt.text)
		}
	}
	r.epoch(1)
	if code, text := r.post("/api/hedgerow/v1/network", fileText(t, next(genesis, weigh("sandbox", 4)))); code != 409 || !strings.Contains(text, "the next one is 2") {
		t.Errorf("a stale one: %d %s", code, text)
	}
	if saved, err := network.Load(cfg.networkPath()); err != nil || saved.Hash() != good.Hash() {
		t.Errorf("the file is %+v, %v", saved, err)
	}
	if _, err := network.Load(filepath.Join(string(cfg.DataDir), "epochs", "0.json")); err != nil {
		t.Error(err)
	}

	// Another name: it goes on, and says so, also after a restart.
	code, text := r.post("/api/hedgerow/v1/network", fileText(t, next(good, func(f *network.File) { _ = f.Rename("sandbox", "barn") })))
	if code != 202 {
		t.Fatalf("the epoch after: %d %s", code, text)
	}
	r.epoch(2)
	for range 2 {
		must(t, r.publish("readings/probe-1/count", "1"))
		if a := r.alarm("renamed"); !strings.Contains(a, "set name: barn") {
			t.Errorf("the alarm is %q", a)
		}
		must(t, r.stop())
		r = start(t, cfg)
	}
}

// epoch waits until the file of this epoch is in force.
func (r *runner) epoch(epoch uint32) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); r.epochs.current().Epoch != epoch; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("epoch %d is in force, want %d", r.epochs.current().Epoch, epoch)
		}
	}
}

// alarm returns the text of an alarm of the status; "" if there is none.
func (r *runner) alarm(name string) string {
	r.t.Helper()
	var status struct{ Alarms []struct{ Name, Text string } }
	r.get("/api/hedgerow/v1/status", &status)
	for _, a := range status.Alarms {
		if a.Name == name {
			return a.Text
		}
	}
	return ""
}

// A gateway that no file ever named does not start, whatever a later one says.
func TestOnlyAFormerMemberStartsWithoutBeingOne(t *testing.T) {
	f := newFederation(t, "north", "south", "west")
	all := f.chain(leave("west"))
	dir := t.TempDir()
	check := func(name string) error {
		return checkMemberOnce(dir, all[1], name, f.id("west"), "network.json")
	}
	if err := check("west"); err == nil {
		t.Error("nothing says that west was a member")
	}
	must(t, keepEpoch(dir, all[0]))
	if err := check("west"); err != nil {
		t.Errorf("west was a member: %v", err)
	}
	if err := check("east"); err == nil {
		t.Error("its key was never east's")
	}
}
