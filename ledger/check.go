package ledger

import (
	"encoding/binary"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

// check returns the block with these bytes if it is valid whatever its
// parents are: structure and version (TIP-24), payload, proof of work
// (TIP-12). The error wraps ErrInvalid or ErrScore.
func (l *Ledger) check(raw []byte) (*stardust.Block, error) {
	b, err := stardust.ParseBlock(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := CheckScore(raw, l.network.MinPoWScore); err != nil {
		return nil, err
	}
	return b, nil
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
