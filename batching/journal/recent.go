package journal

import (
	"slices"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// maxRecent bounds the decoded groups that are kept in memory: what batching
// reads is nearly always just written.
const maxRecent = 4 << 20

// recent holds the newest groups without a gap between them.
type recent struct {
	groups []*group
	bytes  int64
}

func (c *recent) add(g *group) {
	c.groups = append(c.groups, g)
	c.bytes += g.size()
	drop := 0
	for ; drop < len(c.groups)-1 && c.bytes > maxRecent; drop++ {
		c.bytes -= c.groups[drop].size()
	}
	if drop > 0 {
		c.groups = slices.Delete(c.groups, 0, drop)
	}
}

func (c *recent) clear() { *c = recent{} }

// read appends readings from number from on until rs has limit. It reports
// false when from lies before what it holds.
func (c *recent) read(rs []reading.Reading, from uint64, limit int) ([]reading.Reading, bool) {
	if len(c.groups) == 0 || from < c.groups[0].first {
		return rs, false
	}
	i, found := slices.BinarySearchFunc(c.groups, from, func(g *group, seq uint64) int {
		switch {
		case g.next() <= seq:
			return -1
		case g.first > seq:
			return 1
		}
		return 0
	})
	if !found {
		return rs, true
	}
	for ; i < len(c.groups) && len(rs) < limit; i++ {
		g := c.groups[i]
		part := g.readings[max(from, g.first)-g.first:]
		rs = append(rs, part[:min(len(part), limit-len(rs))]...)
	}
	return rs, true
}
