package gateway

import (
	"crypto/ed25519"
	"fmt"
	"slices"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// copyGap is how many numbers the journal of an older copy leaves out: those
// that were given since the copy was made stand in ids, and the next readings
// are taken in before the other gateways have said which they know.
const copyGap = 1_000_000

// recognise finds out whether the stores are an older copy, and makes them ones
// that it is safe to go on with, before anything is voted or numbered.
func (g *Gateway) recognise() error {
	f, dir := g.home.network, string(g.cfg.DataDir) // the file that was given
	g.marker = newMarker(g.cfg.Identity, g.home.key.Public().(ed25519.PublicKey), f, g.stores.ledger, g.log)
	if g.home.fresh {
		return nil
	}
	stored, err := g.stores.ledger.Networks()
	if err != nil {
		return err
	}
	if n := len(stored); n > 0 && stored[n-1].Epoch > f.Epoch {
		f = stored[n-1] // the process ended before the file was saved
	}
	if err := g.marker.outgrown(f, "then, for each epoch since in turn: hedgerow join --config FILE NETWORKFILE"); err != nil {
		return err
	}
	fit, err := g.marker.fit()
	if err != nil || fit == fits {
		return err
	}
	if fit == unknown && !mayRecover(f, g.home.key.Public().(ed25519.PublicKey)) {
		// What the others say of its votes has to do: without this gateway they
		// are too few to let it recover.
		g.log.Warn("the identity key is here without its memory of the ledger; if the key or the data directory is a copy, stop the gateway, and let it join again with another key",
			"missing", g.marker.path)
		return nil
	}
	switch {
	case fit == unknown:
		g.log.Error("the identity key is here without its memory of the ledger: key or data directory is a copy", "missing", g.marker.path)
	default:
		g.log.Error("the data directory is an older copy: the identity key has been used with a newer one", "data_dir", dir)
	}
	alone, err := g.stores.copied(dir, f)
	if err != nil {
		return fmt.Errorf("go on with an older copy: %w", err)
	}
	g.log.Warn(afterCopy(f, g.home.key.Public().(ed25519.PublicKey), alone))
	return nil
}

// copied prepares stores that are an older copy, for a start or for [Restore]; f
// is the newest network file here. It can be done again when it was cut off.
//
// Unless the gateway was always alone, the record of own votes counts as lost, and
// before anything is attached the other gateways say which readings they have. In
// any case the journal goes on under a new incarnation and leaves out the numbers
// that may be in use.
func (s *stores) copied(dir string, f *network.File) (alone bool, err error) {
	stored, err := s.ledger.Networks()
	if err != nil {
		return false, err
	}
	if alone = alwaysAlone(dir, f, stored); !alone {
		if err := ledger.Distrust(s.ledger); err != nil {
			return false, err
		}
		if err := s.ledger.Renew(); err != nil {
			return false, err
		}
		if err := (restoring{}).write(dir); err != nil {
			return false, err
		}
	}
	next := s.journal.Next()
	err = s.ledger.Marks(next, func(run [2]uint64, _ stardust.BlockID) bool {
		next = max(next, run[1]+1)
		return true
	})
	if err != nil {
		return false, err
	}
	return alone, s.journal.SkipTo(next + copyGap)
}

// alwaysAlone reports whether the network has had one gateway in each epoch up to
// that of f: then nobody has ever seen what came after a copy. stored are the
// files that the ledger knows, the others those kept in dir; one that is missing
// may have had more.
func alwaysAlone(dir string, f *network.File, stored []*network.File) bool {
	all := append([]*network.File{f}, stored...)
	for epoch := uint32(len(stored)); epoch < f.Epoch; epoch++ {
		kept, err := network.Load(epochPath(dir, epoch))
		if err != nil || kept.Epoch != epoch || kept.GenesisHash() != f.GenesisHash() {
			return false
		}
		all = append(all, kept)
	}
	return !slices.ContainsFunc(all, func(f *network.File) bool { return len(f.Gateways) > 1 })
}

// mayRecover reports whether the gateways without this one make a quorum.
func mayRecover(f *network.File, key ed25519.PublicKey) bool {
	others := f.Weight()
	if i, ok := f.Index(key); ok {
		others -= uint64(f.Gateways[i].Weight)
	}
	return others >= f.Quorum()
}

// afterCopy says what becomes of a gateway with an older copy.
func afterCopy(f *network.File, key ed25519.PublicKey, alone bool) string {
	switch {
	case alone:
		return "a network of one has nobody to ask what came after the copy: the gateway goes on from it, and its milestones are another history from there on"
	case len(f.Gateways) == 1:
		return "the network has had other gateways, which may know votes that came after the copy, and has none now that could tell: the gateway takes in and attaches readings, and votes never again in this network. " +
			"Have it join a new one: hedgerow network create, and hedgerow join"
	case !mayRecover(f, key):
		return "without this gateway the others are no quorum, so nobody can tell in which rounds it has voted: it takes in and attaches readings, and votes never again with this key. " +
			"Have it take part with a new one: hedgerow network remove and add"
	}
	return "the gateway gets from the others what came after the copy, and votes again, by itself, in a round that it cannot have voted in; until then it counts as down"
}
