package peer

import (
	"encoding/binary"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A frontier is what a gateway says it has and knows:
//
//	store 8 | position u64 | flags u8 (1 all, 2 restoring, 4 waiting) | hears u64 | tips u8 | tips | word
//
// hears is the session of the receiver in which its last frontier came to the
// sender, 0 for none. A word counts only in a frontier that names the session
// of who reads it: it was then said since that one's start, and not recorded
// before and sent again. What a gateway concludes from words about rounds that
// it opened is wrong with older ones (consensus.md §7).
type frontier struct {
	store     [8]byte // whose order the position is of
	position  uint64  // of its last block
	all       bool    // these are all its tips
	restoring bool    // its store is new, and it waits itself for what the others have
	waiting   bool    // for the receiver's word: it wants an answer soon
	hears     uint64
	tips      []stardust.BlockID
	word      ledger.Word
}

func (m frontier) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, m.store[:]...)
	b = le.AppendUint64(b, m.position)
	b = append(b, flag(m.all)|flag(m.restoring)<<1|flag(m.waiting)<<2)
	b = le.AppendUint64(b, m.hears)
	b = append(b, byte(len(m.tips)))
	return appendWord(appendIDs(b, m.tips), m.word)
}

func parseFrontier(b []byte) (m frontier, err error) {
	const head = 8 + 8 + 1 + 8 + 1
	if len(b) < head || b[16] > 7 || b[25] > maxTips || len(b) < head+int(b[25])*idSize {
		return m, fmt.Errorf("%w: frontier of %d bytes", errBody, len(b))
	}
	copy(m.store[:], b)
	m.position = binary.LittleEndian.Uint64(b[8:])
	m.all, m.restoring, m.waiting = b[16]&1 != 0, b[16]&2 != 0, b[16]&4 != 0
	m.hears = binary.LittleEndian.Uint64(b[17:])
	end := head + int(b[25])*idSize
	m.tips = cutIDs(b[head:end])
	m.word, err = parseWord(b[end:])
	return m, err
}

// appendWord appends a word:
//
//	epoch u32 | milestone u32 | certified u32 | whole u32 | payloads u32 | opened u32 | target u32 | flags u8 (1 answers, 2 off) | gateways u8 | highest u32 of each
func appendWord(b []byte, w ledger.Word) []byte {
	for _, n := range []uint32{w.Epoch, w.Milestone, w.Certified, w.Whole, w.Payloads, w.Opened, w.Target} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	highest := w.Highest[:min(len(w.Highest), network.MaxGateways)]
	b = append(b, flag(w.Answers)|flag(w.Off)<<1, byte(len(highest)))
	for _, n := range highest {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}

// parseWord reads a word that fills b.
func parseWord(b []byte) (w ledger.Word, err error) {
	const numbers, head = 7 * 4, 7*4 + 1 + 1
	if len(b) < head || b[numbers] > 3 || b[numbers+1] > network.MaxGateways || len(b) != head+int(b[numbers+1])*4 {
		return w, fmt.Errorf("%w: word of %d bytes", errBody, len(b))
	}
	for i, n := range []*uint32{&w.Epoch, &w.Milestone, &w.Certified, &w.Whole, &w.Payloads, &w.Opened, &w.Target} {
		*n = binary.LittleEndian.Uint32(b[4*i:])
	}
	w.Answers, w.Off = b[numbers]&1 != 0, b[numbers]&2 != 0
	for b = b[head:]; len(b) > 0; b = b[4:] {
		w.Highest = append(w.Highest, binary.LittleEndian.Uint32(b))
	}
	return w, nil
}
