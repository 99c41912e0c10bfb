package store

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// An acting gateway is one of a network in memory, in which blocks arrive at
// once and time is a number.
type acting struct {
	key     ed25519.PrivateKey
	state   *consensus.State
	issuer  *consensus.Issuer
	ordered map[stardust.BlockID]consensus.Ordered
	wake    time.Time
}

func (a *acting) Ordered(id stardust.BlockID) (o consensus.Ordered, found bool, err error) {
	o, found = a.ordered[id]
	return o, found, nil
}

func (a *acting) Apply(_, _ uint32, _ stardust.BlockID) (bool, error) { return false, nil }
func (a *acting) Root() ([32]byte, error)                             { return stardust.MerkleRoot(nil), nil }

// A stage has gateways act and stores what the first of them gets to know.
type stage struct {
	t       testing.TB
	file    *network.File
	all     []*acting
	now     time.Time
	store   *Store
	claims  map[stardust.BlockID]consensus.Ordered // as they were when they were stored
	change  ledger.Change
	batches []stardust.BlockID
	votes   int
	last    uint32
}

func newStage(t testing.TB, n int, s *Store) *stage {
	st := &stage{t: t, now: time.Unix(1_790_000_000, 0), store: s, claims: map[stardust.BlockID]consensus.Ordered{}}
	var gateways []network.Gateway
	for i := range n {
		key := ed25519.NewKeyFromSeed(append(make([]byte, 31), byte(i+1)))
		st.all = append(st.all, &acting{key: key, ordered: map[stardust.BlockID]consensus.Ordered{}})
		gateways = append(gateways, network.Gateway{Name: fmt.Sprint("g", i), PublicKey: network.PublicKey(key.Public().(ed25519.PublicKey)), Weight: 1})
	}
	st.file = network.Create("test", gateways)
	for _, a := range st.all {
		var err error
		if a.state, err = consensus.New([]*network.File{st.file}, consensus.Position{}, a, a, nil); err != nil {
			t.Fatal(err)
		}
		a.issuer = consensus.NewIssuer(a.state, network.PublicKey(a.key.Public().(ed25519.PublicKey)), consensus.Durable{})
		for i := range n {
			a.issuer.Report(i, 0, 0)
		}
	}
	st.change.Networks = []*network.File{st.file}
	return st
}

// add has everybody get a block.
func (st *stage) add(b *stardust.Block, runs [][2]uint64) stardust.BlockID {
	raw, err := b.AppendBinary(nil)
	if err != nil {
		st.t.Fatal(err)
	}
	id := stardust.IDOf(raw)
	st.change.Entries = append(st.change.Entries, ledger.Entry{ID: id, Block: b, Raw: raw, Attached: st.now, Runs: runs})
	for i, a := range st.all {
		block, err := a.state.Epochs().Stored(id, b)
		if err != nil {
			st.t.Fatal(err)
		}
		res, err := a.state.Add(block, st.now)
		if err != nil {
			st.t.Fatal(err)
		}
		for _, m := range res.Milestones {
			for _, e := range m.Blocks {
				a.ordered[e.ID] = consensus.Ordered{Milestone: m.Index}
			}
			if i == 0 {
				st.milestone(m)
			}
		}
		a.wake = st.now
	}
	o, err := consensus.OrderedBlock(b, 0)
	if err != nil {
		st.t.Fatal(err)
	}
	st.claims[id] = o
	return id
}

func (st *stage) milestone(m consensus.Milestone) {
	cert := ledger.Certificate{Index: m.Index}
	for _, g := range st.file.Gateways { // by ascending keys
		for _, a := range st.all {
			if g.PublicKey == network.PublicKey(a.key.Public().(ed25519.PublicKey)) && uint64(len(cert.Signatures)) < st.file.Quorum() {
				cert.Signatures = append(cert.Signatures, consensus.SignMilestone(a.key, m.Index, m.ID()))
			}
		}
	}
	st.change.Milestones = append(st.change.Milestones, m)
	st.change.Certificates = append(st.change.Certificates, cert)
	st.change.Certified, st.last = m.Index, m.Index
	for _, e := range m.Blocks {
		o := st.claims[e.ID]
		o.Milestone = m.Index
		st.claims[e.ID] = o
		for _, a := range st.all {
			a.ordered[e.ID] = o
		}
	}
}

// batch attaches a block with a reading.
func (st *stage) batch(size int) {
	n := len(st.batches)
	tips := st.all[0].state.Tips()
	parents := append([]stardust.BlockID{}, tips[:min(2, len(tips))]...)
	if len(parents) == 1 && st.last > 0 {
		parents = append(parents, st.all[0].state.Position().Root)
	}
	data := append(binary.BigEndian.AppendUint64(nil, uint64(n)), make([]byte, size)...)
	b := &stardust.Block{
		Version: stardust.ProtocolVersion, Parents: stardust.SortParents(parents),
		Payload: &stardust.TaggedData{Tag: []byte(fmt.Sprint("hedgerow/g", n%len(st.all))), Data: data},
	}
	st.batches = append(st.batches, st.add(b, [][2]uint64{{uint64(n), uint64(n)}}))
}

