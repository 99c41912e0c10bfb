package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"
)

// jobs bounds the searches in flight, in total and of one client.
type jobs struct {
	most, share int
	client      func(remote string) netip.Prefix

	mu    sync.Mutex
	total int
	of    map[netip.Prefix]int
}

func newJobs(most int, client func(string) netip.Prefix) *jobs {
	j := &jobs{most: most, share: max(1, most/2), client: client, of: map[netip.Prefix]int{}}
	if client == nil {
		j.share, j.client = most, func(string) netip.Prefix { return netip.Prefix{} }
	}
	return j
}

// enter takes a place, which leave gives back, or says why there is none.
func (j *jobs) enter(remote string) (leave func(), err error) {
	who := j.client(remote)
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.total >= j.most:
		return nil, refuse(http.StatusServiceUnavailable, fmt.Sprintf(
			"proof of work for %d other blocks in progress, the most at a time; try again or send a nonce", j.most))
	case j.of[who] >= j.share:
		return nil, refuse(http.StatusServiceUnavailable, fmt.Sprintf(
			"proof of work for %d of your blocks in progress, the most at a time; wait for them or send a nonce", j.share))
	}
	j.total++
	j.of[who]++
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.total--
		if j.of[who]--; j.of[who] == 0 {
			delete(j.of, who)
		}
	}, nil
}
