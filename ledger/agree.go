package ledger

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/hedgerow-iot/hedgerow/ledger/consensus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

const (
	// pendingBlocks is how many blocks of milestones wait for the next Commit
	// at most, so that it takes them all.
	pendingBlocks = 1024
	// certPause is how long a certificate alone waits for the votes of the next
	// round before it is stored, if there is one.
	certPause = 100 * time.Millisecond
	// busyPause is how long to wait when the store takes nothing.
	busyPause = time.Second
	// votePause is how long votes wait while many blocks come in.
	votePause = 100 * time.Millisecond
	// newsAtOnce is how many of the milestones that were found at once are told
	// by their signatures. A replica that catches up finds many, which the
	// others have certified long ago; whoever has not asks for them.
	newsAtOnce = 16
	// maxGone is how many blocks wait to be deleted: what is more is found at the
	// next start.
	maxGone = 1 << 16
)

// An agreement is the writer's part in what the gateways agree on
// (consensus.md). It belongs to the goroutine of Run.
type agreement struct {
	key     ed25519.PrivateKey // nil: no votes
	genesis [32]byte
	files   []*network.File // from epoch 0 to the one in force
	state   *consensus.State
	issuer  *consensus.Issuer // nil: no votes
	own     consensus.Durable // as stored

	change   Change                       // waits for the next Commit, without entries
	blocks   int                          // of its milestones
	ordered  map[stardust.BlockID]uint32  // those blocks
	certAt   time.Time                    // since when a certificate waits
	fresh    stardust.BlockID             // no milestone orders it, as we know
	sealed   map[uint32]bool              // certified above agreed.Certified
	wholes   map[network.PublicKey]uint32 // milestones up to which the others have pruned, as they say
	evidence map[stardust.BlockID]bool    // of equivocation: kept for ever
	tried    time.Time                    // when votes were last thought of
	liars    map[network.PublicKey]bool   // contradicted a milestone derived here; reported
	alarmed  bool
	parked   parking
	gone     []stardust.BlockID // forgotten by the state, children first
	payloads []stardust.BlockID // of those, what is no vote
}

// A consensusView answers State for what is stored, or about to be.
type consensusView struct{ l *Ledger }

func (v consensusView) Ordered(id stardust.BlockID) (o consensus.Ordered, found bool, err error) {
	a := &v.l.agreement
	if id == a.fresh {
		return o, false, nil
	}
	index, ok := a.ordered[id]
	if !ok {
		at, err := v.l.store.Ordered(id)
		switch {
		case err != nil || at.Milestone == 0:
			return o, false, err
		case at.Stub != nil:
			return *at.Stub, true, nil
		}
		index = at.Milestone
	}
	rec, err := v.l.load(id)
	if err != nil {
		return o, false, err
	}
	b, err := stardust.ParseBlock(rec.Raw)
	if err != nil {
		return o, false, err
	}
	o, err = consensus.OrderedBlock(b, index)
	return o, err == nil, err
}

// noValue is the ledger of a network that moves no value yet.
type noValue struct{}

func (noValue) Apply(_, _ uint32, _ stardust.BlockID) (bool, error) { return false, nil }
func (noValue) Root() ([32]byte, error)                             { return stardust.MerkleRoot(nil), nil }

// openAgreement brings the state to where the store is.
func (l *Ledger) openAgreement() error {
	a := &l.agreement
	a.ordered, a.sealed = map[stardust.BlockID]uint32{}, map[uint32]bool{}
	a.wholes = map[network.PublicKey]uint32{}
	a.evidence, a.liars = map[stardust.BlockID]bool{}, map[network.PublicKey]bool{}
	if err := l.openNetworks(); err != nil {
		return err
	}
	pos, err := l.position()
	if err != nil {
		return err
	}
	proofs, err := l.store.Equivocations()
	if err != nil {
		return err
	}
	var equivocators []network.PublicKey
	for _, e := range proofs {
		equivocators = append(equivocators, e.Key)
		a.evidence[e.First], a.evidence[e.Second] = true, true
	}
	if a.state, err = consensus.New(a.files, pos, consensusView{l}, noValue{}, equivocators); err != nil {
		return err
	}
	for _, key := range equivocators {
		l.board.accuse(key)
	}
	l.epochs.Store(a.state.Epochs())
	last, certified := l.store.Last()
	if err := l.openCertificates(certified); err != nil {
		return err
	}
	l.board.show(Agreed{Epoch: pos.Epoch, Milestone: last, ID: pos.Milestone, Timestamp: pos.Timestamp, Certified: certified})
	if err := l.openIssuer(); err != nil {
		return err
	}
	if err := l.openConflict(); err != nil {
		return err
	}
	if !l.syncing.Load() {
		if err := l.replay(last); err != nil {
			return fmt.Errorf("go over the blocks that no milestone orders: %w", err)
		}
	}
	l.showTips()
	l.tell()
	return nil
}

