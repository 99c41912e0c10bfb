package gateway

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// stateName is the marker of which ledger an identity voted with last. It
// stands beside the key, outside the data directory and its backups: a ledger
// that does not fit it is an older copy, and what the key voted since is not
// known (consensus.md §7).
const stateName = "identity.state"

// An identityState is the content of the file. Each start gives the ledger and
// the file a new Run, the ledger first, and nothing is voted before the file is
// durable. The ledger keeps the Run of the start before, too, until then: so a
// crash between the two leaves what fits, and any copy of the ledger that was
// made before the last start does not.
type identityState struct {
	Key     string `json:"publicKey"`
	Genesis string `json:"genesis"` // hash of the network's first file
	Run     string `json:"run"`     // 8 bytes
	// Epoch and Opened are of the last vote that opened a round, as of the last
	// start or the end of the last run.
	Epoch  uint32 `json:"epoch"`
	Opened uint32 `json:"opened"`
	// InForce is the newest epoch that has begun here, and Alone says that none so
	// far had another gateway. Both outlast a restored ledger, which may know less.
	InForce uint32 `json:"inForce"`
	Alone   bool   `json:"alone"`
}

// A marker holds an identity against the ledger that it votes with.
type marker struct {
	path    string // of the file; empty: the key is no file, and there is none
	key     string
	genesis string
	store   *store.Store
	log     *slog.Logger
}

// shelfMarker is the shelf of the ledger's store with the run, and the one
// before unless that is over, 8 bytes each.
const shelfMarker = 'i'

var runKey = []byte("run")

const runSize = 8

func newMarker(s Secret, key ed25519.PublicKey, f *network.File, st *store.Store, log *slog.Logger) *marker {
	genesis := f.GenesisHash()
	m := &marker{key: network.PublicKey(key).String(), genesis: hex.EncodeToString(genesis[:]), store: st, log: log}
	if s.Scheme == "file" {
		m.path = filepath.Join(filepath.Dir(s.Ref), stateName)
	}
	return m
}

// A fit is how a ledger stands to what its identity remembers.
type fit int

const (
	fits    fit = iota
	unknown     // the identity has no memory of the ledger, and the ledger says that it should
	older       // the ledger is a copy from before the identity's last vote
)

// fit compares the file with the ledger. A file of another key or another
// network says nothing of this one. A ledger that was never given a run is of a
// build without the file, or its first start was cut off.
func (m *marker) fit() (fit, error) {
	runs, err := m.runs()
	if err != nil || m.path == "" {
		return fits, err
	}
	st, err := m.read()
	switch {
	case err != nil:
		return fits, err
	case st == nil && (len(runs) == 0 || bytes.Equal(runs[runSize:], make([]byte, runSize))):
		return fits, nil
	case st == nil:
		return unknown, nil
	}
	if blocks, _, _, err := m.store.Count(); err != nil || len(runs) == 0 && blocks == 0 {
		return fits, err // made anew, which is dealt with as the loss that it is
	}
	run, err := hex.DecodeString(st.Run)
	if err != nil || len(run) != runSize {
		return fits, fmt.Errorf("%s is not what a gateway wrote; remove it", m.path)
	}
	if len(runs) == 0 || !bytes.Equal(runs[:runSize], run) && !bytes.Equal(runs[runSize:], run) {
		return older, nil
	}
	epoch, opened, err := m.opened()
	if err != nil || st.Epoch < epoch || st.Epoch == epoch && st.Opened <= opened {
		return fits, err
	}
	return older, nil
}

// read returns the file; nil when there is none of this key and network.
func (m *marker) read() (*identityState, error) {
	st, err := readJSON[identityState](m.path)
	if err != nil || st == nil || st.Key != m.key || st.Genesis != m.genesis {
		return nil, err
	}
	return st, nil
}

