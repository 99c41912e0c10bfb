package peer

import (
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
}

// newRoster returns the roster of a file, with the members of the one before
// that stay.
func newRoster(file *network.File, own network.PublicKey, before *roster) *roster {
	r := &roster{byKey: map[network.PublicKey]*member{}, votes: votesRate(file), signatures: signaturesRate(file)}
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
	r.needed = max(needed, 1)
	return r
}

// has reports whether m is a member.
func (r *roster) has(m *member) bool { return r.byKey[m.PublicKey] == m }

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
// standing and how far they were followed; frames of former members are refused
// from now on. A gateway that is no member any more goes on listening, but the
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
