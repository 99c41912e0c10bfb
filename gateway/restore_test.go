package gateway

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// twoBoxes are the configurations of two gateways of one network that reach
// each other; neither has been started in it.
func twoBoxes(t *testing.T) (own, other Config) {
	t.Helper()
	a, b := freeAddress(t), freeAddress(t)
	set := []string{"batching.max_age=50ms", "journal.reserve=16MiB", "peers.routes=tls://" + a + ",tls://" + b}
	homes := []string{t.TempDir(), t.TempDir()}
	own = testSandbox(t, homes[0], append(set, "peers.listen="+a)...)
	_, path, keys := networkWith(t, own, "site")
	der, err := x509.MarshalPKCS8PrivateKey(keys[1])
	must(t, err)
	other = testSandbox(t, homes[1], append(set, "name=other", "peers.listen="+b, "network="+path)...)
	must(t, os.WriteFile(other.Identity.Ref, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	own = testSandbox(t, homes[0], append(set, "peers.listen="+a, "network="+path)...)
	for _, home := range homes {
		must(t, os.WriteFile(filepath.Join(home, freshName), nil, 0o600))
	}
	return own, other
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// batches waits until the gateway holds n blocks with readings of members.
func (r *runner) batches(n int) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		held := 0
		for _, m := range r.home.network.Gateways {
			var page struct{ Items []string }
			r.get("/api/hedgerow/v1/blocks?limit=1000&tag="+string(envelope.Tag(m.Name)), &page)
			held += len(page.Items)
		}
		if held == n {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%d blocks with readings, want %d", held, n)
		}
	}
}

// Whatever becomes of a ledger, its gateway gets it back from the others, and
// attaches only what stands in none of their blocks.
func TestALostLedgerComesBackFromTheOthers(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, cfg Config){
		"removed": func(t *testing.T, cfg Config) { must(t, os.RemoveAll(ledgerDir(cfg))) },
		"damaged and repaired": func(t *testing.T, cfg Config) {
			flip(t, blockTable(t, cfg), 60)
			d := doctorOf(t, cfg)
			want(t, d.Examine(t.Context()), "ledger", VerdictBad, "checksum")
			want(t, d.Repair(t.Context()), "repair", VerdictOK, "moved the damaged ledger")
		},
	} {
		t.Run(name, func(t *testing.T) {
			own, other := twoBoxes(t)
			a, b := start(t, own), start(t, other)
			for n := range 3 {
				must(t, a.publish("readings/probe-1/count", "1"))
				must(t, b.publish("readings/probe-2/count", "2"))
				a.readings(n + 1)
				b.readings(n + 1)
			}
			a.batches(6)
			b.batches(6)
			must(t, b.stop())
			must(t, a.publish("readings/probe-1/count", "not at the other"))
			a.readings(4)
			must(t, a.stop())
			lose(t, own)

			a = start(t, own)
			must(t, a.publish("readings/probe-1/count", "taken in meanwhile"))
			if n := a.Stats().Attached; n != 0 {
				t.Errorf("%d readings were attached before the others were there", n)
			}
			start(t, other)
			a.readings(5)
			a.attached(2)
			must(t, a.stop())
			a = start(t, own) // the marks are there now
			a.readings(5)
			if n := a.Stats().Attached; n != 0 {
				t.Errorf("%d readings were attached once more", n)
			}
		})
	}
}

// With the journal gone, too, numbers go on above those that the others know.
func TestALostDiskGoesOnAboveItsNumbers(t *testing.T) {
	own, other := twoBoxes(t)
	a, b := start(t, own), start(t, other)
	for n := range 3 {
		must(t, a.publish("readings/probe-1/count", "1"))
		a.readings(n + 1)
	}
	b.batches(3)
	must(t, a.stop())
	must(t, os.RemoveAll(string(own.DataDir)))
	a = start(t, own)
	must(t, a.publish("readings/probe-1/count", "2"))
	if rs := a.readings(1); rs[0].ID != own.Name+"/4" {
		t.Errorf("the next reading is %s", rs[0].ID)
	}
}

// served waits until a gateway lists a reading of another one with this value.
func (r *runner) served(gateway string, value float64) {
	r.t.Helper()
	var page struct{ Items []testReading }
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		r.get("/api/hedgerow/v1/readings?gateway="+gateway, &page)
		if slices.ContainsFunc(page.Items, func(i testReading) bool { return i.Value == value }) {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("no reading %v of %s among %+v", value, gateway, page.Items)
		}
	}
}

// replace puts a copy in the place of a directory.
func replace(t *testing.T, dir, copied string) {
	t.Helper()
	must(t, os.RemoveAll(dir))
	must(t, os.CopyFS(dir, os.DirFS(copied)))
	must(t, os.Chmod(dir, 0o700))
}

