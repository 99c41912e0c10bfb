package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"testing"
)

// A fakeBackup writes so much, then does what its function says.
type fakeBackup struct {
	text string
	end  func() error
}

func (b fakeBackup) Size() int64 { return int64(len(b.text)) }

func (b fakeBackup) Write(_ context.Context, w io.Writer) error {
	if b.text != "" {
		if _, err := io.WriteString(w, b.text); err != nil {
			return err
		}
	}
	return b.end()
}

func backupBox(t *testing.T, backup Backup) *Handler {
	t.Helper()
	b := newBox(t, Config{})
	src := b.src
	src.Backup = backup
	h, err := New(b.cfg, src, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

const backupPath = "/api/hedgerow/v1/backup"

func TestABackupIsStreamedToWhoHasTheToken(t *testing.T) {
	h := backupBox(t, fakeBackup{"all", func() error { return nil }})
	if r := call(h, "GET", backupPath, ""); r.Code != http.StatusUnauthorized {
		t.Errorf("without token: %d", r.Code)
	}
	r := call(h, "GET", backupPath, "Bearer "+token)
	if r.Code != http.StatusOK || r.Body.String() != "all" || r.Header().Get(backupSize) != "3" {
		t.Errorf("%d %q, size %s", r.Code, r.Body, r.Header().Get(backupSize))
	}
	if r := call(backupBox(t, nil), "GET", backupPath, "Bearer "+token); r.Code != http.StatusNotFound {
		t.Errorf("without a source: %d", r.Code)
	}
}

func TestASecondBackupHasToWait(t *testing.T) {
	var h *Handler
	code := 0
	h = backupBox(t, fakeBackup{"", func() error { code = call(h, "GET", backupPath, "Bearer "+token).Code; return nil }})
	if r := call(h, "GET", backupPath, "Bearer "+token); r.Code != http.StatusOK || code != http.StatusServiceUnavailable {
		t.Errorf("%d, and %d beside it; want 200 and 503", r.Code, code)
	}
}

// What cannot be completed must not pass for a backup.
func TestABackupThatFailsIsCut(t *testing.T) {
	broken := func() error { return errors.New("broken") }
	if r := call(backupBox(t, fakeBackup{"", broken}), "GET", backupPath, "Bearer "+token); r.Code != http.StatusInternalServerError {
		t.Errorf("before the first byte: %d", r.Code)
	}
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("in the middle: %v, want %v", p, http.ErrAbortHandler)
		}
	}()
	call(backupBox(t, fakeBackup{"half", broken}), "GET", backupPath, "Bearer "+token)
}
