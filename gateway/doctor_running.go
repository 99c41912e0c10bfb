package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway/admin"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// askTime is how long a gateway that runs may take to say how it is.
const askTime = 10 * time.Second

// A runningStatus is the part of a gateway's status that a doctor heeds.
type runningStatus struct {
	Ready     bool
	NotReady  string
	Listeners []admin.Listener
	PoW       struct{ Workers int }
	Workers   []struct{ Alive bool } // on other boxes
	Backlog   struct{ Stored, Batched uint64 }
	Quorum    struct{ Needed, Up uint64 }
}

func (d *Doctor) askStatus(ctx context.Context, b *box) (*runningStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var s runningStatus
	if err := b.ask(ctx, http.MethodGet, "status", &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// errNotAdmitted is wrapped by the error of asking with a token that is not the
// one that the gateway was started with.
var errNotAdmitted = errors.New("does not take the admin token")

// errNoToken is that of having none to ask with.
var errNoToken = errors.New("cannot be asked without the admin token")

// unasked is the finding of a gateway that runs and could not be asked.
func (d *Doctor) unasked(b *box, err error) Finding {
	f := Finding{Check: "gateway", Verdict: VerdictBad, Found: "it runs, but " + err.Error()}
	switch {
	case b.unseen && errors.Is(err, errNoToken):
		f.Found, f.Advice = "only its user sees whether it runs", "ask as the gateway's user"
	case b.unseen:
		f.Found = "only its user sees whether it runs; what is at " + b.address + " " + err.Error()
		f.Advice = "ask as the gateway's user"
	case errors.Is(err, errNotAdmitted):
		f.Advice = "the token was changed after the start: put the old one back, or restart the gateway"
	case errors.Is(err, errNoToken):
		f.Advice = "see admin token above"
	default:
		f.Advice = "look at its log; restart it"
	}
	return f
}

// ask sends a request to the gateway's admin API and decodes the answer.
func (b *box) ask(ctx context.Context, method, route string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+b.address+"/api/hedgerow/v1/"+route, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+b.token)
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("does not answer: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return fmt.Errorf("does not answer: %w", err)
	}
	if resp.StatusCode == http.StatusUnauthorized {
		return errNotAdmitted
	}
	if resp.StatusCode != http.StatusOK {
		var answer struct {
			Error struct{ Message string }
		}
		_ = json.Unmarshal(text, &answer) // the status says enough
		return fmt.Errorf("answers %s: %s", resp.Status, short(answer.Error.Message))
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("answers what is no status: %w", err)
	}
	return nil
}

// runningStores has the gateway check its stores while it works.
func (d *Doctor) runningStores(ctx context.Context, b *box) []Finding {
	if b.status == nil {
		return uncheckedStores("the gateway holds them and could not be asked", "see gateway below, and ask again; or stop it before")
	}
	var answer struct{ Stores []admin.StoreCheck }
	if err := b.ask(ctx, http.MethodPost, "check", &answer); err != nil {
		return uncheckedStores("the gateway holds them and "+err.Error(), "ask again later, or stop it before")
	}
	var all []Finding
	for _, s := range answer.Stores {
		f := Finding{Check: s.Store, Verdict: VerdictOK, Found: fmt.Sprintf("the gateway read it whole and in order in %.1f s", s.Seconds)}
		switch s.Result {
		case admin.CheckDamaged:
			f.Verdict, f.Found, f.Store = VerdictBad, short(s.Error), true
			f.Advice = "stop the gateway and ask again: what is on the disk decides"
		case admin.CheckUnchecked:
			f.Verdict, f.Found = VerdictWarn, "not checked: "+short(s.Error)
			f.Advice = "ask again when fewer readings come in, or stop the gateway before"
		}
		all = append(all, f)
	}
	return all
}

// proofOfWork looks whether there is anybody to search.
func (d *Doctor) proofOfWork(_ context.Context, b *box) []Finding {
	f := Finding{Check: "proof_of_work", Verdict: VerdictBad, Advice: "set powfarm.workers to auto, or start a worker whose key is in powfarm.remote.workers"}
	if b.status == nil {
		file, _ := network.Load(d.Config.networkPath()) // what is wrong with it, a check of its own says
		switch c := &d.Config; {
		case c.Powfarm.Workers != 0:
			return nil // bench pow says how fast they are
		case asksOthers(c, file):
			f.Verdict, f.Found = VerdictOK, "powfarm.workers is 0: other boxes are asked"
			f.Advice = ""
		default:
			f.Found = noProver
		}
		return one(f)
	}
	s, alive := b.status, 0
	for _, w := range s.Workers {
		if w.Alive {
			alive++
		}
	}
	waiting := s.Backlog.Stored + s.Backlog.Batched
	if f.Found = "no worker searches, here or on another box: " + counted(waiting, "reading") + " in no block"; s.PoW.Workers+alive > 0 {
		f.Verdict, f.Advice = VerdictOK, ""
		f.Found = fmt.Sprintf("%s here, %d on other boxes", counted(uint64(s.PoW.Workers), "worker"), alive)
	}
	return one(f)
}

// quorum looks whether enough gateways are up to confirm anything, as the one
// that runs sees it.
func (d *Doctor) quorum(_ context.Context, b *box) []Finding {
	if b.status == nil {
		return nil
	}
	q := b.status.Quorum
	f := Finding{Check: "quorum", Verdict: VerdictOK, Found: fmt.Sprintf("gateways of weight %d are up, %d is needed", q.Up, q.Needed)}
	if q.Up < q.Needed {
		f.Verdict = VerdictBad
		f.Advice = "readings are taken in and attached, and nothing is confirmed until more gateways are up: see peers"
	}
	return one(f)
}

// listeners looks whether each address of the configuration can be listened
// on, or is served by the gateway that runs.
func (d *Doctor) listeners(_ context.Context, b *box) []Finding {
	if b.address != "" {
		return b.served()
	}
	if b.pid != 0 {
		return nil // who knows whose they are
	}
	var all []Finding
	for _, l := range d.Config.listens() {
		protocol, _, _ := strings.Cut(l.key, ".")
		f := Finding{Check: "listener", Verdict: VerdictOK, Found: l.key + " " + l.address + " is free"}
		err := tryListen(l.network, l.address)
		if _, ok := freePort(&d.Config, l.address, err); ok {
			f.Verdict, f.Found = VerdictWarn, l.key+" "+l.address+" is taken"
			f.Advice = "the sandbox takes another port and says which"
		} else if err != nil {
			f.Verdict, f.Found = VerdictBad, listenError(protocol, l.address, err).Error()
			f.Advice = "stop the other program, or change " + l.key
		}
		all = append(all, f)
	}
	return all
}

// tryListen listens on the address for a moment.
func tryListen(network, address string) error {
	if network == "udp" {
		c, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	return l.Close()
}

// served looks whether the gateway answers on what it says that it listens on.
// Datagrams have no connection to try, and a NATS connection that says nothing
// is a warning in the log: its word counts for them.
func (b *box) served() []Finding {
	if b.status == nil {
		return nil
	}
	var all []Finding
	if !b.status.Ready {
		all = append(all, Finding{"ready", VerdictBad, "readings are refused: " + short(b.status.NotReady), "remove the cause; intake goes on by itself", false})
	}
	for _, l := range b.status.Listeners {
		f := Finding{Check: "listener", Verdict: VerdictOK, Found: l.Protocol + " " + l.Address + " is served by the gateway"}
		if l.Protocol == "mqtt" || l.Protocol == "websocket" || l.Protocol == "http" {
			c, err := net.DialTimeout("tcp", reachable(l.Address), askTime)
			if err != nil {
				f.Verdict, f.Found, f.Advice = VerdictBad, fmt.Sprintf("%s %s is not served: %v", l.Protocol, l.Address, err), "restart the gateway"
			} else {
				_ = c.Close()
			}
		}
		all = append(all, f)
	}
	return all
}
