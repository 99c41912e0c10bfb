package peer

import (
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// A roster is who is a member in one epoch. It is never changed.
type roster struct {
	others     []*member         // the members but this gateway, in the order of the network file
	says       []network.Gateway // what the file says of each of them
	byKey      map[network.PublicKey]*member
	signatures float64 // of one gateway in a second
	votes      float64 // of one gateway in a second, in the gossip of one member
	needed     uint64  // weight of the others that makes a quorum with this gateway, at least one of them
	isMember   bool    // this gateway is a member itself

	// Members that have left with this epoch are answered until they can know
	// that, and not heard.
	left  map[network.PublicKey]*member
	until time.Time
}

// leavingFor is how long they are answered.
const leavingFor = 10 * time.Second

// newRoster returns the roster of a file, with the members of the one before
// that stay.
func newRoster(file *network.File, own network.PublicKey, before *roster) *roster {
	r := &roster{left: map[network.PublicKey]*member{}, byKey: map[network.PublicKey]*member{}, votes: votesRate(file), signatures: signaturesRate(file)}
	needed := file.Quorum()
	for _, g := range file.Gateways {
		if g.PublicKey == own {
			r.isMember, needed = true, needed-min(needed, uint64(g.Weight))
			continue
		}
		m := before.byKey[g.PublicKey]
		if m == nil || m.Name != g.Name {
			m = newMember(g)
		}
		r.others, r.says = append(r.others, m), append(r.says, g)
		r.byKey[g.PublicKey] = m
	}
	for key, m := range before.byKey {
		if r.byKey[key] == nil && key != own {
			r.left[key] = m
		}
	}
	r.until, r.needed = time.Now().Add(leavingFor), max(needed, 1)
	return r
}

// sender returns the member that a frame names, nil for one that is not taken.
func (r *roster) sender(f frame, now time.Time) *member {
	m := r.byKey[f.sender]
	if m == nil && f.kind.request() && now.Before(r.until) {
		m = r.left[f.sender]
	}
	return m
}

// has reports whether m is a member.
func (r *roster) has(m *member) bool { return m != nil && r.byKey[m.PublicKey] == m }

// weigh returns the weight of those of the others that f is true for.
func (r *roster) weigh(f func(*member) bool) (weight uint64) {
	for i, m := range r.others {
		if f(m) {
			weight += uint64(r.says[i].Weight)
		}
	}
	return weight
}

// SetNetwork makes the members of file, which is a later epoch of the network,
// the ones to exchange blocks with. Those that stay under their name keep their
// standing and how far they were followed. Former members are not heard from now on;
// what they ask is answered for ten seconds more, so that they get the blocks
// that end their membership. A gateway that is no member any more goes on listening, but the
// others do not hear it.
func (p *Peers) SetNetwork(file *network.File) {
	p.changing.Lock()
	defer p.changing.Unlock()
	r := newRoster(file, p.signer.public, p.roster.Load())
	p.roster.Store(r)
	p.synced.keep(r)
	signal(p.news)
}

// others returns the members but this gateway.
func (p *Peers) others() []*member { return p.roster.Load().others }
