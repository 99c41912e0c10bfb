package archive

import "hash/fnv"

// A filter is a Bloom filter: it tells what a part of a batch does not hold.
// Any bytes but none are one.
type filter []byte

const (
	filterBits   = 10 // for each element
	filterHashes = 7
)

// newFilter returns the filter of a set of hashes.
func newFilter(hashes map[uint64]bool) filter {
	f := make(filter, (len(hashes)*filterBits+7)/8)
	for h := range hashes {
		for i := range uint64(filterHashes) {
			at := f.bit(h, i)
			f[at/8] |= 1 << (at % 8)
		}
	}
	return f
}

// bit is the i-th that h sets (Kirsch and Mitzenmacher: two hashes make many).
func (f filter) bit(h, i uint64) uint64 {
	return (h>>32 + i*(h&0xffffffff|1)) % (uint64(len(f)) * 8)
}

// may reports whether the element may be in the set; zero may always.
func (f filter) may(h uint64) bool {
	for i := range uint64(filterHashes) {
		if at := f.bit(h, i); h != 0 && f[at/8]&(1<<(at%8)) == 0 {
			return false
		}
	}
	return true
}

// element is the hash of what a query asks for: a device, a name, both, or
// zero for neither.
func element(device, name string) uint64 {
	if device == "" && name == "" {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(device)) // never fails
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(name))
	x := h.Sum64()
	// FNV leaves the upper bits of short texts alike (mixer of MurmurHash3).
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return max(x^x>>33, 1)
}