// A data directory that was put back to an older copy has given numbers that it
// does not know of: the key's memory of the ledger says so, or the others do, and
// what it takes in is neither taken for what stood under its number before nor
// refused.
func TestAnOlderDataDirectoryGoesOnUnderAnotherIncarnation(t *testing.T) {
	for name, tt := range map[string]struct {
		remembers bool
		last      []string
	}{
		"the key remembers": {true, []string{"/1000003"}}, "the others do": {false, []string{"/3", "/4"}},
	} {
		t.Run(name, func(t *testing.T) {
			own, other := twoBoxes(t)
			a, b := start(t, own), start(t, other)
			must(t, a.publish("readings/probe-1/count", "1"))
			a.readings(1)
			must(t, a.stop())
			backup := t.TempDir()
			must(t, os.CopyFS(backup, os.DirFS(string(own.DataDir))))
			a = start(t, own)
			must(t, a.publish("readings/probe-1/count", "2"))
			a.readings(2)
			b.served(own.Name, 2)
			a.confirmed(2) // it has voted since the copy was made
			must(t, a.stop())
			replace(t, string(own.DataDir), backup)
			if !tt.remembers {
				must(t, os.Remove(filepath.Join(filepath.Dir(own.Identity.Ref), stateName)))
			}
			a = start(t, own)
			must(t, a.publish("readings/probe-1/count", "99"))
			b.served(own.Name, 99)
			// Of two, the other one alone cannot let it recover.
			text := a.alarm("recovering")
			for end := time.Now().Add(30 * time.Second); text == "" && time.Now().Before(end); text = a.alarm("recovering") {
				time.Sleep(50 * time.Millisecond) // until its later votes have come back
			}
			if !strings.Contains(text, "no quorum without it") {
				t.Errorf("the alarm recovering says %q", text)
			}
			must(t, a.publish("readings/probe-1/count", "100"))
			if rs := a.readings(3); !slices.Contains(tt.last, strings.TrimPrefix(rs[2].ID, own.Name)) {
				t.Errorf("readings are %+v, want the last one to have one of %v", rs, tt.last)
			}
			b.served(own.Name, 100)
		})
	}
}

// The same with the journal alone, and no ledger; also when the gateway stops
// before the others are there.
func TestAnOlderJournalWithoutLedgerLosesNothingNew(t *testing.T) {
	for name, stops := range map[string]bool{"at once": false, "after another start": true} {
		t.Run(name, func(t *testing.T) {
			own, other := twoBoxes(t)
			own.Shutdown.Drain = 0
			a, b := start(t, own), start(t, other)
			must(t, a.publish("readings/probe-1/count", "1"))
			a.readings(1)
			must(t, a.stop())
			backup := t.TempDir()
			must(t, os.CopyFS(backup, os.DirFS(journalDir(own))))
			a = start(t, own)
			for n := range 3 {
				must(t, a.publish("readings/probe-1/count", "2"))
				a.readings(n + 2)
			}
			b.batches(4)
			must(t, a.stop())
			must(t, b.stop())
			must(t, os.RemoveAll(ledgerDir(own)))
			replace(t, journalDir(own), backup)

			a = start(t, own)
			must(t, a.publish("readings/probe-1/count", "99"))
			if stops {
				must(t, a.stop())
				a = start(t, own)
			}
			b = start(t, other)
			b.served(own.Name, 99)
			must(t, a.publish("readings/probe-1/count", "100"))
			b.served(own.Name, 100)
		})
	}
}

// An empty directory is no ledger: it may be where a file system was mounted.
func TestAnEmptyLedgerDirectoryIsALostLedger(t *testing.T) {
	own, other := twoBoxes(t)
	a, b := start(t, own), start(t, other)
	for n := range 2 {
		must(t, a.publish("readings/probe-1/count", "1"))
		a.readings(n + 1)
	}
	b.batches(2)
	must(t, a.stop())
	must(t, os.RemoveAll(ledgerDir(own)))
	must(t, os.Mkdir(ledgerDir(own), 0o700))
	a = start(t, own)
	a.readings(2)
	if n := a.Stats().Attached; n != 0 {
		t.Errorf("%d readings were attached once more", n)
	}
}

// What was attached before the gateway joined stands in the archived chain, and
// is not attached again when the ledger of the network is lost.
func TestALostLedgerKeepsTheMarksOfTheChainBefore(t *testing.T) {
	home := t.TempDir()
	cfg := usedBox(t, home) // three attached alone
	_, path, _ := networkWith(t, cfg, "site")
	if _, err := Join(cfg, path, quietLog()); err != nil {
		t.Fatal(err)
	}
	must(t, os.RemoveAll(ledgerDir(cfg)))
	must(t, startOver(string(cfg.DataDir), quietLog()))
	runs, err := store.ReadRuns(ledgerDir(cfg), quietLog())
	if want := [][2]uint64{{1, 3}}; err != nil || !slices.Equal(runs, want) {
		t.Errorf("the new ledger marks %v, %v; want %v", runs, err, want)
	}
}
