package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/powfarm"
)

// What batching makes of the errors of its neighbours: a busy one is asked
// again, a stopping one ends nothing, any other ends the process.
func TestErrorsOfNeighboursAreTriedAgainOrEndTheProcess(t *testing.T) {
	for _, tt := range []struct {
		err                error
		transient, stopped bool
	}{
		{powfarm.ErrBusy, true, false},
		{powfarm.ErrNoWorkers, true, false}, // the configuration may bring some
		{ledger.ErrBusy, true, false},       // such as a full disk
		{powfarm.ErrClosed, false, true},
		{ledger.ErrClosed, false, true},
		{ledger.ErrInvalid, false, false},
		{ledger.ErrScore, false, false},
		{io.ErrUnexpectedEOF, false, false},
		{context.DeadlineExceeded, false, false},
	} {
		err := fmt.Errorf("attach: %w", tt.err)
		if transient(err) != tt.transient || stopped(err) != tt.stopped {
			t.Errorf("%v: transient %t, stopped %t; want %t, %t", err, transient(err), stopped(err), tt.transient, tt.stopped)
		}
	}
	if transient(nil) || stopped(nil) || transient(errors.New("pow busy")) {
		t.Error("an error is known by more than what it wraps")
	}
}
