package mqtt

import (
	"sync"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// An exchange is a QoS 2 publish that was taken in and not yet released: its
// packet id is open until PUBREL, and every PUBLISH with that id repeats it.
type exchange struct {
	receipt *batching.Receipt // nil when nothing had to be stored
}

// openIDs are the open packet ids of one client. They are its session's, not
// its connection's: a client that lost the PUBREC sends PUBLISH again on its
// next connection.
type openIDs struct {
	mu  sync.Mutex
	ids map[uint16]*exchange
}

func (o *openIDs) get(id uint16) *exchange {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ids[id]
}

// len returns how many ids are open.
func (o *openIDs) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.ids)
}

// add opens an id.
func (o *openIDs) add(id uint16, x *exchange) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ids[id] = x
}

// release closes an id at PUBREL and reports whether it was open.
func (o *openIDs) release(id uint16) bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.ids[id]
	delete(o.ids, id)
	return ok
}

// forget closes an id whose publish failed, so that it can be tried again.
func (o *openIDs) forget(id uint16, x *exchange) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ids[id] == x {
		delete(o.ids, id)
	}
}

// receiving holds the open packet ids of every session that ever published at
// QoS 2.
type receiving struct {
	mu sync.Mutex
	of map[string]*openIDs // by client id
}

// find returns the open ids of a client, or nil.
func (r *receiving) find(client string) *openIDs {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of[client]
}

// obtain returns the open ids of a client, made if it has none.
func (r *receiving) obtain(client string) *openIDs {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.of[client]
	if o == nil {
		if r.of == nil {
			r.of = make(map[string]*openIDs)
		}
		o = &openIDs{ids: make(map[uint16]*exchange)}
		r.of[client] = o
	}
	return o
}

// drop ends a session's state; o is nil for whatever the client has.
func (r *receiving) drop(client string, o *openIDs) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o == nil || r.of[client] == o {
		delete(r.of, client)
	}
}