// outgrown refuses a network file in which this gateway is alone, so that it would
// ask nobody before it votes, when its key has been in a later epoch.
func (m *marker) outgrown(f *network.File, then string) error {
	if m.path == "" || len(f.Gateways) > 1 {
		return nil
	}
	st, err := m.read()
	if err != nil || st == nil {
		return err
	}
	if newest := max(st.Epoch, st.InForce); newest > f.Epoch && !st.Alone {
		return fmt.Errorf("%s says that this gateway has been in epoch %d of the network %s, and the newest network file here is of epoch %d, when it was alone: "+
			"it would vote once more where it has voted already, and the others know. Get the newest network file, network.json in the data directory of another gateway; %s",
			m.path, newest, f.NetworkName, f.Epoch, then)
	}
	return nil
}

func (m *marker) opened() (epoch, opened uint32, err error) {
	own, err := m.store.Own()
	if err != nil || own == nil {
		return 0, 0, err
	}
	return own.Epoch, own.Opened, nil
}

// pair gives the ledger and the file a new run. A directory that cannot be
// written, and a ledger that takes nothing for now, are left as they are: what
// fits goes on to fit.
func (m *marker) pair() error {
	if m.path == "" {
		return nil
	}
	runs, err := m.runs()
	if err != nil {
		return err
	}
	st, err := m.read()
	if err != nil {
		return err
	}
	before := make([]byte, runSize) // zeros: there was no file
	switch {
	case st != nil:
		before, _ = hex.DecodeString(st.Run)
	case len(runs) >= runSize:
		before = runs[:runSize]
	}
	run := make([]byte, runSize)
	_, _ = rand.Read(run) // never fails
	if took, err := m.give(append(bytes.Clone(run), before...)); err != nil || !took {
		return err
	}
	wrote := m.write(run)
	switch {
	case wrote && st == nil:
		_, err = m.give(run) // from now on the file must be there
	case st == nil:
		_, err = m.give(nil)
	}
	return err
}

// runs returns those of the ledger; none: it was never given one.
func (m *marker) runs() ([]byte, error) {
	runs, err := m.store.Shelf(shelfMarker).Get(runKey)
	if n := len(runs); err == nil && n != 0 && n != runSize && n != 2*runSize {
		err = fmt.Errorf("%w: the mark of its runs has %d bytes", store.ErrDamaged, n)
	}
	return runs, err
}

// give writes the ledger's runs; took is false if it takes nothing for now.
func (m *marker) give(runs []byte) (took bool, err error) {
	err = m.store.Shelf(shelfMarker).Write([][]byte{runKey}, [][]byte{runs})
	if errors.Is(err, ledger.ErrBusy) {
		m.log.Warn("the ledger takes nothing; it keeps the mark of the start before", "err", err)
		return false, nil
	}
	return err == nil, err
}

// note writes into the file what has been voted, at the end of a run, and that an
// epoch has begun.
func (m *marker) note() {
	if m.path == "" {
		return
	}
	st, err := m.read()
	if err != nil || st == nil {
		return // the directory cannot be written, as the start has said
	}
	if run, err := hex.DecodeString(st.Run); err == nil {
		m.write(run)
	}
}

// write replaces the file, durably, and reports whether it could.
func (m *marker) write(run []byte) bool {
	epoch, opened, err := m.opened()
	files, unknown := m.store.Networks()
	before, unread := m.read()
	if err = errors.Join(err, unknown, unread); err == nil {
		st := identityState{Key: m.key, Genesis: m.genesis, Run: hex.EncodeToString(run), Epoch: epoch, Opened: opened, Alone: true}
		if before != nil {
			st.InForce, st.Alone = before.InForce, before.Alone
		}
		for _, f := range files {
			st.InForce, st.Alone = max(st.InForce, f.Epoch), st.Alone && len(f.Gateways) == 1
		}
		err = replaceFile(m.path, st)
	}
	if err != nil {
		m.log.Warn("the identity's memory of its ledger cannot be written; an older copy of the data directory is then known by what the other gateways say alone",
			"file", m.path, "err", err)
	}
	return err == nil
}

// replaceFile writes a value in JSON to path, durably, in the place of what is
// there.
func replaceFile(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err // what is not on the disk must not take the place of what is
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