// replay adds to the state what is not ordered, and the blocks of the last two
// milestones.
func (l *Ledger) replay(last uint32) error {
	a := &l.agreement
	var failure error
	learnt := 0
	err := l.store.Unordered(max(last, 2)-1, func(id stardust.BlockID, raw []byte) bool {
		var b *stardust.Block
		if b, failure = stardust.ParseBlock(raw); failure != nil {
			return false
		}
		var c consensus.Block
		if c, failure = a.state.Epochs().Stored(id, b); failure != nil {
			return false
		}
		c.Third = l.third(b, c.Update)
		failure = l.learn(c)
		if learnt++; learnt%groupBlocks == 0 {
			l.evict()
		}
		return failure == nil
	})
	l.evict()
	return errors.Join(err, failure)
}

// evict has the state forget what it does not need.
func (l *Ledger) evict() {
	a := &l.agreement
	gone := a.state.Evict(l.hold.refers)
	a.gone = append(a.gone, gone[:min(len(gone), maxGone-len(a.gone))]...)
}

// openNetworks finds the network files from epoch 0 on.
func (l *Ledger) openNetworks() (err error) {
	a := &l.agreement
	if a.files, err = l.store.Networks(); err != nil {
		return err
	}
	if len(a.files) == 0 {
		a.files = []*network.File{l.network}
		a.change.Networks = a.files
	}
	a.genesis = l.network.Hash()
	if a.files[0].Hash() != a.genesis {
		return fmt.Errorf("the ledger is that of the network %s, not of %s", a.files[0].NetworkName, l.network.NetworkName)
	}
	return nil
}

// position returns where the milestones stand.
func (l *Ledger) position() (pos consensus.Position, err error) {
	epoch := uint32(len(l.agreement.files) - 1)
	last, _ := l.store.Last()
	if last == 0 {
		return consensus.Position{Epoch: epoch}, nil
	}
	e, _, err := l.store.Milestone(last)
	if err != nil {
		return pos, err
	}
	m := consensus.Milestone{Essence: e}
	if e.Epoch < epoch {
		m.Next = l.agreement.files[epoch]
	}
	return m.Position(), nil
}

// Begin makes a store that of a gateway whose key has never voted in its
// network: without the record that it has not, an empty store counts as one whose
// votes were lost (consensus.md §7). A record that is there is forgotten: it is
// of a key that this one has replaced. The error is as that of [Store].Commit.
func Begin(s Store) error {
	return s.Commit(Change{Own: &consensus.Durable{}})
}

// Distrust makes a store one whose record of own votes may be older than the
// last vote of the key, as after a restore: its gateway starts in recovering
// mode, and votes again in a round that it cannot have opened (consensus.md §7).
// The error is as that of [Store].Commit.
func Distrust(s Store) error {
	own, err := s.Own()
	if err != nil || own == nil {
		return err // no record is one that was lost
	}
	d := *own
	d.Recovering, d.Sticky = true, true
	return s.Commit(Change{Own: &d})
}

// openIssuer reads the record of own votes; see [Begin].
func (l *Ledger) openIssuer() error {
	a := &l.agreement
	if l.key == nil {
		return nil
	}
	own, err := l.store.Own()
	if err != nil {
		return err
	}
	if own == nil {
		own = &consensus.Durable{Recovering: true}
		a.change.Own = own
	}
	a.key, a.own = l.key, *own
	a.issuer = consensus.NewIssuer(a.state, network.PublicKey(l.key.Public().(ed25519.PublicKey)), *own)
	return nil
}

// resume makes durable what [New] found out, and signs again what is not
// certified: the signatures may not have reached anybody.
func (l *Ledger) resume() error {
	a := &l.agreement
	if l.syncing.Load() {
		return nil
	}
	last, certified := l.store.Last()
	for index := certified + 1; index <= last; index++ {
		e, signatures, err := l.store.Milestone(index)
		if err != nil {
			return fmt.Errorf("read milestone %d: %w", index, err)
		}
		m := &consensus.Milestone{Essence: e}
		if signatures != nil {
			a.sealed[index] = true
			l.board.certMu.Lock()
			l.board.certs.Sealed(m, a.files[e.Epoch])
			l.board.certMu.Unlock()
			continue
		}
		l.derived(m, a.files[e.Epoch], index+newsAtOnce > last)
	}
	l.board.certMu.Lock()
	defer l.board.certMu.Unlock()
	l.certifyTo()
	return nil
}

