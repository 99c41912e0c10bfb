package main_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/envelope"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// kills is how often the crash test pulls the plug.
const kills = 25

// Every acknowledged reading survives any number of kills and stands exactly
// once in the API and exactly once on the Tangle; what a device sent again is
// not stored again.
func TestKillLosesAndDoublesNothing(t *testing.T) {
	n := kills
	if testing.Short() {
		n = 3
	}
	b := newBox(t, t.TempDir())
	b.start()

	limit := time.Now().Add(5 * time.Minute)
	stop := make(chan struct{})
	var sensors sync.WaitGroup
	const each = 3 // sensors per protocol
	errs := make(chan error, 2*each)
	var mqtt []*mqttSensor
	for i := range each {
		id := fmt.Sprintf("mqtt-%d", i)
		s := &mqttSensor{addr: b.mqtt, id: id, topic: "readings/" + id + "/count", window: 20, pause: 4 * time.Millisecond}
		mqtt = append(mqtt, s)
		sensors.Go(func() { errs <- s.run(stop, limit) })
	}
	var coap []*coapSensor
	for i := range each {
		s := &coapSensor{addr: b.coap, device: fmt.Sprintf("coap-%d", i), name: "count"}
		coap = append(coap, s)
		sensors.Go(func() { errs <- s.run(stop, limit) })
	}
	for range n {
		pauseFor(time.Duration(50+rand.IntN(700)) * time.Millisecond)
		b.kill()
		b.start()
	}
	close(stop)
	sensors.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}

	acked := map[string]bool{}
	for _, s := range mqtt {
		for _, v := range s.acked {
			acked[s.id+"="+strconv.Itoa(v)] = true
		}
	}
	for _, s := range coap {
		for _, v := range s.acked {
			acked[s.device+"="+strconv.Itoa(v)] = true
		}
	}
	b.awaitAttached(2 * time.Minute)
	t.Logf("%d kills, %d acknowledged readings", n, len(acked))
	b.checkOnce(acked)
}

// awaitAttached waits until nothing that the gateway stored waits for its block.
func (b *box) awaitAttached(limit time.Duration) {
	b.t.Helper()
	b.await("an empty backlog", limit, func() bool {
		var status struct {
			Backlog struct{ Stored, Batched int }
		}
		b.getJSON("/api/hedgerow/v1/status", &status)
		return status.Backlog.Stored == 0 && status.Backlog.Batched == 0
	})
}

// checkOnce compares what was acknowledged, as "device=value", with what the
// API lists and with what the blocks on the Tangle hold.
func (b *box) checkOnce(acked map[string]bool) {
	b.t.Helper()
	file, err := network.Load(filepath.Join(b.dir, "data", "network.json"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.checkOnceOf(file, file.Gateways[0], acked)
}

// checkOnceOf is checkOnce for what a member acknowledged, as this gateway sees
// it, which may be another one, in one of the states given, or in any from attached on.
func (b *box) checkOnceOf(file *network.File, member network.Gateway, acked map[string]bool, states ...string) {
	b.t.Helper()
	if len(states) == 0 {
		states = []string{"attached", "approved", "confirmed", "certified"}
	}
	inAPI := map[string]int{}
	for _, r := range b.readingsOf(member.Name) {
		if !slices.Contains(states, r.State) {
			b.t.Errorf("reading %s has state %s", r.ID, r.State)
		}
		inAPI[fmt.Sprintf("%s=%v", r.Device, r.Value)]++
	}
	onTangle := b.tangle(file, member)
	for key := range acked {
		if inAPI[key] != 1 || onTangle[key] != 1 {
			b.t.Errorf("%s acknowledged %s, which stands %d times in the API and %d times on the Tangle", member.Name, key, inAPI[key], onTangle[key])
		}
	}
	for key, n := range inAPI {
		if n != 1 || onTangle[key] != 1 {
			b.t.Errorf("%s stored %s, which stands %d times in the API and %d times on the Tangle", member.Name, key, n, onTangle[key])
		}
	}
	if len(onTangle) != len(inAPI) {
		b.t.Errorf("%d different readings of %s on the Tangle, %d in the API", len(onTangle), member.Name, len(inAPI))
	}
}

// tangle opens every batch of a member on the Tangle as a stranger with the
// network file would and counts its readings as "device=value".
func (b *box) tangle(file *network.File, member network.Gateway) map[string]int {
	b.t.Helper()
	want := envelope.Expect{Gateway: member.Name, Key: member.PublicKey[:], Genesis: file.GenesisHash()}
	found := map[string]int{}
	for cursor := ""; ; {
		var page struct {
			Items  []string
			Cursor string
		}
		b.getJSON("/api/hedgerow/v1/blocks?limit=1000&tag="+string(envelope.Tag(member.Name))+"&cursor="+cursor, &page)
		for _, id := range page.Items {
			block, err := stardust.ParseBlock(b.get("/api/core/v2/blocks/" + id))
			if err != nil {
				b.t.Fatalf("block %s: %v", id, err)
			}
			batch, err := envelope.Open(block.Payload.(*stardust.TaggedData).Data, want)
			if err != nil {
				b.t.Fatalf("block %s: %v", id, err)
			}
			for _, r := range batch.Readings {
				found[r.Device+"="+r.Value.Text()]++
			}
		}
		if cursor = page.Cursor; cursor == "" {
			return found
		}
	}
}
