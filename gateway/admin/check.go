package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// A Checker reads all of a store and returns nil when it agrees with itself,
// an error that wraps [batching.ErrBusy] when it had to give way, or what is
// wrong. *journal.Journal and *store.Store are ones.
type Checker interface {
	Check(ctx context.Context) error
}

// A StoreCheck is what checking one store gave.
type StoreCheck struct {
	Store   string  `json:"store"`           // journal or ledger
	Result  string  `json:"result"`          // ok, damaged, or unchecked
	Error   string  `json:"error,omitempty"` // what is damaged, or why it was not checked
	Seconds float64 `json:"seconds"`
}

// Results of a StoreCheck.
const (
	CheckOK        = "ok"
	CheckDamaged   = "damaged"
	CheckUnchecked = "unchecked"
)

// checkTime bounds a check of both stores: about 100 GiB of them.
const checkTime = 30 * time.Minute

// check runs the checks of the stores, one after the other, once at a time: it
// reads everything that is stored. It ends when the client goes away.
func (h *Handler) check(w http.ResponseWriter, r *http.Request) {
	if q := parseQuery(r.URL.RawQuery); q.err != nil {
		writeError(w, http.StatusBadRequest, q.err.Error())
		return
	}
	select {
	case h.checking <- struct{}{}:
		defer func() { <-h.checking }()
	default:
		w.Header().Set("Retry-After", "60")
		writeError(w, http.StatusServiceUnavailable, "a check is in progress; try again later")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), checkTime)
	defer cancel()
	// The server's time for a request is not enough. A wrapped writer may have
	// no deadlines; then the server's hold.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(checkTime + time.Minute))
	_ = rc.SetWriteDeadline(time.Now().Add(checkTime + time.Minute))
	out := struct {
		Stores []StoreCheck `json:"stores"`
	}{[]StoreCheck{checkStore(ctx, "journal", h.src.CheckJournal), checkStore(ctx, "ledger", h.src.CheckLedger)}}
	for _, s := range out.Stores {
		if s.Result == CheckDamaged {
			h.log.Error("a store is damaged", "store", s.Store, "err", s.Error)
		}
	}
	writeJSON(w, http.StatusOK, out)
}

func checkStore(ctx context.Context, name string, c Checker) StoreCheck {
	start := time.Now()
	out := StoreCheck{Store: name, Result: CheckOK}
	err := guarded(ctx, c)
	switch out.Seconds = time.Since(start).Seconds(); {
	case err == nil:
		return out
	case errors.Is(err, batching.ErrBusy), errors.Is(err, batching.ErrClosed), ctx.Err() != nil:
		out.Result = CheckUnchecked
	default:
		out.Result = CheckDamaged
	}
	out.Error = err.Error()
	return out
}

// guarded runs a check. The library below panics on some damaged files, and
// reads them as memory, which faults where a file was cut short.
func guarded(ctx context.Context, c Checker) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("reading it panics: %v", p)
		}
	}()
	return c.Check(ctx)
}
