package protocols

import (
	"maps"
	"sync"
)

// maxCounted bounds the devices whose duplicates are counted apart.
const maxCounted = 1000

// duplicates counts, per device, the messages that were answered again and
// not stored again (contract, "MQTT"). The zero value is ready; its methods
// may be called concurrently.
type duplicates struct {
	mu sync.Mutex // guards by
	by map[string]uint64
}

// add counts one; of a device beyond maxCounted under the name "".
func (d *duplicates) add(device string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by == nil {
		d.by = make(map[string]uint64)
	}
	if _, ok := d.by[device]; !ok && len(d.by) >= maxCounted {
		device = ""
	}
	d.by[device]++
}

func (d *duplicates) all() map[string]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.by)
}
