package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// VoteAgain has a gateway vote again that stopped for a milestone conflict, and
// says what it did. The gateway must not run. Nothing is examined: whoever calls
// it has found out that the milestones of this gateway are the right ones.
func (d *Doctor) VoteAgain() []Finding {
	index, err := d.voteAgain()
	f := Finding{Check: "conflict", Verdict: VerdictOK}
	switch {
	case err != nil:
		f.Verdict, f.Found, f.Store = VerdictBad, "nothing was done: "+err.Error(), errors.Is(err, ErrStore)
	case index == 0:
		f.Found = "there is no milestone conflict here"
	default:
		f.Found = fmt.Sprintf("the conflict at milestone %d is over: this gateway votes again from its next start on", index)
		f.Advice = "see to it that no gateway with other milestones is up"
	}
	return one(f)
}

func (d *Doctor) voteAgain() (index uint32, err error) {
	dir := string(d.Config.DataDir)
	if !exists(filepath.Join(dir, jobLedger)) {
		return 0, nil
	}
	if err := ownedBy(dir, os.Geteuid()); err != nil {
		return 0, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return 0, err
	}
	defer lock.Close() //nolint:errcheck // nothing was written
	if err := errors.Join(joinDone(dir), repairDone(dir), unpackDone(dir)); err != nil {
		return 0, err
	}
	s, err := store.Open(filepath.Join(dir, jobLedger), store.Options{
		MaxDisk: int64(d.Config.Ledger.Retention.MaxDisk), Reserve: int64(d.Config.Journal.Reserve),
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return 0, storeError(err)
	}
	defer func() { err = storeError(errors.Join(err, s.Close())) }()
	if index, err = s.Conflict(); err != nil || index == 0 {
		return 0, err
	}
	return index, ledger.Trust(s)
}
