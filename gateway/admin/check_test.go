package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"

	"github.com/hedgerow-iot/hedgerow/batching"
)

type fakeChecker func(ctx context.Context) error

func (f fakeChecker) Check(ctx context.Context) error { return f(ctx) }

// checkBox returns a handler whose stores are checked by these.
func checkBox(t *testing.T, journal, ledger fakeChecker) *Handler {
	t.Helper()
	b := newBox(t, Config{})
	src := b.src
	src.CheckJournal, src.CheckLedger = journal, ledger
	h, err := New(b.cfg, src, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func postCheck(h *Handler) *httptest.ResponseRecorder {
	return call(h, "POST", "/api/hedgerow/v1/check", "Bearer "+token)
}

func whole(context.Context) error { return nil }

func TestCheckSaysHowEachStoreIs(t *testing.T) {
	for _, tt := range []struct {
		name   string
		check  fakeChecker
		result string
	}{
		{"whole", whole, CheckOK},
		{"damaged", func(context.Context) error { return errBroken }, CheckDamaged},
		{"gave way", func(context.Context) error { return fmt.Errorf("no: %w", batching.ErrBusy) }, CheckUnchecked},
		{"closed", func(context.Context) error { return batching.ErrClosed }, CheckUnchecked},
		{"panic", func(context.Context) error { panic("index out of range") }, CheckDamaged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := postCheck(checkBox(t, whole, tt.check))
			var got struct{ Stores []StoreCheck }
			if err := json.Unmarshal(w.Body.Bytes(), &got); w.Code != 200 || err != nil || len(got.Stores) != 2 {
				t.Fatalf("POST check = %d %s", w.Code, w.Body)
			}
			j, l := got.Stores[0], got.Stores[1]
			if j.Store != "journal" || j.Result != CheckOK || j.Error != "" {
				t.Errorf("journal: %+v", j)
			}
			if l.Store != "ledger" || l.Result != tt.result || (l.Error == "") != (tt.result == CheckOK) {
				t.Errorf("ledger: %+v, want %s", l, tt.result)
			}
		})
	}
}

func TestOneCheckAtATime(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := checkBox(t, func(context.Context) error {
		close(entered)
		<-leave
		return nil
	}, whole)
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- postCheck(h) }()
	<-entered
	if w := postCheck(h); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("a second one = %d, want 503 with Retry-After", w.Code)
	}
	close(leave)
	if w := <-first; w.Code != 200 {
		t.Errorf("the first one = %d", w.Code)
	}
}

func TestACheckEndsWithItsClient(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := checkBox(t, func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return fmt.Errorf("check: %w", ctx.Err())
	}, func(ctx context.Context) error {
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("the second store is checked with %v", ctx.Err())
		}
		return ctx.Err()
	})
	r := httptest.NewRequest("POST", "/api/hedgerow/v1/check", nil).WithContext(ctx)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var got struct{ Stores []StoreCheck }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Stores[0].Result != CheckUnchecked {
		t.Errorf("answer %s", w.Body)
	}
}

func TestCheckWantsTokenAndPost(t *testing.T) {
	h := checkBox(t, whole, whole)
	if w := call(h, "POST", "/api/hedgerow/v1/check", ""); w.Code != 401 {
		t.Errorf("without token = %d, want 401", w.Code)
	}
	if w := call(h, "GET", "/api/hedgerow/v1/check", "Bearer "+token); w.Code != 405 || w.Header().Get("Allow") != "POST" {
		t.Errorf("GET = %d, Allow %q; want 405, POST", w.Code, w.Header().Get("Allow"))
	}
	if w := call(h, "POST", "/api/hedgerow/v1/check?x=1;", "Bearer "+token); w.Code != 400 {
		t.Errorf("with a bad query = %d, want 400", w.Code)
	}
	if w := call(newBox(t, Config{}), "POST", "/api/hedgerow/v1/check", "Bearer "+token); w.Code != 404 {
		t.Errorf("without stores = %d, want 404", w.Code)
	}
}
