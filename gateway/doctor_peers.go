package gateway

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hedgerow-iot/hedgerow/gateway/bus"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// muchBehind is how many blocks a gateway that runs may be behind another
// before that is worth a look; it fetches thousands a second.
const muchBehind = 10_000

const peersCheck = "peers"

// peers looks whether the other gateways of the network are reached: a gateway
// that runs is asked, otherwise each address of the configuration is dialled.
// What is wrong with the files that this needs, other checks say.
func (d *Doctor) peers(ctx context.Context, b *box) []Finding {
	f, err := network.Load(d.Config.networkPath())
	if err != nil {
		return nil
	}
	p := &d.Config.Peers
	if len(f.Gateways) == 1 {
		switch text := lonely(&d.Config, f); {
		case text != "":
			found, advice, _ := strings.Cut(text, "; ")
			return one(Finding{peersCheck, VerdictWarn, found, advice, false})
		case p.Mode == string(bus.Embedded):
			return one(Finding{Check: peersCheck, Verdict: VerdictOK, Found: "a network of one: there is no other gateway"})
		}
	}
	var all []Finding
	if b.status != nil {
		heard, silent := d.askedPeers(ctx, b)
		if all = heard; silent == 0 {
			return all
		}
	}
	key, err := readIdentity(d.Config.Identity)
	if err != nil {
		return all
	}
	cfg, err := busConfig(&d.Config, key, theMembers(f), slog.New(slog.DiscardHandler))
	switch {
	case err != nil:
		return append(all, Finding{peersCheck, VerdictBad, short(err.Error()), "hedgerow check says what else is wrong with the configuration", false})
	case p.Mode == string(bus.External):
		return append(all, tryCluster(cfg, f))
	case p.Listen == "" && p.Clients == "":
		return append(all, Finding{peersCheck, VerdictBad, fmt.Sprintf("the network has %s, and nothing connects this one to them", counted(len(f.Gateways), "gateway")),
			"set peers.listen and peers.routes (deploy/docs/using.md, Several gateways)", false})
	case len(p.Routes) == 0:
		return append(all, Finding{Check: peersCheck, Verdict: VerdictOK, Found: "no routes of its own: it waits for those of the other gateways"})
	}
	return append(all, probeRoutes(ctx, cfg, f)...)
}

