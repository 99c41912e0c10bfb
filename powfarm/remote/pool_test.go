package remote

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/hedgerow-iot/hedgerow/powfarm"
	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

const few = 4 // zeros that an honest searcher finds at once

func TestAGatewayWithoutWorkersUsesOneElsewhere(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		w := s.worker("w", &honest{}, 1e6, "g")
		g := s.gateway("g", 0, "w")
		s.heard() // the worker's next hello
		g.prove(absent{}, 1, few).wantFound(t)
		got := g.seen("w")
		if got.Name != "w" || got.Kernel != "go" || got.TriesPerSecond != 1e6 || !got.Alive || got.LastSeen.IsZero() ||
			got.Given != 1 || got.Found != 1 || got.Open != 0 || got.Cancelled != 0 {
			t.Errorf("the gateway knows %+v", got)
		}
		if st := w.server.Stats(); st.Requests != 1 || st.Found != 1 || st.Queued != 0 || st.Invalid != 0 {
			t.Errorf("the worker counts %+v", st)
		}
	})
}

func TestARealFarmServes(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		farm, err := powfarm.New(powfarm.Config{Workers: 1}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- farm.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-ran; err != nil {
				t.Error(err)
			}
		}()
		s.worker("w", farm.For(powfarm.Guest), 1e6, "g")
		g := s.gateway("g", 0, "w")
		s.heard()
		for i := range byte(3) {
			g.prove(absent{}, i, 7).wantFound(t)
		}
	})
}

func TestNobodyThereIsAnErrorThatPasses(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		g := s.gateway("g", 0, "w")
		p := g.prove(absent{}, 1, few)
		if <-p.done; !errors.Is(p.err, powfarm.ErrNoWorkers) {
			t.Errorf("Prove without anybody: %v, want %v", p.err, powfarm.ErrNoWorkers)
		}
		p = g.prove(busy{}, 1, few)
		if <-p.done; !errors.Is(p.err, powfarm.ErrBusy) {
			t.Errorf("Prove with a busy farm: %v, want %v", p.err, powfarm.ErrBusy)
		}
		if w := g.seen("w"); w.Alive || !w.LastSeen.IsZero() {
			t.Errorf("a configured worker that never came is shown as %+v", w)
		}
	})
}

func TestAPoolThatHasStoppedSaysSo(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		s.worker("w", &stuck{}, 1e6, "g")
		g := s.gateway("g", 0, "w")
		s.heard()
		p := g.prove(absent{}, 1, few)
		p.wantOpen(t)
		g.stop()
		if <-p.done; !errors.Is(p.err, powfarm.ErrClosed) {
			t.Errorf("Prove in a stopping gateway: %v, want %v", p.err, powfarm.ErrClosed)
		}
	})
}

func TestZerosOutOfBoundsNeedNobody(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		g := s.gateway("g", 0, "w")
		farm, err := powfarm.New(powfarm.Config{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		p := g.prove(farm.For(powfarm.Guest), 1, 0)
		if <-p.done; p.err != nil {
			t.Errorf("Prove with 0 zeros: %v", p.err)
		}
		p = g.prove(farm.For(powfarm.Guest), 1, curl.MaxZeros+1)
		if <-p.done; p.err == nil || errors.Is(p.err, powfarm.ErrNoWorkers) {
			t.Errorf("Prove with 244 zeros: %v, want an error that does not pass", p.err)
		}
	})
}

func TestLocalComesFirst(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		s.worker("w", &honest{}, 1e6, "g")
		g := s.gateway("g", 1e6, "w")
		s.heard()
		g.prove(&honest{}, 1, few).wantFound(t)
		if w := g.seen("w"); !w.Alive || w.Given != 0 {
			t.Errorf("a worker was asked for what is found here: %+v", w)
		}
	})
}

func TestALongLocalSearchGetsHelp(t *testing.T) {
	for name, tt := range map[string]struct {
		rate  float64 // local
		after time.Duration
	}{
		"expected to be short, and is long": {1e6, aim},
		"of unknown speed":                  {0, aim},
		"expected to be long":               {100, 0}, // 81 tries take 0.81 s
	} {
		t.Run(name, func(t *testing.T) {
			inSite(t, func(t *testing.T, s *site) {
				s.worker("w", &honest{}, 1e6, "g")
				g := s.gateway("g", tt.rate, "w")
				s.heard()
				began := time.Now()
				local := &stuck{}
				g.prove(local, 1, few).wantFound(t)
				if took := time.Since(began); took != tt.after || local.searching() != 0 {
					t.Errorf("helped after %v, want %v; %d local searches go on", took, tt.after, local.searching())
				}
			})
		})
	}
}

func TestABusyFarmGetsHelpAtOnce(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		s.worker("w", &honest{}, 1e6, "g")
		g := s.gateway("g", 1e6, "w")
		s.heard()
		began := time.Now()
		g.prove(busy{}, 1, few).wantFound(t)
		if took := time.Since(began); took != 0 {
			t.Errorf("helped after %v", took)
		}
	})
}

