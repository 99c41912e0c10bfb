package archive

import "testing"

// The newest reading of a series follows numbers, never clocks.
func TestTheNewestReadingIsThatOfTheHighestNumberOfTheLastJournal(t *testing.T) {
	barn, again := newSigner("barn", 1), newSigner("barn", 1)
	again.incarnation = [8]byte{} // sorts before the other journal
	const now, ahead = 1764237600000, 4102444800000
	block := func(s *signer, seq uint64, received int64) []byte {
		return s.block(t, one(seq, received, "probe", "temperature", int64(seq)))
	}
	for _, tt := range []struct {
		name     string
		blocks   [][]byte
		seq      uint64
		position uint64
	}{
		{"the clock was ahead once", [][]byte{block(barn, 1, ahead), block(barn, 2, now)}, 2, 2},
		{"the clock was ahead once, within a batch", [][]byte{barn.block(t,
			one(1, ahead, "probe", "temperature", 1), one(2, now, "probe", "temperature", 2))}, 2, 1},
		{"batches in another order", [][]byte{block(barn, 2, now), block(barn, 1, now)}, 2, 1},
		{"a new journal that begins again", [][]byte{block(barn, 7, ahead), block(again, 1, now)}, 1, 2},
		{"a block of the former journal that comes late", [][]byte{block(barn, 7, now), block(again, 1, now), block(barn, 8, ahead)}, 1, 2},
		{"a journal that goes on after another's late block", [][]byte{
			block(barn, 7, ahead), block(again, 2, now), block(barn, 8, ahead), block(again, 3, now-5), block(again, 1, ahead)}, 3, 4},
	} {
		for _, together := range []bool{true, false} {
			s := newMemoryStream()
			a := open(t, s, newMemoryIndex(), barn)
			for _, raw := range tt.blocks {
				s.put(raw)
				if !together {
					index(t, a)
				}
			}
			index(t, a)
			items, _, err := a.Latest("barn", "", "probe", "", 0)
			if err != nil || len(items) != 1 || items[0].Reading.Seq != tt.seq || items[0].Position != tt.position {
				t.Errorf("%s, in one write %v: latest is %+v, %v; want number %d at %d", tt.name, together, items, err, tt.seq, tt.position)
			}
		}
	}
}
