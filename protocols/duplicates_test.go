package protocols

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// An echo answers every submission as the repetition of an earlier one.
type echo struct{}

func (echo) Lead(batching.Leader) bool { return false }

func (echo) Submit(batching.Submission) (*batching.Receipt, error) {
	r, resolve := batching.NewReceipt()
	resolve(1, nil)
	return r.Again(), nil
}

func TestDuplicatesAreCountedPerDevice(t *testing.T) {
	in := newIntake(t, echo{}, AnonymousFrom(false))
	for _, device := range []string{"a", "b", "a"} {
		if _, err := in.Submit(Message{Target: Target{device, "t"}, Payload: []byte("1")}); err != nil {
			t.Fatal(err)
		}
	}
	in.CountDuplicate("b")
	if got := fmt.Sprint(in.Duplicates()); got != "map[a:2 b:2]" {
		t.Errorf("duplicates %s, want map[a:2 b:2]", got)
	}
}

func TestDevicesWithDuplicatesAreBounded(t *testing.T) {
	var d duplicates
	for i := range maxCounted + 5 {
		d.add(fmt.Sprint("device-", i))
	}
	if all := d.all(); len(all) != maxCounted+1 || all[""] != 5 {
		t.Errorf("%d devices counted apart, %d together; want %d and 5", len(all)-1, all[""], maxCounted)
	}
}

// What the sink finds too large can never be stored: a device told to try
// again would do so for ever.
func TestWhatTheSinkFindsTooLargeIsTooLarge(t *testing.T) {
	limit := fmt.Errorf("%w: packet of 2000000 bytes", reading.ErrLimit)
	in := newIntake(t, &taker{err: limit}, AnonymousFrom(false))
	if _, err := in.Submit(Message{Target: Target{"d", "t"}, Payload: []byte("1")}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Submit = %v, want ErrTooLarge", err)
	}
}