func TestALiarCostsNothingAndIsLeftAloneEverLonger(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		s.worker("liar", liar{}, 1e9, "g") // looks like the best of all
		s.worker("w", &honest{}, 1e3, "g")
		g := s.gateway("g", 0, "liar", "w")
		for i := range uint64(3) {
			s.heard()
			began := time.Now()
			g.prove(absent{}, 1, few).wantFound(t)
			if took := time.Since(began); took != 0 {
				t.Errorf("the lie cost %v", took)
			}
			l := g.seen("liar")
			if left := time.Until(l.LeftAloneUntil); l.Wrong != i+1 || l.Found != 0 || left != liarFirst<<i {
				t.Fatalf("after lie %d the liar is left alone for %v: %+v", i+1, left, l)
			}
			g.prove(absent{}, 2, few).wantFound(t)
			if l := g.seen("liar"); l.Given != i+1 {
				t.Errorf("the liar was asked again at once: %+v", l)
			}
			time.Sleep(time.Until(l.LeftAloneUntil))
		}
	})
}

func TestAWorkerThatDiesInMidSearchOnlyDelays(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		w := s.worker("w", &stuck{}, 1e6, "g")
		g := s.gateway("g", 0, "w", "v")
		s.heard()
		p := g.prove(absent{}, 1, few)
		p.wantOpen(t)
		w.kill()
		s.worker("v", &honest{}, 1e3, "g")
		p.wantFound(t)
		time.Sleep(aliveFor)
		if l := g.seen("w"); l.Alive || l.Given != 1 || l.Lost+l.Cancelled != 1 || l.Open != 0 {
			t.Errorf("the dead worker is shown as %+v", l)
		}
	})
}

func TestTheOnlyWorkerDiesAndTheCallerMayTryAgain(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		w := s.worker("w", &stuck{}, 1e6, "g")
		g := s.gateway("g", 0, "w")
		s.heard()
		p := g.prove(absent{}, 1, few)
		p.wantOpen(t)
		w.kill()
		began := time.Now()
		if <-p.done; !errors.Is(p.err, powfarm.ErrNoWorkers) || time.Since(began) > aliveFor+lookEvery {
			t.Errorf("Prove: %v after %v, want %v", p.err, time.Since(began), powfarm.ErrNoWorkers)
		}
		if l := g.seen("w"); l.Alive || l.Lost != 1 {
			t.Errorf("the dead worker is shown as %+v", l)
		}
	})
}

// NATS says at once when nobody listens.
func TestADeadWorkerIsNotWaitedForWhenAskedAgain(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		w := s.worker("w", &stuck{}, 1e6, "g")
		g := s.gateway("g", 0, "w")
		s.heard()
		w.kill()
		began := time.Now()
		p := g.prove(absent{}, 1, few)
		if <-p.done; !errors.Is(p.err, powfarm.ErrNoWorkers) || time.Since(began) != 0 {
			t.Errorf("Prove: %v after %v, want %v at once", p.err, time.Since(began), powfarm.ErrNoWorkers)
		}
	})
}

func TestAWorkerThatStartsAgainIsAskedAgain(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		w := s.worker("w", &stuck{}, 1e6, "g")
		g := s.gateway("g", 0, "w")
		s.heard()
		p := g.prove(absent{}, 1, few)
		w.kill()
		time.Sleep(time.Millisecond) // a later stamp
		began := time.Now()
		s.worker("w", &honest{}, 1e6, "g")
		p.wantFound(t)
		if l := g.seen("w"); time.Since(began) != 0 || l.Lost != 1 || l.Given != 2 || l.Found != 1 {
			t.Errorf("found after %v: %+v", time.Since(began), l)
		}
	})
}

func TestAWorkerThatLeavesIsKnownToBeGone(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		w := s.worker("w", &stuck{}, 1e6, "g")
		g := s.gateway("g", 0, "w")
		s.heard()
		p := g.prove(absent{}, 1, few)
		p.wantOpen(t)
		w.stop()
		if l := g.seen("w"); l.Alive || l.Lost != 1 {
			t.Errorf("the worker is shown as %+v", l)
		}
		if <-p.done; !errors.Is(p.err, powfarm.ErrNoWorkers) {
			t.Errorf("Prove: %v, want %v", p.err, powfarm.ErrNoWorkers)
		}
	})
}

func TestASilentWorkerIsLeftAloneEverLonger(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		g := s.gateway("g", 0, "w")
		w := s.puppet("w")
		stop := w.helloes(1e6)
		synctest.Wait()
		defer stop()
		for i := range uint64(3) {
			p := g.prove(absent{}, 1, few)
			if <-p.done; !errors.Is(p.err, powfarm.ErrBusy) {
				t.Errorf("Prove with nobody but a silent worker: %v, want %v", p.err, powfarm.ErrBusy)
			}
			l := g.seen("w")
			if left := time.Until(l.LeftAloneUntil); l.TimedOut != i+1 || l.Given != i+1 || !l.Alive || left != slowFirst<<i {
				t.Errorf("after silence %d it is left alone for %v: %+v", i+1, left, l)
			}
			time.Sleep(slowFirst << i)
		}
	})
}