// askedPeers says what a gateway that runs knows of the others, and how many it
// does not hear.
func (d *Doctor) askedPeers(ctx context.Context, b *box) (all []Finding, silent int) {
	var answer struct {
		Bus   struct{ LastRefused *struct{ Time, Why string } }
		Items []struct {
			Name, LastSeen, ShunnedUntil string
			Up, Votes                    bool
			Blocks, Lag                  uint64
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := b.ask(ctx, http.MethodGet, "peers", &answer); err != nil {
		return one(Finding{peersCheck, VerdictWarn, "the gateway could not be asked for them: it " + err.Error(), "look at its log", false}), 0
	}
	for _, m := range answer.Items {
		f := Finding{Check: peersCheck, Verdict: VerdictOK, Found: fmt.Sprintf("%s is up, with %s", m.Name, counted(m.Blocks, "block"))}
		switch {
		case m.ShunnedUntil != "":
			f.Verdict, f.Found = VerdictBad, m.Name+" sent what no sound gateway sends; it is not listened to until "+m.ShunnedUntil
			f.Advice = "look at that box: its program, its disk, and who else may have its key; GET peers has the counts"
		case !m.Up && m.LastSeen == "":
			f.Verdict, f.Found = VerdictWarn, m.Name+" was not heard of since this gateway started"
		case !m.Up:
			f.Verdict, f.Found = VerdictWarn, m.Name+" was last heard of at "+m.LastSeen
		case m.Lag > muchBehind:
			f.Verdict, f.Found = VerdictWarn, fmt.Sprintf("%s is up; up to %s of it are missing here", m.Name, counted(m.Lag, "block"))
			f.Advice = "they are being fetched, thousands a second; if the number does not fall, look at the log"
		case !m.Votes:
			f.Verdict, f.Found = VerdictWarn, m.Name+" is up and does not vote"
			f.Advice = "look at the alarms of that box: recovering, syncing or milestone_conflict"
		}
		if !m.Up && f.Advice == "" {
			f.Advice = "start it, name it in peers.routes, or look at the way to it; what it and this one attach meanwhile is exchanged afterwards"
		}
		if !m.Up {
			silent++
		}
		all = append(all, f)
	}
	// Who is all there needs nobody that was refused.
	if r := answer.Bus.LastRefused; r != nil && silent > 0 {
		all = append(all, Finding{peersCheck, VerdictWarn, "a connection was refused at " + r.Time + ": " + short(r.Why),
			"a newcomer is let in once its epoch has begun here: have a member join the network file; a former member is to be stopped, or added again; if it is a worker, list its key in powfarm.remote.workers", false})
	}
	return all, silent
}

// probeRoutes dials all routes at once and says who answers.
func probeRoutes(ctx context.Context, cfg bus.Config, f *network.File) []Finding {
	all := make([]Finding, len(cfg.Routes))
	var wg sync.WaitGroup
	for i, route := range cfg.Routes {
		wg.Go(func() {
			start := time.Now()
			key, err := bus.Probe(ctx, cfg, route)
			all[i] = routeFinding(route, cfg, f, key, err)
			if all[i].Verdict == VerdictOK {
				all[i].Found += fmt.Sprintf(", in %.0f ms", milliseconds(time.Since(start)))
			}
		})
	}
	wg.Wait()
	return all
}

// routeFinding says what it means that a route led to a key, or to an error.
func routeFinding(route string, cfg bus.Config, f *network.File, key ed25519.PublicKey, err error) Finding {
	out := Finding{Check: peersCheck, Verdict: VerdictBad}
	name, member := memberName(f, key)
	pinned := cfg.TLS.CA == nil
	refused := errors.Is(err, bus.ErrRefused)
	switch {
	case err != nil && !refused:
		out.Verdict, out.Found = VerdictWarn, route+" is not reached: "+short(err.Error())
		out.Advice = "start that gateway; if it runs: is this its peers.listen, and is the port open on the way?"
		if !pinned {
			out.Advice += " Is its certificate of the authority in peers.tls.ca, for this name or address, and not expired?"
		}
	case !pinned && refused:
		out.Found, out.Advice = route+" refuses this gateway's certificate: "+short(err.Error()), "is it of the authority that the other side has in peers.tls.ca?"
	case !pinned:
		out.Verdict, out.Found = VerdictOK, route+" has a certificate of the authority"
	case !member:
		out.Found = fmt.Sprintf("%s shows the key 0x%s, which is not one of network %s", route, hex.EncodeToString(key), f.NetworkName)
		out.Advice = "is that the right box? If it is, join the newest epoch here and there"
	case key.Equal(cfg.Key.Public()):
		out.Verdict, out.Found = VerdictWarn, route+" is this gateway itself"
		out.Advice = "take it out of peers.routes, and name the other gateways there"
	case refused:
		out.Found = fmt.Sprintf("%s is %s, which refuses this gateway's key", route, name)
		out.Advice = "the network file there does not have this gateway with this key, as before the epoch that took it in: compare the epochs (hedgerow network show), and join the newest one there or here"
	default:
		out.Verdict, out.Found = VerdictOK, route+" is "+name
	}
	return out
}

func memberName(f *network.File, key ed25519.PublicKey) (name string, ok bool) {
	i, ok := f.Index(key)
	if !ok {
		return "", false
	}
	return f.Gateways[i].Name, true
}

// tryCluster connects as the gateway would, and disconnects.
func tryCluster(cfg bus.Config, f *network.File) Finding {
	server, key, err := bus.Try(cfg)
	if err != nil {
		return Finding{peersCheck, VerdictBad, "no server of peers.url lets this gateway in: " + short(err.Error()),
			"is the address right, does the server run, and does it know these credentials or this key?", false}
	}
	found := "connected to the NATS server at " + server
	if name, ok := memberName(f, key); ok {
		found += ", which is " + name
	}
	return Finding{Check: peersCheck, Verdict: VerdictOK, Found: found}
}
