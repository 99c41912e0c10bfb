package batching

// A Receipt tells a front end when its packet is durable. All receipts of a
// stage are resolved in the order of submission; only that of a packet which
// was stored before is resolved at once.
type Receipt struct {
	done  <-chan struct{} // closed by whoever resolves the receipt; a group's receipts share it
	first uint64
	err   error
	of    *Receipt // the earlier packet's, for a repetition: its answer is this one's
}

// NewReceipt returns an unresolved receipt and the function that resolves it,
// to be called once.
func NewReceipt() (r *Receipt, resolve func(first uint64, err error)) {
	done := make(chan struct{})
	r = &Receipt{done: done}
	return r, func(first uint64, err error) {
		r.first, r.err = first, err
		close(done)
	}
}

// Again returns the receipt of a repetition of r's packet: it is resolved
// together with r, in the same way, and its Duplicate is true.
func (r *Receipt) Again() *Receipt { return &Receipt{done: r.done, of: r} }

// Duplicate reports that the packet is the repetition of an earlier one, to
// which the receipt belongs: it is answered like that one, but was not stored
// again and is no news to anybody. It may be called at any time.
func (r *Receipt) Duplicate() bool { return r.of != nil }

// Done is closed when the packet is durable or refused.
func (r *Receipt) Done() <-chan struct{} { return r.done }

// Err returns nil when the packet is on stable storage. The error wraps
// [ErrBusy] or [ErrClosed] when it was not stored and may be sent again. It
// must not be called before Done is closed.
func (r *Receipt) Err() error {
	if r.of != nil {
		return r.of.Err()
	}
	return r.err
}

// First returns the sequence number of the packet's first reading; the others
// follow without gap. It must not be called before Done is closed.
func (r *Receipt) First() uint64 {
	if r.of != nil {
		return r.of.First()
	}
	return r.first
}
