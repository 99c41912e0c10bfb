package peer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/peer"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
)

// newVotingSite is a site of gateways that vote fast.
func newVotingSite(t testing.TB, names ...string) *site {
	s := newSite(t, names...)
	s.votes = true
	s.file.RoundInterval, s.file.DataRoundInterval = network.Duration(20*time.Millisecond), network.Duration(20*time.Millisecond)
	return s
}

// attach attaches a block at g and returns its id.
func (g *gateway) attachOne(what string) stardust.BlockID {
	g.t.Helper()
	b := &stardust.Block{
		Version: stardust.ProtocolVersion, Parents: g.Tips(),
		Payload: &stardust.TaggedData{Tag: []byte("hedgerow/" + g.name), Data: []byte(what)},
	}
	for {
		id, err := g.Attach(g.t.Context(), b, nil)
		if !errors.Is(err, ledger.ErrBusy) {
			if err != nil {
				g.t.Fatal(err)
			}
			return id
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// grow has g attach blocks until there are so many milestones.
func (g *gateway) grow(milestones uint32) (ids []stardust.BlockID) {
	g.t.Helper()
	for end := time.Now().Add(60 * time.Second); g.Agreed().Milestone < milestones; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatalf("%s has come to %+v only", g.name, g.Agreed())
		}
		ids = append(ids, g.attachOne(fmt.Sprint(len(ids), time.Now().UnixNano())))
	}
	return ids
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// certifiedAt waits until blocks are certified at a gateway.
func certifiedAt(t testing.TB, g *gateway, ids ...stardust.BlockID) {
	t.Helper()
	for _, id := range ids {
		await(t, fmt.Sprintf("block %v is certified at %s", id, g.name), func() bool {
			p, err := g.Progress(id)
			if err != nil {
				t.Fatal(err)
			}
			return p.Certified
		})
	}
}

// sameOrders checks that two gateways have the same milestones and would answer
// consensus alike.
func sameOrders(t testing.TB, a, b *gateway) {
	t.Helper()
	last := min(a.Agreed().Milestone, b.Agreed().Milestone)
	for index := uint32(1); index <= last; index++ {
		x, err := a.Milestone(index)
		y, other := b.Milestone(index)
		if err != nil || other != nil || x.ID != y.ID {
			t.Fatalf("milestone %d is %x, %v at %s, %x, %v at %s", index, x.ID, err, a.name, y.ID, other, b.name)
		}
		var lists [2][]ledger.Listed
		for i, g := range []*gateway{a, b} {
			if err := g.Listed(index, 0, func(l ledger.Listed) bool {
				l.Raw = nil
				lists[i] = append(lists[i], l)
				return true
			}); err != nil {
				t.Fatal(err)
			}
		}
		if fmt.Sprint(lists[0]) != fmt.Sprint(lists[1]) {
			t.Errorf("milestone %d orders %v at %s, %v at %s", index, lists[0], a.name, lists[1], b.name)
		}
	}
}

// pruneAt attaches blocks, since ages are by the time of milestones, until another
// gateway has pruned beyond a milestone.
func (g *gateway) pruneAt(other *gateway, milestone uint32) {
	g.t.Helper()
	await(g.t, "votes are pruned at "+other.name, func() bool {
		g.attachOne(fmt.Sprint(time.Now()))
		return other.Word().Whole > milestone
	})
}

// handOut returns a milestone as a state sync hands it out.
func (g *gateway) handOut(index uint32) (m ledger.Imported) {
	g.t.Helper()
	got, err := g.Milestone(index)
	if err != nil {
		g.t.Fatal(err)
	}
	m.Essence, m.Signatures = got.Essence, got.Signatures
	if err := g.Listed(index, 0, func(l ledger.Listed) bool {
		m.Blocks = append(m.Blocks, l)
		return true
	}); err != nil {
		g.t.Fatal(err)
	}
	return m
}

// handOutAll returns the milestones from one to another.
func (g *gateway) handOutAll(from, to uint32) (ms []ledger.Imported) {
	for ; from <= to; from++ {
		ms = append(ms, g.handOut(from))
	}
	return ms
}

// bare takes the bodies of a milestone's blocks away.
func bare(m ledger.Imported) ledger.Imported {
	for i := range m.Blocks {
		m.Blocks[i].Raw = nil
	}
	return m
}

func TestAnEmptyReplicaJoinsGatewaysThatHavePruned(t *testing.T) {
	s := newVotingSite(t, "a", "b", "c", "d")
	s.retention = ledger.Retention{Votes: time.Second}
	var all []*gateway
	for _, name := range []string{"a", "b", "c"} {
		all = append(all, s.start(name, t.TempDir(), &shelf{}))
	}
	ids := all[0].grow(60)
	for _, g := range all {
		all[0].pruneAt(g, 20)
	}
	late := s.start("d", t.TempDir(), &shelf{})
	certifiedAt(t, late, ids...)
	sameOrders(t, all[0], late)
	if n := late.Stats().Pruned; n == 0 {
		t.Error("the late gateway has no stubs")
	}
	for _, id := range ids { // payload comes with its bodies
		if _, err := late.Block(id); err != nil {
			t.Error(err)
		}
	}
	certifiedAt(t, all[0], late.attachOne("now I"))
	await(t, "it votes", func() bool { late.attachOne(fmt.Sprint(time.Now())); return late.Stats().Votes > 0 })
	dir := late.dir
	late.stop()
	more := all[0].grow(all[0].Agreed().Milestone + 5)
	again := s.start("d", dir, &shelf{})
	certifiedAt(t, again, more...)
	sameOrders(t, all[0], again)
}

func TestAGatewayThatWasAwayTakesOverWhatTheOthersHavePruned(t *testing.T) {
	s := newVotingSite(t, "a", "b", "c", "d")
	s.retention = ledger.Retention{Votes: time.Second}
	var all []*gateway
	for _, name := range []string{"a", "b", "c", "d"} {
		all = append(all, s.start(name, t.TempDir(), &shelf{}))
	}
	late := all[3]
	certifiedAt(t, late, all[0].grow(10)...)
	dir := late.dir
	late.stop()
	ids := all[0].grow(80)
	for _, g := range all[:3] {
		all[0].pruneAt(g, 40)
	}
	again := s.start("d", dir, &shelf{})
	own := again.attachOne("attached before the others were heard of")
	certifiedAt(t, again, ids...)
	sameOrders(t, all[0], again)
	certifiedAt(t, all[0], own)
}

// A member that has voted has to be believed only as far as the others are.
func TestMilestonesThatDoNotHoldAreRefused(t *testing.T) {
	s := newVotingSite(t, "a")
	a := s.start("a", t.TempDir(), &shelf{})
	certifiedAt(t, a, a.grow(10)...)
	take := a.handOut
	s.votes = false
	b := s.start("a", t.TempDir(), &shelf{}) // the network has one gateway; this one only follows
	for what, change := range map[string]func(*ledger.Import){
		"a block is missing":       func(s *ledger.Import) { s.Milestones[0].Blocks = s.Milestones[0].Blocks[1:] },
		"a block is another":       func(s *ledger.Import) { s.Milestones[0].Blocks[0].ID[0] ^= 1 },
		"a body is another":        func(s *ledger.Import) { s.Milestones[0].Blocks[0].Raw = s.Milestones[1].Blocks[0].Raw },
		"a certificate is another": func(s *ledger.Import) { s.Milestones[0].Signatures = s.Milestones[1].Signatures },
		"a milestone is missing":   func(s *ledger.Import) { s.Milestones = append(s.Milestones[:1:1], s.Milestones[2]) },
		"an inclusion is another":  func(s *ledger.Import) { s.Milestones[0].Blocks[0].Inclusion = consensus.Included },
		"a claim is impossible": func(s *ledger.Import) {
			s.Milestones[0].Blocks[0].Raw = nil
			s.Milestones[0].Blocks[0].Vote, s.Milestones[0].Blocks[0].Claim = true, consensus.Claim{Gateway: 9, Round: 1}
		},
		"the network file is unknown": func(s *ledger.Import) { s.Milestones[0].NetworkHash[0] ^= 1 },
		"the top lies below":          func(s *ledger.Import) { s.Top = 2 },
	} {
		step := &ledger.Import{Milestones: []ledger.Imported{take(1), take(2), take(3)}, Top: 9}
		change(step)
		if err := b.Import(t.Context(), step); !errors.Is(err, ledger.ErrForeign) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := b.Import(t.Context(), &ledger.Import{Milestones: []ledger.Imported{take(1), take(2)}, Top: 3}); err != nil {
		t.Fatal(err)
	}
	step := &ledger.Import{Milestones: []ledger.Imported{bare(take(3))}, Top: 3}
	if err := b.Import(t.Context(), step); !errors.Is(err, ledger.ErrForeign) || !b.Syncing() {
		t.Errorf("the end has no bodies: %v, syncing %v", err, b.Syncing())
	}
	// What held of them goes on after a restart, and until then nothing else.
	dir := b.dir
	b.stop()
	b = s.start("a", dir, &shelf{})
	if !b.Syncing() || b.Word().Milestone != 2 || !errors.Is(b.Ready(), ledger.ErrBusy) {
		t.Errorf("after a restart syncing is %v at %+v, %v", b.Syncing(), b.Word(), b.Ready())
	}
	block := &stardust.Block{Version: stardust.ProtocolVersion, Parents: []stardust.BlockID{{}}}
	if _, err := b.Attach(t.Context(), block, nil); !errors.Is(err, ledger.ErrBusy) {
		t.Errorf("Attach meanwhile: %v", err)
	}
	if err := b.Import(t.Context(), &ledger.Import{Milestones: []ledger.Imported{take(1), take(2), take(3), take(4)}, Top: 4}); err != nil {
		t.Fatal(err)
	}
	if at := b.Agreed(); at.Milestone != 4 || at.Certified != 4 || b.Syncing() {
		t.Errorf("agreed is %+v, syncing %v", at, b.Syncing())
	}
}

// An empty gateway joins one of 100,000 blocks, whose votes are pruned.
func TestJoining100kBlocksTakesLessThanHalfAMinute(t *testing.T) {
	if testing.Short() {
		t.Skip("stores 100,000 blocks")
	}
	s := newVotingSite(t, "a", "b")
	s.file.Gateways[0].Weight = 100 // a quorum by itself
	s.retention = ledger.Retention{Votes: time.Second}
	a := s.start(s.file.Gateways[0].Name, t.TempDir(), &shelf{})
	const blocks = 100_000
	ids := []stardust.BlockID{stardust.GenesisID}
	for len(ids) <= blocks {
		var in []ledger.Incoming
		for range 1000 {
			b := &stardust.Block{
				Version: stardust.ProtocolVersion, Parents: stardust.SortParents(slices.Clone(ids[max(0, len(ids)-2):])),
				Payload: &stardust.TaggedData{Tag: []byte("hedgerow/b"), Data: fmt.Append(make([]byte, 100), len(ids))},
			}
			raw, err := b.AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, stardust.IDOf(raw))
			in = append(in, ledger.Incoming{From: "b", Raw: raw})
		}
		if _, err := a.Receive(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	last := ids[len(ids)-1]
	certifiedAt(t, a, last)
	tail := a.grow(a.Agreed().Milestone + 40)
	p, err := a.Progress(last)
	if err != nil {
		t.Fatal(err)
	}
	a.pruneAt(a, p.Milestone)
	began := time.Now()
	b := s.start(s.file.Gateways[1].Name, t.TempDir(), &shelf{})
	certifiedAt(t, b, last, tail[len(tail)-1])
	took := time.Since(began)
	t.Logf("%d blocks joined in %v, %d of them stubs, %d milestones", b.Position(), took, b.Stats().Pruned, b.Agreed().Milestone)
	if took > 30*time.Second {
		t.Errorf("joining took %v, want at most 30 s", took)
	}
}

func FuzzLists(f *testing.F) {
	l := ledger.Listed{Entry: consensus.Entry{ID: stardust.BlockID{1}, Inclusion: consensus.Included}}
	v := ledger.Listed{Entry: consensus.Entry{ID: stardust.BlockID{2}}, Vote: true, Claim: consensus.Claim{Epoch: 1, Gateway: 2, Round: 3, Seen: 4, Merges: 5}}
	r := ledger.Listed{Entry: consensus.Entry{ID: stardust.BlockID{3}}, Raw: []byte("body")}
	f.Add(peer.ListsBody(7, true, l, v, r))
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, ok := peer.ListsAgain(b); ok && !bytes.Equal(out, b) {
			t.Errorf("%x is read, and written as %x", b, out)
		}
	})
}

func FuzzHistory(f *testing.F) {
	e := consensus.Essence{Index: 1, Parents: []stardust.BlockID{{1}}}
	f.Add(e.AppendBinary(nil))
	f.Add([]byte{1, 0, 0, 0, '{'})
	f.Fuzz(func(_ *testing.T, b []byte) { peer.ReadHistory(b) })
}

// What votes claimed is believed because gateways say it alike, those that have
// the bodies and those that have not.
func TestAClaimThatDiffersIsNoticed(t *testing.T) {
	s := newVotingSite(t, "a", "b")
	s.retention = ledger.Retention{Votes: time.Second}
	a := s.start("a", t.TempDir(), &shelf{})
	s.retention = ledger.Retention{}
	b := s.start("b", t.TempDir(), &shelf{})
	certifiedAt(t, b, a.grow(40)...)
	a.pruneAt(a, 10)
	pruned, err := a.peers.Claims(1, 10)
	whole, other := b.peers.Claims(1, 10)
	if err != nil || other != nil || len(pruned) != 32 || !bytes.Equal(pruned, whole) {
		t.Fatalf("claims are %x, %v without bodies, %x, %v with", pruned, err, whole, other)
	}
	var ms []ledger.Imported
	for index := uint32(1); index <= 10; index++ {
		var m ledger.Imported
		m.Index = index
		_ = a.Listed(index, 0, func(l ledger.Listed) bool { m.Blocks = append(m.Blocks, l); return true })
		ms = append(ms, m)
	}
	if got := peer.Claimed(ms); !bytes.Equal(got, whole) {
		t.Errorf("claims handed out are %x, want %x", got, whole)
	}
	for i := range ms[4].Blocks {
		if l := &ms[4].Blocks[i]; l.Vote {
			l.Claim.Round++
		}
	}
	if got := peer.Claimed(ms); bytes.Equal(got, whole) {
		t.Error("a claim of another round gives the same hash")
	}
	if sum, err := a.peers.Claims(1, a.Agreed().Milestone+1); sum != nil || err != nil {
		t.Errorf("claims of a milestone to come are %x, %v", sum, err)
	}
}

// Who hands out votes without bodies as blocks that are none has to be contradicted.
func TestAVoteWithoutABodyIsNotTakenForAnotherBlock(t *testing.T) {
	s := newVotingSite(t, "a")
	a := s.start("a", t.TempDir(), &shelf{})
	certifiedAt(t, a, a.grow(3)...)
	honest := a.handOutAll(1, 2)
	if peer.Bare(honest) {
		t.Error("milestones with all bodies need others who say the same")
	}
	if peer.Bare([]ledger.Imported{bare(a.handOut(1))}) == false {
		t.Error("votes without bodies need nobody who says the same")
	}
	lie := noVotes(a.handOutAll(1, 2))
	if !peer.Bare(lie) || bytes.Equal(peer.Claimed(lie), peer.Claimed(honest)) {
		t.Error("votes handed out as other blocks need nobody who says the same, or everybody does")
	}
}

// noVotes makes blocks without bodies of all that are no votes.
func noVotes(ms []ledger.Imported) []ledger.Imported {
	for i := range ms {
		bare(ms[i])
		for k := range ms[i].Blocks {
			ms[i].Blocks[k].Vote, ms[i].Blocks[k].Claim = false, consensus.Claim{}
		}
	}
	return ms
}

// What a false claim leads to is not found before the end, when all is stored.
func TestAStateSyncThatCannotBeEndedGoesOn(t *testing.T) {
	s := newVotingSite(t, "a")
	a := s.start("a", t.TempDir(), &shelf{})
	certifiedAt(t, a, a.grow(12)...)
	s.votes = false
	dir := t.TempDir()
	b := s.start("a", dir, &shelf{}) // the network has one gateway; this one only follows
	ms := append(noVotes(a.handOutAll(1, 4)), a.handOutAll(5, 6)...)
	if err := b.Import(t.Context(), &ledger.Import{Milestones: ms, Top: 6}); !errors.Is(err, ledger.ErrForeign) {
		t.Errorf("Import of votes as other blocks: %v", err)
	}
	for range 2 {
		if w := b.Word(); !b.Syncing() || w.Milestone != 6 || w.Whole != 6 {
			t.Errorf("syncing is %v at %+v, want it to go on above 6", b.Syncing(), w)
		}
		b.stop()
		b = s.start("a", dir, &shelf{})
	}
	if err := b.Import(t.Context(), &ledger.Import{Milestones: a.handOutAll(7, 7), Top: 7}); !errors.Is(err, ledger.ErrForeign) {
		t.Errorf("Import up to the milestone after the failure: %v", err)
	}
	if err := b.Import(t.Context(), &ledger.Import{Milestones: a.handOutAll(8, 8), Top: 8}); err != nil {
		t.Error(err)
	}
	if at := b.Agreed(); at.Milestone != 8 || b.Syncing() {
		t.Errorf("agreed is %+v, syncing %v", at, b.Syncing())
	}
	b.stop()
	if b = s.start("a", dir, &shelf{}); b.Syncing() {
		t.Error("it is syncing again after a restart")
	}
}

// A crash just before the end must not make later milestones necessary: they may
// not come before this gateway votes.
func TestAStateSyncThatWasCutOffEndsWithoutLaterMilestones(t *testing.T) {
	for _, missing := range []uint32{2, 1, 0} {
		t.Run(fmt.Sprint(missing, " missing"), func(t *testing.T) {
			s := newVotingSite(t, "a", "b")
			s.file.Gateways[0].Weight = 100 // a quorum by itself
			a := s.start(s.file.Gateways[0].Name, t.TempDir(), &shelf{})
			certifiedAt(t, a, a.grow(10)...)
			await(t, "the last milestone is certified", func() bool { at := a.Agreed(); return at.Certified == at.Milestone })
			last := a.Agreed().Certified
			dir := t.TempDir()
			if err := s.alone(dir, plain, &ledger.Import{Milestones: a.handOutAll(1, last-missing), Top: last + 1}); err != nil {
				t.Fatal(err)
			}
			b := s.start(s.file.Gateways[1].Name, dir, &shelf{})
			eventually(t, "the state sync ends", func() bool { return !b.Syncing() })
			if at := a.Agreed().Milestone; at != last {
				t.Errorf("there is milestone %d meanwhile, the test needs %d to be the last", at, last)
			}
			sameOrders(t, a, b)
		})
	}
}

// alone has a ledger without peers, over what is made of the store in dir, take
// milestones over, and returns what the last step came to.
func (s *site) alone(dir string, over func(ledger.Store) ledger.Store, steps ...*ledger.Import) (last error) {
	s.t.Helper()
	st, err := store.Open(dir, store.Options{Reserve: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := ledger.New(ledger.Config{Network: s.file}, over(st))
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	for _, step := range steps {
		last = l.Import(ctx, step)
	}
	cancel()
	if err := errors.Join(<-ended, st.Check(s.t.Context()), st.Close()); err != nil {
		s.t.Fatal(err)
	}
	return last
}

func plain(l ledger.Store) ledger.Store { return l }

// A reluctant is a store that is busy when a state sync is to end for the first
// time.
type reluctant struct {
	ledger.Store
	once sync.Once
}

func (r *reluctant) Commit(c ledger.Change) (err error) {
	if c.Sync != nil && !c.Sync.Going {
		r.once.Do(func() { err = ledger.ErrBusy })
	}
	if err != nil {
		return err
	}
	return r.Store.Commit(c)
}

func TestTheEndOfAStateSyncMayBeRepeated(t *testing.T) {
	s := newVotingSite(t, "a")
	a := s.start("a", t.TempDir(), &shelf{})
	certifiedAt(t, a, a.grow(6)...)
	dir := t.TempDir()
	step := &ledger.Import{Milestones: a.handOutAll(1, 4), Top: 4}
	over := func(l ledger.Store) ledger.Store { return &reluctant{Store: l} }
	if err := s.alone(dir, over, step); !errors.Is(err, ledger.ErrBusy) {
		t.Errorf("Import when the store is busy at the end: %v", err)
	}
	if err := s.alone(dir, over, step, step); err != nil {
		t.Errorf("Import when the store was busy before: %v", err)
	}
	s.votes = false
	if b := s.start("a", dir, &shelf{}); b.Syncing() || b.Agreed().Certified != 4 {
		t.Errorf("agreed is %+v, syncing %v", b.Agreed(), b.Syncing())
	}
}

// A member may say that it has pruned everything, and certified everything.
func TestWordsWithTheLargestNumbersAreNoEndOfAStateSync(t *testing.T) {
	const most = 1<<32 - 1
	for _, tt := range []struct {
		own, word ledger.Word
		want      uint64
	}{
		{ledger.Word{Milestone: 4}, ledger.Word{Certified: most, Whole: most}, most + 2},
		{ledger.Word{Milestone: 4}, ledger.Word{Certified: most, Whole: most - 1}, most + 1},
		{ledger.Word{Milestone: 4, Whole: 4}, ledger.Word{Certified: 9, Whole: 1}, 6},
		{ledger.Word{Milestone: 4, Whole: 2}, ledger.Word{Certified: 9, Whole: 1}, 4},
		{ledger.Word{Milestone: 4, Whole: 2}, ledger.Word{Certified: 9, Whole: 6}, 8},
		{ledger.Word{}, ledger.Word{Certified: 9}, 2},
	} {
		if got := peer.TopOf(tt.own, tt.word); got != tt.want {
			t.Errorf("at %+v %+v asks for milestone %d, want %d", tt.own, tt.word, got, tt.want)
		}
	}
}

func TestAStateSyncEndsOnlyOnItsTop(t *testing.T) {
	s := newVotingSite(t, "a")
	a := s.start("a", t.TempDir(), &shelf{})
	certifiedAt(t, a, a.grow(8)...)
	s.votes = false
	b := s.start("a", t.TempDir(), &shelf{})
	if err := b.Import(t.Context(), &ledger.Import{Milestones: a.handOutAll(1, 2), Top: 8}); err != nil {
		t.Fatal(err)
	}
	if err := b.Import(t.Context(), &ledger.Import{Milestones: a.handOutAll(1, 1), Top: 1}); !errors.Is(err, ledger.ErrForeign) {
		t.Errorf("Import up to a milestone before the last: %v", err)
	}
	ms := []ledger.Imported{bare(a.handOut(3)), bare(a.handOut(4))}
	if err := b.Import(t.Context(), &ledger.Import{Milestones: ms, Top: 8}); err != nil {
		t.Fatal(err)
	}
	if err := b.Import(t.Context(), &ledger.Import{Milestones: a.handOutAll(4, 4), Top: 4}); !errors.Is(err, ledger.ErrForeign) {
		t.Errorf("Import up to a milestone that has stubs: %v", err)
	}
	if certified := b.Agreed().Certified; !b.Syncing() || certified > 0 {
		t.Errorf("syncing is %v, certified up to %d", b.Syncing(), certified)
	}
}

func TestSignaturesOfAStateSyncAreWholeOverPages(t *testing.T) {
	s := newSite(t, "a", "b", "c")
	const milestones = 1000 // with three signatures each a page ends within one
	s.view("a").derive(milestones, s.keys["a"], s.keys["b"], s.keys["c"])
	s.fresh("a")
	b := s.fresh("b")
	got, err := b.peers.SyncSignatures(t.Context(), "a", 1, milestones)
	if err != nil || len(got) != milestones {
		t.Fatalf("signatures of %d milestones, %v, want %d", len(got), err, milestones)
	}
	for index, of := range got {
		if len(of) != 3 {
			t.Errorf("milestone %d has %d signatures, want 3", index, len(of))
		}
	}
}

func TestASlowMemberIsGivenUpForAnother(t *testing.T) {
	s := newSite(t, "a", "b")
	b := s.fresh("b") // a does not answer
	began := time.Now()
	next, err := b.peers.TakeOver(t.Context(), "a", 100*time.Millisecond)
	if took := time.Since(began); err != nil || took > 2*time.Second || next != 200*time.Millisecond {
		t.Errorf("it took %v of 100 ms, the next one has %v: %v", took, next, err)
	}
	if m := b.seen("a"); m.Standing < 0.99 {
		t.Errorf("a has standing %v for being slow", m.Standing)
	}
}

// What a milestone proves comes last: until then a member may hand out anything.
func TestBodiesOfAMilestoneAreBounded(t *testing.T) {
	raw := func(i int) []byte {
		b := &stardust.Block{Version: stardust.ProtocolVersion, Parents: []stardust.BlockID{{}},
			Payload: &stardust.TaggedData{Tag: []byte("large"), Data: fmt.Append(make([]byte, 30_000), i)}}
		raw, err := b.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	var page []ledger.Listed
	for i := range 100 {
		l := ledger.Listed{Raw: raw(i)}
		l.ID = stardust.IDOf(l.Raw)
		page = append(page, l)
	}
	for needed, most := range map[bool]int{false: 64 << 20, true: 128 << 20} {
		bodies, blocks, err := peer.Open(page, 100, needed)
		if needed != (err != nil) || bodies > most || bodies < most-4<<20 || !needed && blocks != 100*len(page) {
			t.Errorf("of %d blocks, needed %v, %d bytes are kept, %v; want up to %d", blocks, needed, bodies, err, most)
		}
	}
	page[7].ID[0] ^= 1
	if _, _, err := peer.Open(page, 1, false); !errors.Is(err, ledger.ErrForeign) {
		t.Errorf("a body of another block: %v", err)
	}
}

// A full is a store that has come near its limit.
type full struct{ ledger.Store }

func (full) Excess() (int64, error) { return 1, nil }

// The others may keep more than this gateway has room for.
func TestAStateSyncKeepsNoBodiesThatTheDiskHasNoRoomFor(t *testing.T) {
	s := newVotingSite(t, "a")
	a := s.start("a", t.TempDir(), &shelf{})
	certifiedAt(t, a, a.grow(8)...)
	dir := t.TempDir()
	if err := s.alone(dir, func(l ledger.Store) ledger.Store { return full{l} }, &ledger.Import{Milestones: a.handOutAll(1, 6), Top: 6}); err != nil {
		t.Fatal(err)
	}
	s.votes = false
	b := s.start("a", dir, &shelf{})
	if b.Syncing() || b.Agreed().Milestone != 6 {
		t.Fatalf("agreed is %+v, syncing %v", b.Agreed(), b.Syncing())
	}
	for index := uint32(1); index <= 6; index++ {
		for _, l := range b.handOut(index).Blocks {
			if (l.Raw != nil) != (index >= 5) {
				t.Errorf("block %v of milestone %d has a body: %v", l.ID, index, l.Raw != nil)
			}
		}
	}
	sameOrders(t, a, b)
}

// However many blocks a milestone orders, others can say what they were.
func TestClaimsOfManyBlocksAreHashedInParts(t *testing.T) {
	s := newVotingSite(t, "a")
	a := s.start("a", t.TempDir(), &shelf{})
	fill(t, a, 20_000)
	certifiedAt(t, a, a.attachOne("last"))
	ms := a.handOutAll(1, a.Agreed().Certified)
	if same, hashes, err := a.peers.ClaimsAgree(ms); !same || hashes != 2 || err != nil {
		t.Errorf("said the same: %v, in %d hashes, %v", same, hashes, err)
	}
	last := &ms[len(ms)-1]
	noVotes([]ledger.Imported{*last})
	if same, _, err := a.peers.ClaimsAgree(ms); same || err != nil {
		t.Errorf("a lie in the second part: said the same: %v, %v", same, err)
	}
}

// A forgetful hands out no signatures.
type forgetful struct{ *ledger.Ledger }

func (forgetful) Signatures(uint32, uint32, int) ([]consensus.Signature, error) { return nil, nil }

func TestCertificatesThatAMemberLeavesOutAreAskedOfOthers(t *testing.T) {
	s := newVotingSite(t, "a", "b", "c", "d")
	s.forgets = "a"
	a, b, c, d := s.fresh("a"), s.fresh("b"), s.fresh("c"), s.fresh("d")
	ids := a.grow(5)
	certifiedAt(t, b, ids...)
	certifiedAt(t, c, ids...)
	certifiedAt(t, d, ids...)
	ms := d.handOutAll(1, 5)
	for i := range ms {
		ms[i].Signatures = nil
	}
	if err := d.peers.Prove(t.Context(), "a", d.Networks(), ms); err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if err := consensus.VerifyCertificate(s.file, m.ID(), m.Signatures); err != nil {
			t.Errorf("milestone %d: %v", m.Index, err)
		}
	}
}
