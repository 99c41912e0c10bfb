package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

// check reads the block of a job that is to be attached, and returns nil if it
// is valid whatever its parents are: structure and version (TIP-24), payload,
// proof of work (TIP-12). The error wraps ErrInvalid or ErrScore.
func (l *Ledger) check(j *job) (err error) {
	if j.block, err = stardust.ParseBlock(j.raw); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if consensus.IsVote(j.block.Payload) {
		return fmt.Errorf("%w: votes come from gateways alone", ErrInvalid)
	}
	if err := CheckScore(j.raw, l.network.MinPoWScore); err != nil {
		return err
	}
	return l.decode(j)
}

// decode fills in what consensus needs of a job's block, unless it is a vote of
// an epoch to come. The error wraps ErrInvalid.
func (l *Ledger) decode(j *job) error {
	b, err := l.epochs.Load().Decode(j.id, j.block)
	switch {
	case errors.Is(err, consensus.ErrFutureEpoch):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	b.Third = l.third(j.block, b.Update)
	j.agreed, j.decoded = b, true
	return nil
}

// admit reports whether a block whose parents are stored, or in the group, may
// be stored. If not it has its answer: it breaks a rule, or is kept for another
// epoch, or is of no use. The error is the store's.
func (l *Ledger) admit(g *group, j *job) (ok bool, err error) {
	if !j.decoded { // the epoch may have begun since it was looked at
		if err := l.decode(j); err != nil {
			l.refuse(j, err)
			return false, nil
		}
	}
	if !j.decoded {
		l.agreement.parked.add(j, l.epochs.Load().File().Epoch)
		l.counts.parked.Store(uint64(len(l.agreement.parked.jobs)))
		j.later = true
		j.answer(nil)
		return false, nil
	}
	if j.agreed.Kind != consensus.KindVote {
		return true, nil
	}
	if l.agreement.state.Useless(j.agreed) && !l.hold.wants(j.id) {
		j.useless = true
		j.answer(nil)
		return false, nil
	}
	err = l.agreement.state.Check(j.agreed, g.staged)
	if errors.Is(err, consensus.ErrNotSolid) {
		if err := l.recall(j.agreed.Parents); err != nil {
			return false, err
		}
		err = l.agreement.state.Check(j.agreed, g.staged)
	}
	switch {
	case errors.Is(err, consensus.ErrInvalid):
		l.refuse(j, fmt.Errorf("%w: %w", ErrInvalid, err))
		return false, nil
	case err != nil:
		return false, fmt.Errorf("check vote %v: %w", j.id, err)
	}
	return true, nil
}

func (l *Ledger) refuse(j *job, err error) {
	l.counts.refused.Add(1)
	j.answer(err)
}

// CheckScore returns nil if the proof of work of a block with these bytes
// reaches minScore. The error wraps ErrScore and says what is missing.
func CheckScore(raw []byte, minScore uint32) error {
	if stardust.TargetZeros(len(raw), minScore) == 0 || len(raw) < 8 {
		return nil
	}
	nonce := binary.LittleEndian.Uint64(raw[len(raw)-8:])
	return scoreError(curl.Zeros(stardust.PoWDigest(raw), nonce), len(raw), minScore)
}

// scoreError returns nil if so many zeros are enough for a block of size bytes.
func scoreError(zeros, size int, minScore uint32) error {
	if stardust.MeetsScore(zeros, size, minScore) {
		return nil
	}
	return fmt.Errorf("%w: %d bytes at score %d need %d trailing zero trits, the nonce gives %d",
		ErrScore, size, minScore, stardust.TargetZeros(size, minScore), zeros)
}

// checkRuns returns nil if the runs ascend and do not touch.
func checkRuns(runs [][2]uint64) error {
	if len(runs) > MaxRuns {
		return fmt.Errorf("%d runs of readings, at most %d allowed", len(runs), MaxRuns)
	}
	for i, r := range runs {
		if r[0] > r[1] {
			return fmt.Errorf("run %d of readings is %d-%d", i, r[0], r[1])
		}
		if i > 0 && (runs[i-1][1] >= r[0] || runs[i-1][1]+1 == r[0]) {
			return fmt.Errorf("runs of readings %d-%d and %d-%d do not ascend or touch",
				runs[i-1][0], runs[i-1][1], r[0], r[1])
		}
	}
	return nil
}

// third reports whether a payload block is of somebody who is no member. An
// update that a quorum of members signed is theirs, whoever attached it.
func (l *Ledger) third(b *stardust.Block, update *network.File) bool {
	if update != nil {
		return update.Follows(l.epochs.Load().File()) != nil
	}
	data, ok := b.Payload.(*stardust.TaggedData)
	if !ok {
		return b.Payload == nil
	}
	name, ok := bytes.CutPrefix(data.Tag, []byte("hedgerow/"))
	if !ok {
		return true
	}
	for _, g := range l.epochs.Load().File().Gateways {
		if g.Name == string(name) {
			return false
		}
	}
	return true
}
