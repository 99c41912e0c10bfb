package gateway

import (
	"crypto/ed25519"
	"fmt"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// copyGap is how many numbers the journal of an older copy leaves out: those
// that were given since the copy was made stand in ids, and the next readings
// are taken in before the other gateways have said which they know.
const copyGap = 1_000_000

// recognise finds out whether the stores are an older copy, and makes them ones
// that it is safe to go on with.
func (g *Gateway) recognise() error {
	fit, err := g.marker.fit()
	if err != nil || fit == fits {
		return err
	}
	f, dir := g.home.network, string(g.cfg.DataDir)
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
	if err := g.stores.copied(dir, f); err != nil {
		return fmt.Errorf("go on with an older copy: %w", err)
	}
	g.log.Warn(afterCopy(f, g.home.key.Public().(ed25519.PublicKey)))
	return nil
}

// copied prepares stores that are an older copy, for a start or for [Restore].
// It can be done again when it was cut off.
//
// In a network of several the record of own votes counts as lost, and before
// anything is attached the other gateways say which readings they have. In any
// case the journal goes on under a new incarnation and leaves out the numbers
// that may be in use.
func (s *stores) copied(dir string, f *network.File) error {
	if len(f.Gateways) > 1 {
		if err := ledger.Distrust(s.ledger); err != nil {
			return err
		}
		if err := s.ledger.Renew(); err != nil {
			return err
		}
		if err := (restoring{}).write(dir); err != nil {
			return err
		}
	}
	next := s.journal.Next()
	err := s.ledger.Marks(next, func(run [2]uint64, _ stardust.BlockID) bool {
		next = max(next, run[1]+1)
		return true
	})
	if err != nil {
		return err
	}
	return s.journal.SkipTo(next + copyGap)
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
func afterCopy(f *network.File, key ed25519.PublicKey) string {
	switch {
	case len(f.Gateways) == 1:
		return "a network of one has nobody to ask what came after the copy: the gateway goes on from it, and its milestones are another history from there on"
	case !mayRecover(f, key):
		return "without this gateway the others are no quorum, so nobody can tell in which rounds it has voted: it takes in and attaches readings, and votes never again with this key. " +
			"Have it take part with a new one: hedgerow network remove and add"
	}
	return "the gateway gets from the others what came after the copy, and votes again, by itself, in a round that it cannot have voted in; until then it counts as down"
}
