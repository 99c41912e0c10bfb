package batching

import (
	"crypto/rand"
	"fmt"
	"math"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

const (
	minParents = 2         // parents that a block always has room for
	envelopeIs = 230       // bytes of an envelope beside its records, roughly
	firstGuess = 30        // bytes a reading adds to a block, before any was seen
	fitTries   = 6         // drafts measured to hit the size
	fitSlack   = 64        // bytes below the limit that are close enough
	readChunk  = 250       // readings that are read from the journal at a time
	readBytes  = 256 << 10 // no more is read once the readings weigh this
	oldestMost = time.Hour // no reading is taken to wait longer, whatever the clock did
)

// sizer estimates how many readings a block of a certain size holds.
type sizer struct {
	base    int     // bytes of a block without parents and envelope
	parents int     // that the coming block has room for
	each    float64 // bytes that a reading adds, from recent batches
}

func (z *sizer) init(tag []byte) {
	b := stardust.Block{Payload: &stardust.TaggedData{Tag: tag}}
	z.base, z.parents, z.each = b.Size(), minParents, firstGuess
}

// block returns the size of a block with an envelope of n bytes.
func (z *sizer) block(n int) int {
	if n > stardust.MaxBlockSize {
		return math.MaxInt
	}
	return z.base + z.parents*len(stardust.BlockID{}) + n
}

// room returns how many readings a block of limit bytes holds.
func (z *sizer) room(limit int) int {
	return max(1, int(float64(limit-z.block(envelopeIs))/z.each))
}

// learn takes note of a batch of n readings in a block of size bytes.
func (z *sizer) learn(n, size int) {
	if n < 8 || size == math.MaxInt {
		return // mostly frame
	}
	z.each += (max(1, float64(size-z.block(envelopeIs))/float64(n)) - z.each) / 2
}

// cut reads what waits below end and seals as much of it as the plan allows.
// When all of it fits, nothing is due and the batch may grow, it seals
// nothing and returns how many more readings to wait for.
func (s *Stage) cut(p plan, end uint64, due bool) (b *batch, more int, err error) {
	z := &s.seal.size
	z.parents = min(max(len(s.ledger.Tips()), minParents), stardust.MaxParents)
	for want := p.want; ; {
		want = min(want+want/8+2, s.cfg.MaxReadings)
		rs, gone, full, err := s.gather(want, end)
		if err != nil {
			return nil, 0, err
		}
		if len(rs) == 0 {
			s.leave(end-1, gone)
			return nil, 0, nil
		}
		var secret [16]byte
		rand.Read(secret[:]) // never fails
		d, err := s.seal.envelopes.Draft(secret, rs)
		if err != nil {
			return nil, 0, fmt.Errorf("draft batch from %d: %w", rs[0].Seq, err)
		}
		n, size := z.fit(d, p.limit)
		z.learn(n, size)
		switch {
		case n < len(rs) || n == s.cfg.MaxReadings:
		case full && n == want: // more waits than was read
			want = max(want, z.room(p.limit))
			continue
		case !full && !due:
			return nil, max(1, int(float64(p.limit-size)/z.each)), nil
		}
		b, err := s.finish(d, n, rs, gone)
		return b, 0, err
	}
}

// finish seals the first n of the readings drafted.
func (s *Stage) finish(d *envelope.Draft, n int, rs []reading.Reading, gone [][2]uint64) (*batch, error) {
	b := &batch{runs: d.Runs(n), count: n, parents: s.seal.size.parents, sealed: time.Now()}
	var err error
	if b.data, err = d.Seal(n); err != nil {
		return nil, fmt.Errorf("seal batch %d-%d: %w", b.first(), b.last(), err)
	}
	if s.seal.size.block(len(b.data)) > stardust.MaxBlockSize {
		return nil, fmt.Errorf("seal batch %d-%d: %w", b.first(), b.last(), envelope.ErrTooLarge)
	}
	s.leave(b.last(), gone)
	// The next reading came no earlier than this one. Both times are from a
	// clock that may have been set in between.
	now, _ := s.cfg.Clock()
	age := time.Duration(now.UnixMilli()-rs[min(n, len(rs)-1)].Received) * time.Millisecond
	s.seal.oldest = time.Now().Add(-min(max(age, 0), oldestMost))
	return b, nil
}

// leave takes the numbers up to through from what is to be batched, and notes
// those of gone among them.
func (s *Stage) leave(through uint64, gone [][2]uint64) {
	s.seal.todo = s.seal.todo.above(through)
	for i, run := range gone {
		if run[0] > through {
			gone = gone[:i]
			break
		}
		gone[i][1] = min(run[1], through)
	}
	s.flight.gone(gone)
}

// gather reads up to limit readings that are to be batched and stored below
// end. It also returns the numbers in between that no reading has, and
// whether it stopped before the end.
func (s *Stage) gather(limit int, end uint64) (rs []reading.Reading, gone [][2]uint64, full bool, err error) {
	weight := 0
	for _, run := range s.seal.todo {
		at, last := run[0], min(run[1], end-1)
		for at <= last {
			if len(rs) == limit || weight > readBytes {
				return rs, gone, true, nil
			}
			got, err := s.journal.Read(at, min(readChunk, limit-len(rs)))
			if err != nil {
				return nil, nil, false, fmt.Errorf("read the journal from %d: %w", at, err)
			}
			for len(got) > 0 && got[len(got)-1].Seq > last {
				got = got[:len(got)-1]
			}
			if len(got) == 0 {
				gone = append(gone, [2]uint64{at, last})
				break
			}
			for i := range got {
				if got[i].Seq > at {
					gone = append(gone, [2]uint64{at, got[i].Seq - 1})
				}
				at = got[i].Seq + 1
				weight += len(got[i].Value.AsString()) + len(got[i].Device) + len(got[i].Name)
			}
			rs = append(rs, got...)
		}
	}
	return rs, gone, false, nil
}

// fit returns how many of the draft's first readings make a block of at most
// limit bytes, and its size: at least one reading, even if that makes a
// larger block.
func (z *sizer) fit(d *envelope.Draft, limit int) (n, size int) {
	least, leastSize := 0, z.block(envelopeIs)
	most := d.Len()
	mostSize := z.block(d.Size(most))
	if mostSize <= limit || most == 1 {
		return most, mostSize
	}
	for try := 0; most-least > 1 && (least == 0 || try < fitTries && limit-leastSize > fitSlack); try++ {
		mid := least + (most-least)/2
		if try < fitTries && mostSize != math.MaxInt && leastSize < limit {
			mid = least + (most-least)*(limit-leastSize)/(mostSize-leastSize)
			mid = min(max(mid, least+1), most-1)
		}
		if size := z.block(d.Size(mid)); size <= limit {
			least, leastSize = mid, size
		} else {
			most, mostSize = mid, size
		}
	}
	if least == 0 {
		return 1, mostSize
	}
	return least, leastSize
}
