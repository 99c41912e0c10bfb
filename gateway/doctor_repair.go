package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// repairFile stands in the data directory while a ledger is being replaced, so
// that a repair that was cut off can only go on.
const repairFile = "repairing.json"

// A replacing is the content of the file.
type replacing struct {
	Damaged string `json:"damaged"` // name that the damaged ledger gets in the data directory
}

// repairDone refuses to use a data directory whose ledger is being replaced.
func repairDone(dir string) error {
	if exists(filepath.Join(dir, repairFile)) {
		return errors.New("repairing the ledger was cut off; finish it with: hedgerow doctor --repair")
	}
	return nil
}

// Repair mends what can be mended on this machine without losing anything that
// was acknowledged, and says what it did. The gateway must not run.
//
// Secrets that others can read are closed to them. A damaged ledger is moved
// aside, complete, and a new one takes its place, if the journal is whole: from
// it the next start attaches again what it keeps. In a network of several
// gateways it first gets the blocks from the others, and attaches what stands in
// none of them. The journal is never touched.
//
// When it is cut off it is to be called again; a start in between is refused.
// Called again after that it does nothing.
func (d *Doctor) Repair(ctx context.Context) []Finding {
	if done := d.repair(ctx); len(done) > 0 {
		return done
	}
	return one(Finding{Check: "repair", Verdict: VerdictOK, Found: "nothing had to be repaired"})
}

