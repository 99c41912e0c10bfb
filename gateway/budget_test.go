package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway/admin"
	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/api"
)

const client = "192.0.2.7:4711"

func testBudget(r Rate) *budget { return newBudget(r, func() error { return nil }) }

func tooMany(err error) bool {
	var many *api.TooManyError
	return errors.As(err, &many)
}

func enter(b *budget, remote string) error { return b.enter(context.Background(), remote) }

func TestABudgetLetsABurstThroughThenItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBudget(3600)
		began := time.Now()
		for i := range budgetBurst {
			if err := enter(b, client); err != nil || time.Since(began) != 0 {
				t.Fatalf("block %d: %v after %v, want it at once", i, err, time.Since(began))
			}
		}
		for i := range 5 {
			if err := enter(b, client); err != nil || time.Since(began) != time.Duration(i+1)*time.Second {
				t.Fatalf("block %d after the burst: %v after %v", i, err, time.Since(began))
			}
		}
		if err := enter(b, "192.0.2.8:1"); err != nil || time.Since(began) != 5*time.Second {
			t.Errorf("another client's block: %v after %v, want it at once", err, time.Since(began))
		}
		time.Sleep(time.Hour)
		began = time.Now()
		for range budgetBurst {
			if err := enter(b, client); err != nil {
				t.Fatal(err)
			}
		}
		if time.Since(began) != 0 {
			t.Errorf("after a pause a burst takes %v", time.Since(began))
		}
	})
}

func TestABudgetWithoutRateNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, began := testBudget(0), time.Now()
		for range 1000 {
			if err := enter(b, client); err != nil || time.Since(began) != 0 {
				t.Fatalf("%v after %v", err, time.Since(began))
			}
		}
	})
}

func TestWhatIsFarTooEarlyIsRefused(t *testing.T) {
	b, now := testBudget(60), time.Now() // one a minute: nobody waits that long
	from := admin.SourceOf(client)
	for range budgetBurst {
		if _, err := b.spend(from, now); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 { // to be refused costs nothing
		if _, err := b.spend(from, now); !tooMany(err) || !strings.Contains(err.Error(), "one in 1m0s on average; come again in 55s") {
			t.Errorf("beyond the burst: %v, want how long to wait", err)
		}
	}
	if _, err := b.spend(from, now.Add(time.Minute)); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

func TestAClientThatLeavesDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBudget(3600)
		for range budgetBurst {
			if err := enter(b, client); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.enter(ctx, client); !errors.Is(err, context.Canceled) {
			t.Errorf("enter = %v, want %v", err, context.Canceled)
		}
	})
}

func TestABudgetRemembersSoManyClientsAndNoMore(t *testing.T) {
	b, now := testBudget(3600), time.Now()
	take := func(i int, now time.Time) error {
		_, err := b.spend(admin.SourceOf(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255)), now)
		return err
	}
	for i := range budgetClients + budgetBurst + int(budgetPatience/time.Second) {
		if err := take(i, now); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
	}
	if len(b.clients) != budgetClients+1 {
		t.Errorf("%d clients are remembered", len(b.clients))
	}
	if err := take(1<<20, now); !tooMany(err) {
		t.Errorf("one more of those that share a place: %v", err)
	}
	if err := take(0, now); err != nil {
		t.Errorf("a client that is known has lost its own place: %v", err)
	}
	if err := take(1<<20, now.Add(time.Minute)); err != nil || len(b.clients) != 1 {
		t.Errorf("after a pause: %v with %d clients, want the old ones forgotten", err, len(b.clients))
	}
}

// What the site hands in has no rate and is searched before what others do; a
// wrong token makes nobody one of them, and guessing it has to wait, but does
// not keep the right one from the admin routes.
func TestBlocksWithTheTokenAreTheSites(t *testing.T) {
	g := start(t, testSandbox(t, t.TempDir(), "api.third_party.rate=1/h"))
	post := func(token string) *http.Response {
		t.Helper()
		req, err := http.NewRequest("POST", "http://"+g.address("http")+"/api/core/v2/blocks", strings.NewReader(`{"protocolVersion":2}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	for i := range budgetBurst {
		if resp := post(""); resp.StatusCode != http.StatusCreated {
			t.Fatalf("block %d of a guest: %s", i, resp.Status)
		}
	}
	resp := post("")
	var body struct{ Error struct{ Message string } }
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || resp.StatusCode != http.StatusTooManyRequests || !strings.Contains(body.Error.Message, "one in 1h0m0s") || resp.Header.Get("Retry-After") != "3595" {
		t.Errorf("a guest's next block: %s, %q, %v", resp.Status, body.Error.Message, err)
	}
	if resp := post(g.token); resp.StatusCode != http.StatusCreated {
		t.Errorf("a block with the token: %s", resp.Status)
	}
	for range 5 {
		if resp := post("wrong"); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a block with a wrong token: %s", resp.Status)
		}
	}
	if resp := post("wrong"); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a block with the sixth wrong token: %s", resp.Status)
	}
	if code := g.get("/api/hedgerow/v1/status", &struct{}{}); code != http.StatusOK {
		t.Errorf("the right token on the admin routes: %d", code)
	}
	farm := g.stages.farm.Stats()
	if got := farm.Proven; got != [3]uint64{budgetBurst, 0, 1} {
		t.Errorf("proven %v, want %d of guests and 1 urgent", got, budgetBurst)
	}
}

func TestGuestsFindTheirOwnNoncesWhenTheFarmIsNotForThem(t *testing.T) {
	g := start(t, testSandbox(t, t.TempDir(), "api.third_party.pow=false"))
	for token, want := range map[string]int{"": http.StatusBadRequest, "Bearer " + g.token: http.StatusCreated} {
		req, err := http.NewRequest("POST", "http://"+g.address("http")+"/api/core/v2/blocks", strings.NewReader(`{"protocolVersion":2}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if token != "" {
			req.Header.Set("Authorization", token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("a block without nonce, with token %t: %s, want %d", token != "", resp.Status, want)
		}
	}
}

func TestGuestsLeaveTheSiteItsShareOfTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		used, broken := int64(50), error(nil)
		room := guestRoom(100, func() (int64, error) { return used, broken })
		b := newBudget(0, room)
		if err := enter(b, client); err != nil {
			t.Errorf("at half of the cap: %v", err)
		}
		used = 51
		time.Sleep(roomCheck)
		if err := enter(b, client); !errors.Is(err, ledger.ErrBusy) {
			t.Errorf("above half of the cap: %v, want %v", err, ledger.ErrBusy)
		}
		used, broken = 0, errors.New("the disk cannot be read")
		time.Sleep(roomCheck)
		if err := enter(b, client); !errors.Is(err, broken) {
			t.Errorf("when its size is not known: %v", err)
		}
	})
}