// until has the gateways vote up to a time.
func (st *stage) until(end time.Time) {
	for {
		next := end
		for i, a := range st.all {
			if a.wake.After(st.now) {
				if a.wake.Before(next) {
					next = a.wake
				}
				continue
			}
			step, err := a.issuer.Try(st.now)
			if err != nil {
				st.t.Fatal(err)
			}
			a.wake = step.Wake
			if a.wake.IsZero() {
				a.wake = end.Add(time.Hour)
			}
			if step.Draft == nil {
				if a.wake.Before(next) {
					next = a.wake
				}
				continue
			}
			b := step.Draft.Sign(a.key, st.file.GenesisHash(), uint64(st.now.UnixMilli()))
			raw, _ := b.AppendBinary(nil)
			own := a.issuer.Issued(step.Draft, stardust.IDOf(raw), st.now)
			if i == 0 {
				st.change.Own = &own
			}
			st.votes++
			st.add(b, nil)
			next = st.now
		}
		if next.Equal(end) && !st.now.Before(end) {
			return
		}
		st.now = next
		if len(st.change.Entries) > 200 {
			st.commit()
		}
	}
}

func (st *stage) commit() {
	st.t.Helper()
	if err := st.store.Commit(st.change); err != nil {
		st.t.Fatal(err)
	}
	st.change = ledger.Change{}
}

// play has n batches come ten seconds apart.
func (st *stage) play(n, size int) {
	for range n {
		st.batch(size)
		st.until(st.now.Add(10 * time.Second))
	}
	st.commit()
}

// prune makes stubs of what takes says, of all milestones up to one.
func (st *stage) prune(reach func(*ledger.Reached) *ledger.Reach, to uint32, takes func(*stardust.Block) bool) {
	st.t.Helper()
	r, err := st.store.Pruned()
	if err != nil {
		st.t.Fatal(err)
	}
	p := ledger.Pruning{Reached: r}
	for at := reach(&p.Reached); at.Milestone < to; {
		left := false
		if err := st.store.Bodies(at.Milestone+1, 0, func(e consensus.Entry, raw []byte) bool {
			if raw == nil {
				return true
			}
			b, err := stardust.ParseBlock(raw)
			if err != nil {
				st.t.Fatal(err)
			}
			if takes(b) {
				p.Bodies = append(p.Bodies, ledger.PrunedBody{ID: e.ID, Block: b})
			} else {
				left = true
			}
			return true
		}); err != nil {
			st.t.Fatal(err)
		}
		at.Milestone++
		if !left {
			p.Certificates = append(p.Certificates, at.Milestone)
		}
		if len(p.Bodies) > 200 || at.Milestone == to {
			if err := st.store.Prune(p); err != nil {
				st.t.Fatal(err)
			}
			p.Bodies, p.Certificates = nil, nil
		}
	}
}

func (st *stage) pruneVotes(to uint32) {
	st.t.Helper()
	st.prune(func(r *ledger.Reached) *ledger.Reach { return &r.Votes }, to, isVote)
}

func (st *stage) pruneBlocks(to uint32) {
	st.t.Helper()
	for _, of := range []func(*ledger.Reached) *ledger.Reach{
		func(r *ledger.Reached) *ledger.Reach { return &r.Guests },
		func(r *ledger.Reached) *ledger.Reach { return &r.Blocks },
	} {
		st.prune(of, to, func(b *stardust.Block) bool { return !isVote(b) })
	}
}

func isVote(b *stardust.Block) bool { return consensus.IsVote(b.Payload) }

// forget forgets the blocks of all milestones up to one.
func (st *stage) forget(to uint32) {
	st.t.Helper()
	r, err := st.store.Pruned()
	if err != nil {
		st.t.Fatal(err)
	}
	for r.Stubs.Milestone < to {
		r.Stubs.Milestone++
		entries, err := st.store.MilestoneBlocks(r.Stubs.Milestone)
		if err != nil {
			st.t.Fatal(err)
		}
		p := ledger.Pruning{Lists: []uint32{r.Stubs.Milestone}, Reached: r}
		if r.Stubs.Milestone%10 != 0 {
			p.Milestones = p.Lists
		}
		for _, e := range entries {
			p.Stubs = append(p.Stubs, e.ID)
		}
		if err := st.store.Prune(p); err != nil {
			st.t.Fatal(err)
		}
	}
}
