package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
)

func mustFlush(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.flush(); err != nil {
		t.Fatal(err)
	}
}

// trimAll drops until nothing more goes, and returns how often it did.
func trimAll(t testing.TB, j *Journal, now int64) int {
	t.Helper()
	for n := 0; ; n++ {
		switch dropped, err := j.trim(now); {
		case err != nil:
			t.Fatal(err)
		case !dropped:
			return n
		}
	}
}

func TestTrimDropsOldReadingsButNoneAboveThrough(t *testing.T) {
	dir := t.TempDir()
	j := open0(t, dir, Options{Retention: time.Hour})
	hour := time.Hour.Milliseconds()
	for i := range int64(5) {
		mustAppend(t, j, i*hour, pack(num("a", "x", i), num("b", fmt.Sprint(i), i)))
		mustFlush(t, j)
	}
	if n := trimAll(t, j, 5*hour); n != 0 {
		t.Errorf("dropped %d segments before Trim allowed any", n)
	}
	if err := j.Trim(5); err != nil {
		t.Fatal(err)
	}
	if n := trimAll(t, j, 5*hour); n != 2 || j.Stats().First != 5 {
		t.Errorf("dropped %d segments up to %d, want 2 up to 5", n, j.Stats().First)
	}
	if err := j.Trim(10); err != nil {
		t.Fatal(err)
	}
	if n := trimAll(t, j, 5*hour); n != 1 || j.Stats().First != 7 {
		t.Errorf("dropped %d segments up to %d, want 1 up to 7", n, j.Stats().First)
	}
	if _, err := j.Last("b", "1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("last of a series that was dropped: %v", err)
	}
	if rs, _, err := j.History(Query{Device: "a"}); err != nil || !slices.Equal(seqs(rs), []uint64{7, 9}) {
		t.Errorf("history = %d, %v", seqs(rs), err)
	}
	if rs := mustRead(t, j, 1, 2); !slices.Equal(seqs(rs), []uint64{7, 8}) {
		t.Errorf("read = %d", seqs(rs))
	}
	checkNow(t, j)
	k := open0(t, killed(t, dir), Options{})
	if s := k.Stats(); s.First != 7 || s.Next != 11 || s.Readings != 4 {
		t.Errorf("reopened: %+v", s)
	}
	checkNow(t, k)
}

func TestClockThatJumpsAheadDropsNothing(t *testing.T) {
	j := open0(t, t.TempDir(), Options{Retention: time.Hour})
	mustAppend(t, j, 1000, pack(num("a", "x", 1)))
	mustFlush(t, j)
	mustAppend(t, j, 2000, pack(num("a", "x", 2)))
	if err := j.Trim(2); err != nil {
		t.Fatal(err)
	}
	if n := trimAll(t, j, 10*365*24*time.Hour.Milliseconds()); n != 0 {
		t.Errorf("dropped %d segments", n)
	}
}

// What was out of sight before a kill is deleted at the next start.
func TestTrimThatWasCutOffIsFinished(t *testing.T) {
	dir := t.TempDir()
	j := open0(t, dir, Options{})
	for i := range int64(2) {
		mustAppend(t, j, i, pack(num("a", "x", i)))
		mustFlush(t, j)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	change(t, dir, metaTrimmed, []byte{0, 0, 0, 0, 0, 0, 0, 1})
	k := open0(t, dir, Options{})
	if s := k.Stats(); s.First != 2 || s.Readings != 1 {
		t.Errorf("reopened: %+v", s)
	}
	checkNow(t, k)
}

func TestAppendIndexesWhenRunIsLate(t *testing.T) {
	j := open0(t, t.TempDir(), Options{})
	for n := 0; n < 2*flushLate; n += 500 {
		mustAppend(t, j, int64(n), siteGroup(n, 500)...)
		if s := j.Stats(); s.Unindexed >= flushLate {
			t.Fatalf("%d readings are not indexed", s.Unindexed)
		}
	}
	checkNow(t, j)
}

func TestRunIndexesAndEndsWithItsContext(t *testing.T) {
	j := open0(t, t.TempDir(), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	mustAppend(t, j, 1, siteGroup(0, flushSize)...)
	for j.Stats().Unindexed > 0 {
		checkNow(t, j) // waits for a flush that is under way
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

// At its cap the journal drops what it may, gives the space back and goes on.
func TestJournalAtItsCapRecoversByItself(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 200 MB")
	}
	j := open0(t, t.TempDir(), Options{MaxDisk: minDisk})
	n := 0
	appendMore := func() error {
		_, err := j.Append(siteGroup(n, 4000), batching.Stamp{Received: int64(n)})
		if err == nil {
			n += 4000
		}
		return err
	}
	var err error
	for err == nil && n < 4_000_000 {
		err = appendMore()
	}
	if !errors.Is(err, batching.ErrBusy) || !errors.Is(j.Ready(), batching.ErrBusy) {
		t.Fatalf("after %d readings: append %v, ready %v", n, err, j.Ready())
	}
	if rs := mustRead(t, j, 1, 10); len(rs) != 10 {
		t.Errorf("read %d readings at the cap", len(rs))
	}
	if err := j.Trim(j.Next() - 1); err != nil {
		t.Fatal(err)
	}
	for rounds := 0; j.Ready() != nil; rounds++ {
		dropped, err := j.trim(int64(n))
		if err := errors.Join(err, j.reclaim(!dropped)); err != nil || rounds > 1000 {
			t.Fatalf("after %d rounds: %v, %+v", rounds, err, j.Stats())
		}
	}
	if err := appendMore(); err != nil {
		t.Errorf("append after the trim: %v", err)
	}
	if s := j.Stats(); s.Readings < uint64(n)/2 || s.DiskBytes > minDisk {
		t.Errorf("kept %d of %d readings in %d bytes", s.Readings, n, s.DiskBytes)
	}
	checkNow(t, j)
}
