package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/network"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
	"github.com/hedgerow-iot/hedgerow/ledger/store"
	"github.com/hedgerow-iot/hedgerow/powfarm/curl"
)

// A gateway that was away for many blocks has them soon, and serves its devices
// meanwhile.
func TestGatewayThatWasAwayCatchesUpAndServes(t *testing.T) {
	slow(t)
	blocks := 20_000
	if long() {
		blocks = 100_000
	}
	f := newFleet(t, func(n *network.File) { n.MinPoWScore = 1 }, "silo", "away")
	f.mesh(false)
	silo, away := f.stations[0], f.stations[1]
	began := time.Now()
	silo.fill(f.file, blocks)
	t.Logf("%d blocks made in %v", blocks, time.Since(began).Round(time.Second))

	away.start()
	tr := publishAt(f.stations[1:], "c", 1, 5*time.Millisecond)
	sensor := &mqttSensor{addr: away.mqtt, id: "meter", topic: "readings/meter/count", window: 1, pause: 5 * time.Millisecond}
	tr.mqtt[away] = append(tr.mqtt[away], sensor)
	tr.running.Go(func() { tr.errs <- sensor.run(tr.stop, time.Now().Add(maxTraffic)) })
	away.await("readings without the other gateway", time.Minute, func() bool { return sensor.count() > 50 })
	silo.start()
	away.await("the first blocks", time.Minute, func() bool { return away.blocks() > 1000 })
	first, cpu, from, served := away.blocks(), away.cpu(), time.Now(), sensor.count()
	for away.blocks() < blocks {
		if time.Since(from) > 3*time.Minute {
			t.Fatalf("%d of %d blocks after 3 minutes", away.blocks(), blocks)
		}
		pauseFor(100 * time.Millisecond)
	}
	n, took, used := away.blocks()-first, time.Since(from), away.cpu()-cpu
	t.Logf("%d blocks in %v: %.0f/s, %v of a processor each, its devices included", n, took.Round(time.Millisecond),
		float64(n)/took.Seconds(), (used / time.Duration(n)).Round(time.Microsecond))
	during := sensor.latencies(served)
	away.await("readings after that", time.Minute, func() bool { return sensor.count() > served+len(during) })
	acked := map[string]map[string]bool{}
	tr.end(acked)
	if len(during) == 0 {
		t.Error("no reading was acknowledged meanwhile")
	} else {
		slices.Sort(during)
		t.Logf("%d acknowledgements meanwhile, p50 %v, p99 %v, longest %v", len(during),
			during[len(during)/2], during[len(during)*99/100], during[len(during)-1])
	}
	f.awaitAttached()
	f.awaitEqual("after catching up")
	f.checkOnceEverywhere(acked)
}

// fill makes blocks of another application at a gateway that does not run.
func (s *station) fill(file *network.File, blocks int) {
	s.t.Helper()
	dir := filepath.Join(s.dir, "data", "ledger")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	st, err := store.Open(dir, store.Options{Reserve: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := ledger.New(ledger.Config{Network: file}, st)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- l.Run(ctx) }()
	const writers = 256 // so many are stored together
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			search := curl.Kernels()[0].NewSearcher()
			for i := w; i < blocks; i += writers {
				if err := attach(ctx, l, search, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = g.Wait()
	stop()
	if err := errors.Join(err, <-ran, st.Close()); err != nil {
		s.t.Fatal(err)
	}
}

// attach makes block i, of about 195 bytes, with the work that the network
// wants.
func attach(ctx context.Context, l *ledger.Ledger, search curl.Searcher, i int) error {
	parents := l.Tips()
	parents = parents[:min(len(parents), 2)]
	data := fmt.Appendf(nil, "%08d", i)
	data = append(data, make([]byte, 131-32*len(parents))...)
	b := &stardust.Block{Version: stardust.ProtocolVersion, Parents: parents, Payload: &stardust.TaggedData{Tag: []byte("weather"), Data: data}}
	raw, err := b.AppendBinary(nil)
	if err != nil {
		return err
	}
	search.Reset(stardust.PoWDigest(raw), stardust.TargetZeros(len(raw), l.MinPoWScore()), uint64(i)<<32)
	for found := false; !found; {
		b.Nonce, found, _ = search.Batch()
	}
	for {
		if _, err = l.Attach(ctx, b, nil); !errors.Is(err, ledger.ErrBusy) {
			return err
		}
		pauseFor(time.Millisecond)
	}
}

var blocksMetric = regexp.MustCompile(`(?m)^hedgerow_ledger_blocks ([0-9.e+]+)$`)

// blocks returns the size of the replica from the metrics, which compute no
// digest.
func (s *station) blocks() int {
	s.t.Helper()
	m := blocksMetric.FindSubmatch(s.get("/metrics"))
	if m == nil {
		s.t.Fatal("no metric of the blocks")
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return int(n)
}

// cpu returns the processor time that the process has used.
func (b *box) cpu() time.Duration {
	b.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.cmd.Process.Pid))
	if err != nil {
		b.t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks time.Duration // of a hundredth of a second
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			b.t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}
