package journal

import "slices"

// maxRecent bounds the decoded groups that are kept in memory beyond those
// that are nowhere else to be read: what batching reads is nearly always just
// written.
const maxRecent = 4 << 20

// recent holds the newest groups without a gap between them.
type recent struct {
	groups []*group
	bytes  int64
}

func (c *recent) add(g *group) {
	c.groups = append(c.groups, g)
	c.bytes += g.size()
}

// shrink drops groups that are too many. Those from number stored on stay.
func (c *recent) shrink(stored uint64) {
	if c.bytes <= maxRecent+maxRecent/8 { // now and then is enough
		return
	}
	drop := 0
	for ; drop < len(c.groups)-1 && c.bytes > maxRecent && c.groups[drop].next() <= stored; drop++ {
		c.bytes -= c.groups[drop].size()
	}
	c.groups = slices.Delete(c.groups, 0, drop)
}

// first returns where it begins, or next when it is empty.
func (c *recent) first(next uint64) uint64 {
	if len(c.groups) == 0 {
		return next
	}
	return c.groups[0].first
}

func (c *recent) clear() { *c = recent{} }

// from returns the group that holds number seq, or the first one behind it,
// and those that follow, at most limit; none when seq lies before what it
// holds.
func (c *recent) from(seq uint64, limit int) []*group {
	if len(c.groups) == 0 || seq < c.groups[0].first {
		return nil
	}
	i, _ := slices.BinarySearchFunc(c.groups, seq, func(g *group, seq uint64) int {
		if g.next() <= seq {
			return -1
		}
		return 1
	})
	return slices.Clone(c.groups[i:min(len(c.groups), i+limit)])
}
