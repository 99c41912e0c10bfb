package ledger

import (
	"bytes"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// maxParked is how many votes of the next epoch are kept of one sender.
const maxParked = 1000

// A parking keeps votes of the next epoch until that begins (consensus.md §7).
type parking struct {
	epoch uint32 // in force when the first of them came
	jobs  []*job
	ids   map[stardust.BlockID]bool
	of    map[string]int // by sender
}

// add keeps the job's vote if it is of the epoch after the one in force, and as
// many as one sender may have there.
func (p *parking) add(j *job, epoch uint32) {
	v, err := consensus.ParseVote(j.block.Payload.(*stardust.TaggedData).Data)
	if err != nil || v.Epoch != epoch+1 || p.ids[j.id] || p.of[j.from] >= maxParked {
		return
	}
	if len(p.jobs) == 0 {
		*p = parking{epoch: epoch, ids: map[stardust.BlockID]bool{}, of: map[string]int{}}
	}
	kept := *j // nobody waits for this one
	kept.raw, kept.answers = bytes.Clone(j.raw), nil
	p.jobs = append(p.jobs, &kept)
	p.ids[j.id] = true
	p.of[j.from]++
}

// leave returns the votes that were kept, if their epoch has begun.
func (p *parking) leave(epoch uint32) []*job {
	if len(p.jobs) == 0 || p.epoch == epoch {
		return nil
	}
	jobs := p.jobs
	*p = parking{}
	return jobs
}
