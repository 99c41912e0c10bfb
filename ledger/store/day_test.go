package store

import (
	"context"
	"testing"
	"time"
)

// A day of telemetry at one batch every ten seconds.
func TestADayOfVotesAddsAtMost20MB(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a day's worth of votes")
	}
	const perDay, part = 8640, 4
	dir := t.TempDir()
	s, err := Open(dir, Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	st := newStage(t, 4, s)
	began := time.Now()
	st.play(perDay/part, 200)
	t.Logf("%d batches, %d votes, %d milestones in %v", len(st.batches), st.votes, st.last, time.Since(began))
	before := settled(t, s, dir)
	began = time.Now()
	s = reopen(t, dir)
	st.store = s
	st.pruneVotes(st.last - 16)
	t.Logf("pruned in %v", time.Since(began))
	after := settled(t, s, dir)
	const perBatch = 440 // what a block of this size takes, votes or not
	added := (after - int64(perBatch*len(st.batches))) * part
	t.Logf("%d kB with bodies of votes, %d kB without; votes add %d kB a day", before>>10, after>>10, added>>10)
	if added > 20<<20 {
		t.Errorf("votes, milestones and certificates take %d bytes a day, want at most 20 MB", added)
	}
	s = reopen(t, dir)
	if err := s.Check(context.Background()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// settled closes the store, compacts it, and returns what it takes.
func settled(t *testing.T, s *Store, dir string) int64 {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, dir)
	if err := s.db.Flatten(2); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, dir)
	used, err := s.DiskBytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range s.db.Levels() {
		t.Logf("level %d: %d tables, %d kB, stale %d kB", info.Level, info.NumTables, info.Size>>10, info.StaleDatSize>>10)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return used
}

func reopen(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Reserve: 1})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