// learn adds a stored block to the state.
func (l *Ledger) learn(b consensus.Block) error {
	a := &l.agreement
	res, err := a.state.Add(b, time.Now())
	if errors.Is(err, consensus.ErrNotSolid) {
		fresh := a.fresh
		if err := l.recall(b.Parents); err != nil {
			return err
		}
		a.fresh = fresh
		res, err = a.state.Add(b, time.Now())
	}
	a.fresh = stardust.GenesisID
	if err != nil {
		return fmt.Errorf("agree on block %v: %w", b.ID, err)
	}
	l.board.approve(res.Approved)
	for _, m := range res.Milestones {
		a.change.Milestones = append(a.change.Milestones, m)
		a.blocks += len(m.Blocks)
		for _, e := range m.Blocks {
			a.ordered[e.ID] = m.Index
		}
		if m.Next != nil {
			a.files, a.change.Networks = append(a.files, m.Next), append(a.change.Networks, m.Next)
			l.epochs.Store(a.state.Epochs())
			l.log.Info("epoch begins", "epoch", m.Next.Epoch, "gateways", len(m.Next.Gateways), "quorum", m.Next.Quorum())
		}
	}
	for _, e := range res.Equivocations {
		a.change.Equivocation = append(a.change.Equivocation, e)
		a.evidence[e.First], a.evidence[e.Second] = true, true
		l.board.accuse(e.Key)
		l.log.Error("a gateway equivocated: remove it from the network", "alarm", "equivocation", "gateway", l.nameOf(e.Key),
			"epoch", e.Epoch, "round", e.Round, "first", e.First, "second", e.Second)
	}
	return nil
}

// nameOf returns the name of the gateway with a key in the newest file that has
// it.
func (l *Ledger) nameOf(key network.PublicKey) string {
	files := l.agreement.files
	for i := len(files) - 1; i >= 0; i-- {
		if g, ok := files[i].Index(key[:]); ok {
			return files[i].Gateways[g].Name
		}
	}
	return key.String()
}

// take returns what waits for the next Commit.
func (a *agreement) take() Change {
	c := a.change
	a.change = Change{}
	return c
}

// put puts back what take returned and could not be stored.
func (a *agreement) put(c Change) {
	c.Entries = nil
	a.change = c
}

// waits reports whether something has to be stored now, and if not, when.
func (a *agreement) waits(now time.Time) (due bool, at time.Time) {
	c := &a.change
	if len(c.Milestones)+len(c.Networks)+len(c.Equivocation) > 0 || c.Own != nil || c.Conflict != nil {
		return true, at
	}
	if len(c.Certificates) > 0 || c.Certified > 0 {
		at = a.certAt.Add(certPause)
		return !at.After(now) || !a.state.Waiting(), at
	}
	return false, at
}

// settle draws the conclusions from a change that is durable.
func (l *Ledger) settle(c Change) {
	a := &l.agreement
	if c.Own != nil {
		a.own = *c.Own
	}
	for i := range c.Milestones {
		m := &c.Milestones[i]
		for _, e := range m.Blocks {
			delete(a.ordered, e.ID)
		}
		l.derived(m, a.files[m.Epoch], i+newsAtOnce >= len(c.Milestones))
	}
	a.blocks = 0
	now := l.board.agreed
	if n := len(c.Milestones); n > 0 {
		m := &c.Milestones[n-1]
		now.Milestone, now.ID, now.Timestamp = m.Index, m.ID(), m.Timestamp
	}
	now.Epoch, now.Certified = uint32(len(a.files)-1), max(now.Certified, c.Certified)
	l.board.show(now)
	for i := range c.Milestones { // only now: until it is shown as ordered a block is approved
		l.board.order(c.Milestones[i].Blocks)
	}
	l.board.certMu.Lock()
	if c.Certified > 0 {
		l.board.certs.Forget(c.Certified + 1)
	}
	l.certifyTo() // from there on: what was derived above may be certified already
	l.board.certMu.Unlock()
	for _, f := range c.Networks {
		if f.Epoch > 0 {
			l.onEpoch(f)
		}
	}
}
