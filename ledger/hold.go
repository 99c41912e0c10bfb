package ledger

import (
	"maps"
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// A hold keeps received blocks whose parents are not there yet, bounded in
// number and bytes. Whoever sent the most of them loses the oldest first, so
// that one gateway cannot push out what others sent. Not safe for concurrent
// use.
type hold struct {
	maxCount, maxBytes int

	held    map[stardust.BlockID]*heldBlock
	waiting map[stardust.BlockID][]*heldBlock // missing parent to those that wait for it, oldest first
	parents map[stardust.BlockID]int          // of held blocks, missing or not: by how many
	order   []*heldBlock                      // oldest first; entries that left are nil
	left    int                               // nil entries in order
	bytes   int
	sent    map[string]int // bytes held by the gateway that sent them
	dropped uint64
}

type heldBlock struct {
	job     *job
	missing []stardust.BlockID
}

func newHold(maxCount, maxBytes int) *hold {
	return &hold{
		maxCount: maxCount, maxBytes: maxBytes,
		held:    map[stardust.BlockID]*heldBlock{},
		waiting: map[stardust.BlockID][]*heldBlock{},
		parents: map[stardust.BlockID]int{},
		sent:    map[string]int{},
	}
}

// add holds the job until all of its missing parents were released. What is
// held already stays as it is. The oldest blocks make room.
func (h *hold) add(j *job, missing []stardust.BlockID) {
	if _, ok := h.held[j.id]; ok {
		return
	}
	for len(h.held) > 0 && (len(h.held) >= h.maxCount || h.bytes+len(j.raw) > h.maxBytes) {
		h.dropOldest()
	}
	j.raw = slices.Clone(j.raw) // it is part of a long message
	b := &heldBlock{job: j, missing: missing}
	h.held[j.id] = b
	h.bytes += len(j.raw)
	h.sent[j.from] += len(j.raw)
	h.order = append(h.order, b)
	for _, parent := range j.block.Parents {
		h.parents[parent]++
	}
	for _, parent := range missing {
		h.waiting[parent] = append(h.waiting[parent], b)
	}
}

// release tells that the block with this id is solid and returns the jobs that
// missed nothing else, oldest first. They are held no longer.
func (h *hold) release(id stardust.BlockID) (ready []*job) {
	waiting := h.waiting[id]
	delete(h.waiting, id)
	for _, b := range waiting {
		b.missing = slices.DeleteFunc(b.missing, func(m stardust.BlockID) bool { return m == id })
		if len(b.missing) == 0 {
			h.forget(b)
			ready = append(ready, b.job)
		}
	}
	return ready
}

// wants reports whether a held block waits for the one with this id.
func (h *hold) wants(id stardust.BlockID) bool { return len(h.waiting[id]) > 0 }

// refers reports whether the block with this id is a parent of a held one.
func (h *hold) refers(id stardust.BlockID) bool { return h.parents[id] > 0 }

// missed returns what held blocks wait for.
func (h *hold) missed() []stardust.BlockID { return slices.Collect(maps.Keys(h.waiting)) }

// dropOldest drops the oldest block of the gateway that holds the most bytes.
func (h *hold) dropOldest() {
	most, from := -1, ""
	for name, n := range h.sent {
		if n > most || n == most && name < from {
			most, from = n, name
		}
	}
	i := slices.IndexFunc(h.order, func(b *heldBlock) bool { return b != nil && b.job.from == from })
	b := h.order[i]
	for _, parent := range b.missing {
		rest := slices.DeleteFunc(h.waiting[parent], func(w *heldBlock) bool { return w == b })
		if len(rest) == 0 {
			delete(h.waiting, parent)
		} else {
			h.waiting[parent] = rest
		}
	}
	h.forget(b)
	h.dropped++
}

// forget takes the block out of held and order. The order is rewritten once
// half of it is gone.
func (h *hold) forget(b *heldBlock) {
	delete(h.held, b.job.id)
	for _, parent := range b.job.block.Parents {
		if h.parents[parent]--; h.parents[parent] == 0 {
			delete(h.parents, parent)
		}
	}
	h.bytes -= len(b.job.raw)
	if h.sent[b.job.from] -= len(b.job.raw); h.sent[b.job.from] == 0 {
		delete(h.sent, b.job.from)
	}
	if i := slices.Index(h.order, b); i == 0 {
		h.order = h.order[1:]
	} else {
		h.order[i] = nil
		h.left++
	}
	for len(h.order) > 0 && h.order[0] == nil {
		h.order = h.order[1:]
		h.left--
	}
	if h.left > len(h.order)/2 {
		h.order = slices.DeleteFunc(h.order, func(b *heldBlock) bool { return b == nil })
		h.left = 0
	}
}
