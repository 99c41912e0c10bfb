package archive

import (
	"errors"
	"testing"
)

func TestHighestIsTheLargestNumberOfAKeyOverAllItsJournals(t *testing.T) {
	barn, again, mill := newSigner("barn", 1), newSigner("barn", 1), newSigner("mill", 2)
	again.incarnation = [8]byte{} // sorts before the other journal
	s := newMemoryStream()
	a := open(t, s, newMemoryIndex(), barn, mill)
	expect := func(after string, want uint64, known bool) {
		t.Helper()
		index(t, a)
		if seq, ok, err := a.Highest(barn.public()); seq != want || ok != known || err != nil {
			t.Errorf("after %s: Highest = %d, %v, %v; want %d, %v", after, seq, ok, err, want, known)
		}
	}
	expect("nothing", 0, false)
	s.put(mill.block(t, run(900_000, 900_001)...))
	expect("another key's batch", 0, false)
	s.put(barn.block(t, append(run(1, 3), run(8, 9)...)...))
	expect("numbers with a gap", 9, true)
	s.put(again.block(t, run(1, 20)...))
	expect("more of another journal", 20, true)
	s.put(barn.block(t, run(10, 15)...))
	expect("more of the first journal, but fewer", 20, true)
	s.put(barn.block(t, run(1020, 1030)...))
	expect("numbers of two thousands", 1030, true)
	s.put(again.block(t, run(255*1024, 256*1024)...))
	expect("a thousand with a longer number", 256*1024, true)
	s.put(barn.block(t, run(1500, 1501)...))
	expect("an older batch", 256*1024, true)
}

func TestHighestOfADamagedIndexIsAnError(t *testing.T) {
	barn := newSigner("barn", 1)
	s, ix := newMemoryStream(), newMemoryIndex()
	s.put(barn.block(t, run(1, 3)...))
	a := open(t, s, ix, barn)
	index(t, a)
	for _, k := range ix.keys([]byte{kindNumbers}, nil, false) {
		ix.values[k] = []byte{0xff}
	}
	if _, _, err := a.Highest(barn.public()); !errors.Is(err, ErrDamaged) {
		t.Errorf("Highest = %v, want ErrDamaged", err)
	}
}
