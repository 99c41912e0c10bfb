package mqtt

import (
	"strings"
	"sync"
	"sync/atomic"
)

// interest knows who subscribes to event topics. The library's index would
// tell as well, but not within nanoseconds, and not by which filter.
type interest struct {
	filters atomic.Int64 // of all clients
	guests  atomic.Int64 // of them, of guests

	mu    sync.RWMutex
	of    map[string]map[string]struct{} // filters by client id
	plain map[string]int                 // how many clients name this very topic
	wild  int                            // filters with wildcards
}

// add takes in a filter that a client has from now on.
func (in *interest) add(client, filter string, guest bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.of == nil {
		in.of, in.plain = make(map[string]map[string]struct{}), make(map[string]int)
	}
	mine := in.of[client]
	if _, had := mine[filter]; had {
		return
	}
	if mine == nil {
		mine = make(map[string]struct{})
		in.of[client] = mine
	}
	mine[filter] = struct{}{}
	in.count(filter, guest, 1)
}

// remove takes out a filter that a client may have had.
func (in *interest) remove(client, filter string, guest bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	mine := in.of[client]
	if _, had := mine[filter]; !had {
		return
	}
	if delete(mine, filter); len(mine) == 0 {
		delete(in.of, client)
	}
	in.count(filter, guest, -1)
}

// count adds n, 1 or -1, to the figures. in.mu is held.
func (in *interest) count(filter string, guest bool, n int) {
	in.filters.Add(int64(n))
	if guest {
		in.guests.Add(int64(n))
	}
	if strings.ContainsAny(filter, "+#") {
		in.wild += n
	} else if in.plain[filter] += n; in.plain[filter] == 0 {
		delete(in.plain, filter)
	}
}

// named tells whether somebody names this very topic, and whether there are
// filters with wildcards, which may match it.
func (in *interest) named(topic string) (named, wild bool) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return in.plain[topic] > 0, in.wild > 0
}

// has tells whether one of a client's event filters matches a topic.
func (in *interest) has(client, topic string) bool {
	in.mu.RLock()
	defer in.mu.RUnlock()
	mine := in.of[client]
	if _, ok := mine[topic]; ok {
		return true
	}
	for filter := range mine {
		if matches(filter, topic) {
			return true
		}
	}
	return false
}

// matches tells whether a valid filter matches a topic (MQTT 4.7).
func matches(filter, topic string) bool {
	for {
		f, moreF, inF := strings.Cut(filter, "/")
		t, moreT, inT := strings.Cut(topic, "/")
		switch {
		case f == "#":
			return true
		case f != "+" && f != t:
			return false
		case !inT:
			return !inF || moreF == "#" // a/# matches a as well
		case !inF:
			return false
		}
		filter, topic = moreF, moreT
	}
}
