package gateway

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway/admin"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/api"
)

// Bounds of what one client may hand in besides its rate.
const (
	budgetBurst    = 10              // blocks at once after a pause
	budgetPatience = 5 * time.Second // a block that comes too early waits so long, and no longer
	budgetClients  = 4096            // clients that are remembered; more share the place of one
)

// A budget bounds the blocks that clients without the admin token hand in: the
// farm finds nonces for them, and the disk keeps them. A client is an IPv4
// address or an IPv6 /64. What comes a little too early waits, because client
// libraries do not come again.
type budget struct {
	every time.Duration // between two blocks on average; 0: no bound
	room  func() error  // why the replica has no room for blocks of others, or nil

	mu      sync.Mutex
	clients map[netip.Prefix]time.Time // when the next block of each is due, did they come evenly
}

func newBudget(r Rate, room func() error) *budget {
	return &budget{every: r.every(), room: room, clients: map[netip.Prefix]time.Time{}}
}

// enter waits until a block of remote may be taken in. The error is an
// [api.TooManyError], or that of room or of ctx.
func (b *budget) enter(ctx context.Context, remote string) error {
	if err := b.room(); err != nil {
		return err
	}
	wait, err := b.spend(admin.SourceOf(remote), time.Now())
	if err != nil || wait <= 0 {
		return err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spend takes a block from the client's budget and returns after what wait it
// may be looked at.
func (b *budget) spend(from netip.Prefix, now time.Time) (wait time.Duration, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	from = b.place(from, now)
	due := b.clients[from]
	if due.Before(now) {
		due = now
	}
	wait = due.Sub(now) - (budgetBurst-1)*b.every
	if wait > budgetPatience {
		return 0, &api.TooManyError{Why: fmt.Sprintf("one in %v on average", b.every), After: wait - budgetPatience}
	}
	b.clients[from] = due.Add(b.every)
	return wait, nil
}

// place returns where a client's budget is kept. The caller holds mu.
func (b *budget) place(from netip.Prefix, now time.Time) netip.Prefix {
	if _, known := b.clients[from]; known || len(b.clients) < budgetClients {
		return from
	}
	for p, due := range b.clients {
		if !due.After(now) { // it has its whole burst again
			delete(b.clients, p)
		}
	}
	if len(b.clients) < budgetClients {
		return from
	}
	return netip.Prefix{}
}

// siteShare is the part of the ledger's cap that blocks of others never take:
// one part in so many.
const siteShare = 2

// roomCheck is how often the size of the replica is looked at for them.
const roomCheck = time.Second

// guestRoom returns a function that says whether blocks of others still leave
// the site its share of the ledger's most bytes.
func guestRoom(most int64, used func() (int64, error)) func() error {
	var mu sync.Mutex
	var looked time.Time
	var last error
	return func() error {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(looked) >= roomCheck {
			n, err := used()
			if looked, last = now, err; err == nil && n > most/siteShare {
				last = fmt.Errorf("%w: the ledger is full but for what is kept for the site", ledger.ErrBusy)
			}
		}
		return last
	}
}
