package archive

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// ByID returns the reading of a gateway with this number. Should two journals
// of the gateway have given it, the one whose block came first is returned.
// The error wraps [ErrNotFound] when none is indexed or its block is not kept
// any more.
func (a *Archive) ByID(gateway string, seq uint64) (Item, error) {
	found, err := a.byID(gateway, seq)
	switch {
	case err != nil:
		return Item{}, fmt.Errorf("reading %s/%d: %w", gateway, seq, err)
	case found == nil:
		return Item{}, fmt.Errorf("reading %s/%d: %w", gateway, seq, ErrNotFound)
	}
	return *found, nil
}

func (a *Archive) byID(gateway string, seq uint64) (found *Item, err error) {
	a.mu.RLock()
	keys := a.gateways[gateway].keys
	a.mu.RUnlock()
	for _, key := range keys {
		var positions []uint64
		err := scan(a.index, bucketPrefix(key[:], seq>>bucketBits), nil, func(k, v []byte) (bool, error) {
			_, _, c, err := decodeClaim(k, v)
			if _, ok := indexOf(c.runs, seq); ok {
				positions = append(positions, c.position)
			}
			return true, err
		})
		if err != nil {
			return nil, err
		}
		for _, position := range positions {
			if found != nil && found.Position < position {
				continue
			}
			o, err := a.open(position)
			if err != nil {
				return nil, err
			}
			if o == nil || o.Gateway != gateway { // the key had another name then
				continue
			}
			r, ok := readingOf(o.Batch, seq)
			if !ok {
				return nil, damaged("block %v at %d does not hold number %d", o.id, position, seq)
			}
			found = &Item{gateway, r, o.id, position}
		}
	}
	return found, nil
}

// Latest returns the newest reading of every name of a gateway's device, or of
// each of its devices when device is empty, in the order of device and name;
// with gateway * those of all gateways but without, in the order of their names.
// limit 0 means 1000, the most is [MaxLimit]. To go on, pass next as after; it
// is empty at the end. The newest is that with the highest number of the
// gateway's last journal, not of the highest time. Readings whose blocks are not kept any more are left
// out. The error wraps [ErrCursor] when after is not such a next.
func (a *Archive) Latest(gateway, without, device, after string, limit int) (items []Item, next string, err error) {
	limit = pageSize(limit)
	prefix := []byte{kindLast}
	if gateway != "*" {
		if prefix = lastPrefix(gateway); device != "" {
			prefix = lastKey(gateway, device, "")
		}
	}
	from, err := startAfter(after, prefix)
	if err != nil {
		return nil, "", err
	}
	seen := 0
	var lastSeen []byte
	err = scan(a.index, prefix, from, func(key, value []byte) (bool, error) {
		if len(items) == limit || seen == maxParts {
			next = base64.RawURLEncoding.EncodeToString(lastSeen)
			return false, nil
		}
		seen++
		lastSeen = append(lastSeen[:0], key...)
		parts := strings.SplitN(string(key[1:]), "\x00", 3)
		l, err := decodeLast(key, value)
		if len(parts) != 3 && err == nil {
			err = damaged("last value %x", key)
		}
		if err != nil || parts[0] == without || device != "" && parts[1] != device {
			return true, err
		}
		r, o, err := a.last(parts, l)
		if o != nil {
			items = append(items, Item{parts[0], r, o.id, o.position})
		}
		return true, err
	})
	if err != nil {
		return nil, "", fmt.Errorf("latest: %w", err)
	}
	return items, next, nil
}

// last opens the batch that an entry l names.
func (a *Archive) last(name []string, l last) (r reading.Reading, o *opened, err error) {
	o, err = a.open(l.position)
	if o == nil || err != nil {
		return r, nil, err
	}
	r, ok := readingOf(o.Batch, l.seq)
	if !ok || o.Gateway != name[0] || r.Device != name[1] || r.Name != name[2] {
		return r, nil, damaged("block %v at %d does not hold the last value of %q", o.id, l.position, name)
	}
	return r, o, nil
}

// startAfter returns the key behind the one that a cursor of Latest names.
func startAfter(after string, prefix []byte) ([]byte, error) {
	if after == "" {
		return nil, nil
	}
	const most = 1 + 32 + 1 + reading.MaxDevice + 1 + reading.MaxName
	key, err := base64.RawURLEncoding.Strict().DecodeString(after)
	if err != nil || len(key) > most || !bytes.HasPrefix(key, prefix) || bytes.Count(key, []byte{0}) != 2 {
		return nil, fmt.Errorf("latest after %.100q: %w", after, ErrCursor)
	}
	return append(key, 0), nil
}

// Runs yields, for the journals of a gateway with this key, which numbers stand
// in which block and count, in ascending order of the thousand that the numbers
// are of; a block comes once for each thousand. The
// block is the zero id when it is not kept any more. Runs yields what is
// indexed; see [Stats] for how far that is.
func (a *Archive) Runs(key ed25519.PublicKey, yield func(runs [][2]uint64, block stardust.BlockID) bool) error {
	var at uint64
	var id stardust.BlockID
	err := scan(a.index, append([]byte{kindNumbers}, key...), nil, func(k, v []byte) (bool, error) {
		_, _, c, err := decodeClaim(k, v)
		if err != nil {
			return true, err
		}
		if at != c.position {
			if id, _, err = a.block(c.position); err != nil {
				return false, err
			}
			at = c.position
		}
		return yield(c.runs, id), nil
	})
	if err != nil {
		return fmt.Errorf("numbers of the gateway with key %x: %w", key, err)
	}
	return nil
}

// Highest returns the highest number that counts of a key, over all journals
// that signed with it, and whether there is any: a gateway whose journal was
// lost or set back must number above it. Like Runs it knows what is indexed,
// also when the block is not kept any more. It reads the last thousand numbers
// only.
func (a *Archive) Highest(key ed25519.PublicKey) (seq uint64, ok bool, err error) {
	var last uint64 // thousand
	failed := a.index.Scan(append([]byte{kindNumbers}, key...), nil, true, func(k, v []byte) bool {
		bucket, _, c, bad := decodeClaim(k, v)
		if err = bad; err != nil || ok && bucket != last {
			return false
		}
		last, seq, ok = bucket, max(seq, c.runs[len(c.runs)-1][1]), true
		return true
	})
	if err = cmp.Or(err, failed); err != nil {
		return 0, false, fmt.Errorf("highest number of the gateway with key %x: %w", key, err)
	}
	return seq, ok, nil
}
