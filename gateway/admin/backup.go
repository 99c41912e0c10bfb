package admin

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"
)

// A Backup copies the gateway while it runs. Its methods may be called
// concurrently.
type Backup interface {
	// Write writes a backup of this moment. The error is that of ctx or of w,
	// or says what could not be read; what was written is then no backup.
	Write(ctx context.Context, w io.Writer) error
	// Size returns about how many bytes that will be.
	Size() int64
}

// backupSize is the header of the answer that has about as many bytes.
const backupSize = "Hedgerow-Backup-Size"

// backup streams a backup, one at a time: it reads everything that is stored.
// One that cannot be completed is cut without its end.
func (h *Handler) backup(w http.ResponseWriter, r *http.Request) {
	if q := parseQuery(r.URL.RawQuery); q.err != nil {
		writeError(w, http.StatusBadRequest, q.err.Error())
		return
	}
	select {
	case h.copying <- struct{}{}:
		defer func() { <-h.copying }()
	default:
		w.Header().Set("Retry-After", "60")
		writeError(w, http.StatusServiceUnavailable, "a backup is in progress; try again later")
		return
	}
	out := &patient{w: w, rc: http.NewResponseController(w)}
	// The server's time for a request is not enough. A wrapped writer may have
	// no deadlines; then the server's hold.
	_ = out.rc.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set(backupSize, strconv.FormatInt(h.src.Backup.Size(), 10))
	if r.Method == http.MethodHead {
		return
	}
	began := time.Now()
	switch err := h.src.Backup.Write(r.Context(), out); {
	case err == nil:
		h.log.Info("backup taken", "bytes", out.n, "seconds", time.Since(began).Seconds())
	case out.n == 0:
		h.fault(w, r, "take a backup", err)
	default:
		h.log.Error("backup cut short", "err", err)
		panic(http.ErrAbortHandler)
	}
}

// patient gives the client pageTime for each Write.
type patient struct {
	w  io.Writer
	rc *http.ResponseController
	n  int64
}

func (p *patient) Write(b []byte) (int, error) {
	_ = p.rc.SetWriteDeadline(time.Now().Add(pageTime))
	n, err := p.w.Write(b)
	p.n += int64(n)
	return n, err
}
