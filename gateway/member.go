package gateway

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway/admin"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// checkMemberOnce is [checkMember] for a gateway that may have been one and has
// been taken out, or been given another name or key, by an epoch that began
// while it ran: it goes on serving its devices, with an alarm.
func checkMemberOnce(dir string, f *network.File, name string, key ed25519.PublicKey, path string) error {
	err := checkMember(f, name, key, path)
	if err == nil || !wasMember(dir, f, name, key) {
		return err
	}
	return nil
}

// wasMember reports whether one of the files kept of the epochs before f has
// the key under the name.
func wasMember(dir string, f *network.File, name string, key ed25519.PublicKey) bool {
	kept, err := os.ReadDir(filepath.Dir(epochPath(dir, 0)))
	if err != nil {
		return false
	}
	for _, entry := range kept {
		old, err := network.Load(filepath.Join(filepath.Dir(epochPath(dir, 0)), entry.Name()))
		if err != nil || old.GenesisHash() != f.GenesisHash() || old.Epoch >= f.Epoch {
			continue
		}
		if i, ok := old.Index(key); ok && old.Gateways[i].Name == name {
			return true
		}
	}
	return false
}

// alarms tells that this gateway is not the member that it was, and that a
// network file does not come into force.
func (e *epochs) alarms() (all []admin.Alarm) {
	e.mu.Lock()
	if u := e.next; u != nil && u.times > 0 && time.Since(u.at) > updatePatience/2 {
		all = append(all, admin.Alarm{Name: "network_update", Text: fmt.Sprintf("the network file of epoch %d stands in block %v since %s and is not in force: "+
			"a quorum of the gateways of epoch %d has to be up", u.file.Epoch, u.block, u.at.UTC().Format(time.RFC3339), u.file.Epoch-1)})
	}
	e.mu.Unlock()
	return append(all, e.standing()...)
}

// standing tells that this gateway is not the member that it was.
func (e *epochs) standing() []admin.Alarm {
	f := e.current()
	if i, ok := f.Index(e.self.PublicKey[:]); ok {
		if now := f.Gateways[i].Name; now != e.self.Name {
			return []admin.Alarm{{Name: "renamed", Text: fmt.Sprintf("epoch %d calls this gateway %s: set name: %s and restart; what is attached as %s meanwhile does not count as its readings",
				f.Epoch, now, now, e.self.Name)}}
		}
		return nil
	}
	why := "this gateway is no member"
	for _, g := range f.Gateways {
		if g.Name == e.self.Name {
			why = fmt.Sprintf("%s has another identity key now, %v, than this gateway", g.Name, g.PublicKey)
		}
	}
	return []admin.Alarm{{Name: "removed", Text: fmt.Sprintf("%s of %s since epoch %d: it does not vote and the others refuse it. "+
		"Devices are served, and their readings kept and attached here, but confirmed only if it is added again (hedgerow network add)", why, f.NetworkName, f.Epoch)}}
}
