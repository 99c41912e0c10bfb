package batching

import "time"

const (
	companyMost = 64                    // at which one commit is shared well, and waiting would leave the disk idle
	companyRare = 20 * time.Millisecond // an interval of this or more
	companyTry  = 256                   // so many commits after which one more packet is waited for
	companyOver = 4                     // so many groups the interval is averaged over
)

// company decides how many packets a commit waits for. A commit writes a whole
// block of the disk, whatever is in it: under load it should be shared.
//
// As many as came to the last group are waited for, up to the linger, because
// clients that wait for their answers before they go on will come again
// together, and no more will. Whether more would come shows only if one waits
// for them: that is tried now and then, and again at once where it went well.
// The zero company waits for nobody.
type company struct {
	enough   int           // packets of the last group
	interval time.Duration // between packets, averaged
	trying   bool          // for one more
	groups   int           // until the next try
}

// await returns at how many packets a group is committed, and how long after
// its first one in any case.
func (c *company) await(linger time.Duration) (enough int, most time.Duration) {
	c.trying = false
	if c.enough == 0 || 2*c.interval > linger { // hardly anybody would come
		return 1, 0
	}
	c.trying = c.groups <= 0 && c.enough < companyMost
	if !c.trying {
		return c.enough, linger
	}
	// Three intervals more than it takes them on average.
	return c.enough + 1, min(linger, time.Duration(c.enough+3)*c.interval)
}

// came takes in that a group of n packets was committed, so long after the
// one before.
func (c *company) came(n int, after time.Duration) {
	per := min(after/time.Duration(n), companyRare) // however long nothing came
	if c.enough == 0 {
		c.interval = companyRare
	}
	c.interval += (per - c.interval) / companyOver
	c.groups--
	if c.trying {
		c.groups = companyTry
		if n > c.enough {
			c.groups = 0
		}
	}
	c.enough = min(n, companyMost)
}