func (d *Doctor) repair(ctx context.Context) (done []Finding) {
	dir := string(d.Config.DataDir)
	if !exists(dir) {
		return nil
	}
	failed := func(err error) []Finding {
		return append(done, Finding{"repair", VerdictBad, "nothing was done: " + err.Error(), "", errors.Is(err, ErrStore)})
	}
	if err := ownedBy(dir, os.Geteuid()); err != nil {
		return failed(err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return failed(err)
	}
	defer lock.Close() //nolint:errcheck // nothing was written
	if err := errors.Join(joinDone(dir), unpackDone(dir)); err != nil {
		return failed(err)
	}
	done = d.repairModes()
	f, err := d.repairLedger(ctx, lock)
	switch {
	case err != nil && exists(filepath.Join(dir, repairFile)):
		return append(done, Finding{"repair", VerdictBad, "the ledger is not replaced yet: " + err.Error(), "remove the cause and run doctor --repair again", false})
	case err != nil:
		return append(done, Finding{"repair", VerdictBad, "the ledger was left as it is: " + short(err.Error()), "keep a copy of data_dir, and restore a backup", errors.Is(err, ErrStore)})
	case f != nil:
		done = append(done, *f)
	}
	return done
}

// repairModes closes the files of secrets to everybody but their owner.
func (d *Doctor) repairModes() (done []Finding) {
	for _, s := range []Secret{d.Config.Identity, d.Config.API.Token} {
		if s.Scheme != "file" || !tooOpen(s.Ref) {
			continue
		}
		if _, err := s.Read(); err == nil {
			continue // root's own, who decided it
		}
		f := Finding{"repair", VerdictOK, "took the right to read " + s.Ref + " from others", "consider who may have read it", false}
		if err := os.Chmod(s.Ref, 0o600); err != nil {
			f.Verdict, f.Found, f.Advice = VerdictBad, err.Error(), "run as the owner of the file"
		}
		done = append(done, f)
	}
	return done
}

// repairLedger replaces a ledger that is damaged, or finishes doing so; nil
// when there was nothing to do.
func (d *Doctor) repairLedger(ctx context.Context, lock *os.File) (*Finding, error) {
	dir := string(d.Config.DataDir)
	begun, err := readReplacing(dir)
	if err != nil {
		return nil, err
	}
	if begun != nil {
		if err := begun.finish(dir); err != nil {
			return nil, err
		}
		return &Finding{"repair", VerdictOK, "finished a repair that was cut off: the damaged ledger is in " + filepath.Join(dir, begun.Damaged), "start the gateway", false}, nil
	}
	ledger, journal := filepath.Join(dir, jobLedger), filepath.Join(dir, jobJournal)
	if !exists(ledger) {
		return nil, nil
	}
	_, sick := d.fsck(ctx, lock, jobLedger, ledger)
	if sick == nil {
		return nil, nil
	}
	if wrong := (*fault)(nil); !errors.As(sick, &wrong) || wrong.newer {
		return nil, sick
	}
	f, err := network.Load(d.Config.networkPath())
	if err != nil {
		return nil, err
	}
	if !exists(journal) {
		return nil, fmt.Errorf("there is no journal to attach readings from again: %w", sick)
	}
	if _, err := d.fsck(ctx, lock, jobJournal, journal); err != nil {
		return nil, fmt.Errorf("the journal has to be whole first: %w", err)
	}
	return d.replace(len(f.Gateways) > 1)
}

// replace builds the new ledger and puts it in the place of the damaged one.
func (d *Doctor) replace(federated bool) (*Finding, error) {
	dir := string(d.Config.DataDir)
	next := filepath.Join(dir, "ledger.new")
	if err := os.RemoveAll(next); err != nil { // left by a repair that never began
		return nil, err
	}
	var err error
	if federated {
		err = errors.Join(restoring{}.write(dir), newLedger(dir, next, slog.New(slog.DiscardHandler)))
	} else {
		err = makeDir(next)
	}
	if err != nil {
		return nil, err
	}
	r := &replacing{Damaged: asideName(dir, time.Now())}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	// The file says that the new one is there, so that one first.
	if err := errors.Join(syncDir(next), syncDir(dir)); err != nil {
		return nil, err
	}
	if err := createFile(filepath.Join(dir, repairFile), 0o600, append(text, '\n')); err != nil {
		return nil, err
	}
	if err := r.finish(dir); err != nil {
		return nil, err
	}
	f := &Finding{Check: "repair", Verdict: VerdictOK, Found: "moved the damaged ledger, complete, to " + filepath.Join(dir, r.Damaged)}
	f.Found += " and made a new one"
	if federated {
		f.Advice = "start the gateway: its blocks come from the other gateways; readings that stand in none of them are attached again"
	} else {
		f.Advice = "start the gateway: it attaches again what the journal keeps; older readings are in the blocks of the moved directory alone, so keep it"
	}
	return f, nil
}

// asideName returns a name for the damaged ledger that is free.
func asideName(dir string, now time.Time) string {
	base := "ledger.damaged-" + now.UTC().Format("20060102T150405Z")
	name := base
	for i := 2; exists(filepath.Join(dir, name)); i++ {
		name = fmt.Sprintf("%s.%d", base, i)
	}
	return name
}

// asidePattern is what asideName makes.
const asidePattern = `^ledger\.damaged-[0-9TZ.]+$`

// readReplacing returns what a repair that was cut off left, or nil.
func readReplacing(dir string) (*replacing, error) {
	path := filepath.Join(dir, repairFile)
	b, err := readSecretFile(path, false) // for its bound
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r replacing
	if err := json.Unmarshal(b, &r); err != nil || !regexp.MustCompile(asidePattern).MatchString(r.Damaged) {
		return nil, fmt.Errorf("%s is not what a repair wrote", path)
	}
	return &r, nil
}

// finish moves the directories, each of which may have been moved already, and
// takes the file away.
func (r *replacing) finish(dir string) error {
	ledger, next, aside := filepath.Join(dir, jobLedger), filepath.Join(dir, "ledger.new"), filepath.Join(dir, r.Damaged)
	if !exists(next) && (!exists(aside) || !exists(ledger)) {
		return fmt.Errorf("%s is missing, which was made to take the place of the damaged ledger: put it back, or remove %s and what is damaged", next, repairFile)
	}
	if !exists(aside) {
		if err := move(ledger, aside); err != nil {
			return err
		}
	}
	if exists(next) {
		if err := move(next, ledger); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(dir, repairFile)); err != nil {
		return err
	}
	return syncDir(dir)
}
