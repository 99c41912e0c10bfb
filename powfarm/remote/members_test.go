package remote

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"time"
)

// Who may ask and who may lend follows the network file in force, while both
// run.
func TestMembersOfTheNextEpochLendAndAsk(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		var both atomic.Bool
		of := func(other string) func() []Peer {
			return func() []Peer {
				if both.Load() {
					return []Peer{peer("g"), peer(other)}
				}
				return []Peer{peer("g")}
			}
		}
		rate := func() float64 { return 1e6 }
		w := &box{site: s, conn: s.connect()}
		var err error
		if w.server, err = NewServer(ServerConfig{
			Name: "w", Key: key("w"), Genesis: genesis, Prefix: subjects, Kernel: "go", Rate: rate, Gateways: of("h"),
		}, w.conn, &honest{}, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		w.run(w.server.Run)
		h := &box{site: s, conn: s.connect()}
		if h.pool, err = NewPool(PoolConfig{
			Key: key("h"), Genesis: genesis, Prefix: subjects, Rate: func() float64 { return 0 }, Members: of("w"),
		}, h.conn, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		h.run(h.pool.Run)
		time.Sleep(2 * helloEvery)
		if all := h.pool.Workers(); len(all) != 0 {
			t.Errorf("before the epoch h knows %+v", all)
		}
		both.Store(true)
		time.Sleep(2 * helloEvery)
		h.prove(absent{}, 1, few).wantFound(t)
		both.Store(false)
		time.Sleep(2 * helloEvery)
		if all := h.pool.Workers(); len(all) != 0 {
			t.Errorf("after the epoch h knows %+v", all)
		}
	})
}
