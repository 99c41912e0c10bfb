package batching

import (
	"context"
	"fmt"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

const (
	trimEvery = 30 * time.Second // how often the journal hears what it may drop

	// After a start all marks of what the journal keeps are to be looked at, a
	// few thousand at a time, with pauses so many times as long as it took.
	trimMarks = 4096
	trimPause = 9
)

// trimJournal tells the journal from time to time what it may drop, until ctx
// ends: what is certified, up to the first reading that is not. Until then the
// block of a reading may be on this box alone. Nothing of it is stored: each
// start finds it out anew.
func (s *Stage) trimJournal(ctx context.Context) error {
	through := uint64(0)
	timer := time.NewTimer(trimEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		began := time.Now()
		next, more, err := s.certified(through, s.flight.lowWater())
		if err != nil && ctx.Err() == nil {
			s.log.Error("cannot see which readings are certified; the journal drops no more until that can be read", "err", err)
		}
		if next > through {
			if err := s.journal.Trim(next); err != nil && !s.transient(err) {
				return fmt.Errorf("trim the journal through %d: %w", next, err)
			}
			through = next
		}
		if more {
			timer.Reset(trimPause * time.Since(began))
		} else {
			timer.Reset(trimEvery)
		}
	}
}

// certified returns the number up to which every reading that the journal keeps
// is certified, when it is so up to through and all up to low are attached, and
// whether there is more to look at. A number below low that no mark names is of
// no reading. With an error it returns through.
func (s *Stage) certified(through, low uint64) (end uint64, more bool, err error) {
	if through >= low {
		return through, false, nil
	}
	if through == 0 {
		rs, err := s.journal.Read(1, 1)
		if err != nil {
			return 0, false, fmt.Errorf("look for the first reading kept: %w", err)
		}
		if len(rs) == 0 || rs[0].Seq > low {
			return low, false, nil
		}
		through = rs[0].Seq - 1
	}
	end = low
	left := trimMarks
	known := map[stardust.BlockID]bool{}
	var failed error
	err = s.ledger.MarksFrom(through+1, func(run [2]uint64, block stardust.BlockID) bool {
		if run[0] > low {
			return false
		}
		more = left == 0
		if !more && !known[block] {
			known[block], failed = s.ledger.Certified(block)
		}
		if more || !known[block] {
			end = max(through, run[0]-1)
			return false
		}
		left--
		return true
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return through, false, fmt.Errorf("look for readings that are not certified: %w", err)
	}
	return end, more, nil
}
