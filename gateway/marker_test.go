package gateway

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// A marked is a ledger and the key's directory, as a gateway finds them at each
// start.
type marked struct {
	t       *testing.T
	key     ed25519.PublicKey
	file    *network.File
	secrets string // directory of the key
	dir     string // of the ledger
}

func newMarked(t *testing.T) *marked {
	key, _, err := ed25519.GenerateKey(nil)
	must(t, err)
	m := &marked{t: t, key: key, file: network.NewOfOne("site", "a", key), secrets: t.TempDir(), dir: filepath.Join(t.TempDir(), "ledger")}
	m.with(func(x *marker) { must(t, ledger.Begin(x.store)) })
	return m
}

// with opens the ledger for one start.
func (m *marked) with(do func(*marker)) {
	m.t.Helper()
	s, err := store.Open(m.dir, store.Options{Reserve: 1})
	must(m.t, err)
	do(newMarker(Secret{"file", filepath.Join(m.secrets, "identity.key")}, m.key, m.file, s, testLog(m.t)))
	must(m.t, s.Close())
}

// start is a start that goes through, with a vote in this round, and kill -9
// after it.
func (m *marked) start(opened uint32) {
	m.t.Helper()
	m.want(fits)
	m.with(func(x *marker) {
		must(m.t, x.pair())
		must(m.t, x.store.Commit(ledger.Change{Own: &consensus.Durable{Opened: opened}}))
	})
}

// stop is the end of a run.
func (m *marked) stop() { m.with(func(x *marker) { x.note() }) }

func (m *marked) want(want fit) {
	m.t.Helper()
	m.with(func(x *marker) {
		if got, err := x.fit(); got != want || err != nil {
			m.t.Errorf("the ledger is found %d, %v; want %d", got, err, want)
		}
	})
}

// copied returns what puts the ledger of now back.
func (m *marked) copied() (back func()) {
	to := filepath.Join(m.t.TempDir(), "copy")
	must(m.t, os.CopyFS(to, os.DirFS(m.dir)))
	return func() {
		must(m.t, os.RemoveAll(m.dir))
		must(m.t, os.CopyFS(m.dir, os.DirFS(to)))
	}
}

func TestALedgerFitsWhateverStartsAndKillsCameBefore(t *testing.T) {
	m := newMarked(t)
	for i := range uint32(3) {
		m.start(10 * i)
	}
	m.stop()
	m.start(40)
	m.want(fits)
}

// Whichever of its writes is the last one of a start, the next start fits.
func TestAStartThatWasCutOffFits(t *testing.T) {
	zeros := make([]byte, runSize)
	for name, cut := range map[string]func(m *marked, x *marker){
		"the first, before the file": func(m *marked, x *marker) {
			_, err := x.give(append(bytes.Repeat([]byte{1}, runSize), zeros...))
			must(t, err)
		},
		"the first, after the file": func(m *marked, x *marker) {
			run := bytes.Repeat([]byte{1}, runSize)
			_, err := x.give(append(bytes.Clone(run), zeros...))
			must(t, err)
			x.write(run)
		},
		"a later one, before the file": func(m *marked, x *marker) {
			must(t, x.pair())
			runs, err := x.runs()
			must(t, err)
			_, err = x.give(append(bytes.Repeat([]byte{1}, runSize), runs[:runSize]...))
			must(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMarked(t)
			m.with(func(x *marker) { cut(m, x) })
			m.start(1)
			m.start(2)
			m.want(fits)
		})
	}
}

// A copy of a ledger that was made before the last start is known, although the
// key has not voted since as far as anybody has written.
func TestAnOlderLedgerIsKnown(t *testing.T) {
	for name, tt := range map[string]func(m *marked) (back func()){
		"of the run before, killed": func(m *marked) func() { back := m.copied(); m.start(10); return back },
		"of this run, ended since": func(m *marked) func() {
			m.start(10)
			back := m.copied()
			m.with(func(x *marker) { must(t, x.store.Commit(ledger.Change{Own: &consensus.Durable{Opened: 11}})) })
			m.stop()
			return back
		},
		"of several runs before": func(m *marked) func() { back := m.copied(); m.start(10); m.start(10); return back },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMarked(t)
			m.start(10)
			back := tt(m)
			m.want(fits)
			back()
			m.want(older)
			m.want(older) // until it was dealt with
			m.with(func(x *marker) { must(t, x.pair()) })
			m.want(fits)
		})
	}
}

func TestAMissingMemoryIsKnown(t *testing.T) {
	m := newMarked(t)
	m.start(1)
	must(t, os.Remove(filepath.Join(m.secrets, stateName)))
	m.want(unknown)
	m.with(func(x *marker) { must(t, x.pair()) })
	m.want(fits)
}

// What says nothing of this ledger is no alarm.
func TestAMemoryOfSomethingElseIsNoAlarm(t *testing.T) {
	m := newMarked(t)
	m.start(5)
	m.dir = filepath.Join(t.TempDir(), "anew") // lost and made anew
	m.want(fits)
	other := newMarked(t)
	other.secrets = m.secrets // another key
	other.want(fits)
	m.secrets = filepath.Join(t.TempDir(), "missing") // cannot be written
	m.with(func(x *marker) { must(t, x.pair()) })
	m.want(fits)
}
