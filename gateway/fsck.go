package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/hedgerow-iot/hedgerow/batching/journal"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// The jobs of [Fsck], with the directory that follows them.
const (
	jobJournal = "journal" // DIR: open and check
	jobLedger  = "ledger"  // DIR: open and check
)

// What an outcome can say.
const (
	outcomeOK      = "ok"
	outcomeDamaged = "damaged"
	outcomeNewer   = "newer"
	outcomeFailed  = "failed" // for a reason outside the store
)

// An outcome is what a job has to say.
type outcome struct {
	Result string `json:"result"`
	Text   string `json:"text,omitempty"`
	Count  uint64 `json:"count"` // readings or blocks
}

// Fsck does one job on a store in this process and writes its outcome to out.
// The library below the stores ends the process on some damage, which nobody
// can recover, so a doctor runs Fsck in a process of its own (see
// [Doctor.Self]). The error is one of the arguments.
func Fsck(ctx context.Context, args []string, out io.Writer) error {
	jobs := map[string]func(context.Context, string) (uint64, error){jobJournal: checkJournal, jobLedger: checkLedger}
	if len(args) != 2 || jobs[args[0]] == nil {
		return fmt.Errorf("fsck %q: want journal DIR or ledger DIR", args)
	}
	o := outcome{Result: outcomeOK}
	var err error
	o.Count, err = jobs[args[0]](ctx, args[1])
	switch {
	case err == nil:
	case ctx.Err() != nil:
		o.Result = outcomeFailed
	case errors.Is(err, journal.ErrCorrupt), errors.Is(err, store.ErrDamaged):
		o.Result = outcomeDamaged
	case errors.Is(err, journal.ErrNewer), errors.Is(err, store.ErrNewer):
		o.Result = outcomeNewer
	default:
		o.Result = outcomeFailed
	}
	if err != nil {
		o.Text = err.Error()
	}
	return json.NewEncoder(out).Encode(o)
}

func checkJournal(ctx context.Context, dir string) (kept uint64, err error) {
	j, err := journal.Open(dir, journal.Options{Reserve: 1})
	if err != nil {
		return 0, err
	}
	kept = j.Stats().Readings
	return kept, errors.Join(j.Check(ctx), j.Close())
}

func checkLedger(ctx context.Context, dir string) (blocks uint64, err error) {
	s, err := store.Open(dir, store.Options{Reserve: 1, Still: true})
	if err != nil {
		return 0, err
	}
	position, pruned, _, err := s.Count()
	return position - min(position, pruned), errors.Join(err, s.Check(ctx), s.Close())
}

// maxSaid bounds what is kept of the output of a process that does a job.
const maxSaid = 64 << 10

// A fault is what is wrong with a store itself. It is an [ErrStore].
type fault struct {
	text  string
	newer bool // than this program
}

func (f *fault) Error() string { return f.text }

func (f *fault) Unwrap() error { return ErrStore }

// fsck has another process do a job. The error is a [fault] when a store is
// damaged or newer. The process inherits the lock of the data directory, so
// that it is held until that one has ended, too.
func (d *Doctor) fsck(ctx context.Context, lock *os.File, args ...string) (count uint64, err error) {
	cmd := d.Self(ctx, args...)
	var out, said bounded
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &out, &said, []*os.File{lock}
	runErr := cmd.Run()
	var o outcome
	switch err := json.Unmarshal(out.b, &o); {
	case err == nil && o.Result == outcomeOK:
		return o.Count, nil
	case err == nil && (o.Result == outcomeDamaged || o.Result == outcomeNewer):
		return 0, &fault{o.Text, o.Result == outcomeNewer}
	case err == nil:
		return 0, errors.New(o.Text)
	}
	// It has no outcome: it was killed, could not start, or died of what it read.
	var exit *exec.ExitError
	words := lastWords(string(said.b))
	if ctx.Err() != nil || !errors.As(runErr, &exit) || !exit.Exited() || strings.Contains(words, "memory") {
		return 0, fmt.Errorf("the process that reads the store: %w: %s", cmp.Or(ctx.Err(), runErr), words)
	}
	return 0, &fault{text: "reading it ends the process: " + words}
}

// lastWords returns the line with which a process died.
func lastWords(said string) string {
	first := ""
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		for _, begin := range []string{"panic: ", "fatal error: "} {
			if strings.HasPrefix(line, begin) {
				return short(line)
			}
		}
		if first == "" {
			first = line
		}
	}
	return short(first)
}

// short keeps a line of a few columns.
func short(s string) string {
	const most = 400
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// bounded keeps the first bytes that are written to it.
type bounded struct{ b []byte }

func (w *bounded) Write(p []byte) (int, error) {
	w.b = append(w.b, p[:min(len(p), maxSaid-len(w.b))]...)
	return len(p), nil
}
