package archive

import (
	"bytes"
	"container/list"
	"fmt"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// maxCache bounds the memory of opened batches: those of 100 readings take
// about 30 kB each.
const maxCache = 4 << 20

// An opened is a batch and its block.
type opened struct {
	*envelope.Batch
	id       stardust.BlockID
	position uint64
}

// size estimates the memory it takes.
func (o *opened) size() int {
	n := 512
	for _, r := range o.Records {
		n += 256 + 2*len(r)
	}
	return n
}

// A cache keeps the opened batches that were used last.
type cache struct {
	mu    sync.Mutex // guards what follows
	most  int
	bytes int
	order *list.List // of *opened, the one used last in front
	at    map[uint64]*list.Element
}

func newCache(most int) *cache {
	return &cache{most: most, order: list.New(), at: map[uint64]*list.Element{}}
}

func (c *cache) get(position uint64) *opened {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.at[position]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*opened)
}

func (c *cache) put(o *opened) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at[o.position] != nil {
		return // by another query meanwhile
	}
	c.at[o.position] = c.order.PushFront(o)
	for c.bytes += o.size(); c.bytes > c.most && c.order.Len() > 1; {
		old := c.order.Remove(c.order.Back()).(*opened)
		delete(c.at, old.position)
		c.bytes -= old.size()
	}
}

// open returns the batch at a position that the index names, nil if its block
// is not kept any more.
func (a *Archive) open(position uint64) (*opened, error) {
	if o := a.cache.get(position); o != nil {
		return o, nil
	}
	id, raw, err := a.block(position)
	if err != nil || raw == nil {
		return nil, err
	}
	name, data, ok := tagged(raw)
	if !ok {
		return nil, damaged("block %v at %d carries no batch", id, position)
	}
	// That the key is the gateway's was checked when the block was indexed.
	b, err := envelope.Open(data, envelope.Expect{Genesis: a.cfg.Genesis, Gateway: name})
	if err != nil {
		return nil, damaged("block %v at %d: %v", id, position, err)
	}
	o := &opened{Batch: b, id: id, position: position}
	a.cache.put(o)
	return o, nil
}

// block returns the block at a position, nil if it is not kept any more.
func (a *Archive) block(position uint64) (id stardust.BlockID, raw []byte, err error) {
	if position == 0 {
		return id, nil, damaged("position 0 of a block")
	}
	err = a.stream.Blocks(position-1, func(at uint64, blockID stardust.BlockID, b []byte, _ time.Time) bool {
		if at == position {
			id, raw = blockID, b
		}
		return false
	})
	if err != nil {
		return id, nil, fmt.Errorf("read block at %d: %w", position, err)
	}
	return id, raw, nil
}

// tagged returns the gateway's name that a block's tag holds and its data.
func tagged(raw []byte) (name string, data []byte, ok bool) {
	b, err := stardust.ParseBlock(raw)
	if err != nil {
		return "", nil, false
	}
	p, ok := b.Payload.(*stardust.TaggedData)
	if !ok {
		return "", nil, false
	}
	rest, ok := bytes.CutPrefix(p.Tag, envelope.Tag(""))
	return string(rest), p.Data, ok
}