func TestASlowWorkerIsJoinedByTheOthers(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		s.worker("slow", &stuck{}, 1e9, "g")
		s.worker("w", &honest{}, 1e3, "g")
		g := s.gateway("g", 0, "slow", "w")
		s.heard()
		began := time.Now()
		g.prove(absent{}, 1, few).wantFound(t)
		if took := time.Since(began); took != patience*aim {
			t.Errorf("found after %v, want all to be asked after %v", took, patience*aim)
		}
		// From then on it is known for what it is.
		for range 20 {
			g.prove(absent{}, 1, few).wantFound(t)
		}
		if slow, w := g.seen("slow"), g.seen("w"); slow.Cancelled == 0 || slow.Found != 0 || w.Found != 21 || slow.Earned >= slow.TriesPerSecond {
			t.Errorf("slow is shown as %+v, the other as %+v", slow, w)
		}
	})
}

func TestNewParentsAreCheap(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		st := &stuck{}
		w := s.worker("w", st, 1e6, "g")
		g := s.gateway("g", 0, "w")
		s.heard()
		for i := range byte(50) {
			p := g.prove(absent{}, i, few)
			p.wantOpen(t)
			if st.searching() != 1 {
				t.Fatalf("digest %d: %d searches at the worker", i, st.searching())
			}
			p.cancel()
			if <-p.done; !errors.Is(p.err, context.Canceled) {
				t.Fatalf("Prove: %v", p.err)
			}
			synctest.Wait()
			if n := w.server.Stats().Queued; n != 0 || st.searching() != 0 {
				t.Fatalf("digest %d: %d searches in line after the cancellation", i, n)
			}
		}
		if l := g.seen("w"); l.Given != 50 || l.Cancelled != 50 || l.LeftAloneUntil.After(time.Now()) || l.Open != 0 {
			t.Errorf("the worker is shown as %+v", l)
		}
	})
}

func TestSearchesTooLongForAWorkerAreNotGivenToIt(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		s.worker("w", &stuck{}, 1e6, "g") // 3^18 takes it six minutes, 3^19 twenty
		g := s.gateway("g", 0, "w")
		s.heard()
		g.prove(absent{}, 1, 18).wantOpen(t)
		if p := g.prove(absent{}, 1, 19); true {
			if <-p.done; !errors.Is(p.err, powfarm.ErrBusy) {
				t.Errorf("Prove: %v, want %v", p.err, powfarm.ErrBusy)
			}
		}
	})
}

func TestLostConnectionIsAnErrorThatPasses(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		s.worker("w", &honest{}, 1e6, "g")
		g := s.gateway("g", 0, "w")
		s.heard()
		s.down()
		synctest.Wait()
		p := g.prove(absent{}, 1, few)
		if <-p.done; !errors.Is(p.err, powfarm.ErrNoWorkers) {
			t.Errorf("Prove: %v, want %v", p.err, powfarm.ErrNoWorkers)
		}
	})
}

func TestAfterALongTimeWithoutConnectionAWorkerIsFoundAgain(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		b := s.worker("w", &honest{}, 1e6, "g")
		g := s.gateway("g", 0, "w")
		s.heard()
		s.down()
		time.Sleep(10 * time.Hour)
		if w := g.seen("w"); w.Alive {
			t.Errorf("after ten hours the worker is shown as %+v", w)
		}
		if n, err := b.conn.Buffered(); err != nil || n > 0 {
			t.Errorf("%d bytes of old hellos are kept for later, %v", n, err)
		}
		s.up()
		time.Sleep(reconnect)
		s.heard()
		g.prove(absent{}, 1, few).wantFound(t)
	})
}

// The rights that package doc and deployments count on.
func TestAWorkerNeedsRightsToFewSubjects(t *testing.T) {
	inSite(t, func(t *testing.T, s *site) {
		s.down()
		of := func(publish, subscribe string, answers bool) *server.Permissions {
			p := &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{subjects + publish}},
				Subscribe: &server.SubjectPermission{Allow: []string{subjects + subscribe, subjects + ".pow.hello"}},
			}
			if answers {
				p.Response = &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute}
			}
			return p
		}
		s.users = []*server.User{
			{Username: "w", Permissions: of(".pow.hello", ".pow."+peer("w").Key.id(), true)},
			{Username: "g", Permissions: of(".pow.*", ".inbox."+peer("g").Key.id()+".>", false)},
		}
		s.up()
		s.as = "w"
		s.worker("w", &honest{}, 1e6, "g")
		s.as = "g"
		g := s.gateway("g", 0, "w")
		s.heard()
		g.prove(absent{}, 1, few).wantFound(t)
	})
}
