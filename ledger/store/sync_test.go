package store

import "testing"

// Without it a power cut takes what Commit said is durable: badger's own
// default leaves it to the kernel.
func TestEveryCommitIsSynced(t *testing.T) {
	if s := open(t, t.TempDir()); !s.db.Opts().SyncWrites {
		t.Error("the store does not sync its writes")
	}
}
