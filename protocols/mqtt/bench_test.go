package mqtt

import (
	"io"
	"testing"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// BenchmarkPublishQoS1 has one client keep 20 publishes in flight against a
// sink that stores at once: what a reading costs in this package, the
// library, the payload decoder and the sockets of both sides.
func BenchmarkPublishQoS1(b *testing.B) {
	for _, subscriber := range []string{"none", "QoS 0"} {
		b.Run("subscriber="+subscriber, func(b *testing.B) {
			br := start(b, discard{}, nil)
			if subscriber != "none" {
				sub := connect(b, br.addr, login{id: "sub"})
				sub.subscribe(1, "readings/#", 0)
				go io.Copy(io.Discard, sub.Conn) // ends with the broker
			}
			c := connect(b, br.addr, login{id: "probe"})
			var window []byte
			for id := range uint16(20) {
				window = append(window, c.packet(pub{topic: temp, payload: `{"v":21.5,"u":"Cel"}`, qos: 1, id: id + 1})...)
			}
			acks := make([]byte, 20*4)
			b.ReportAllocs()
			for b.Loop() {
				c.send(window)
				if _, err := io.ReadFull(c.r, acks); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(20*b.N), "ns/publish")
		})
	}
}

// A discard says of everything that it is durable, and forgets it.
type discard struct{}

func (discard) Lead(batching.Leader) bool { return false }

func (discard) Submit(batching.Submission) (*batching.Receipt, error) {
	r, resolve := batching.NewReceipt()
	resolve(1, nil)
	return r, nil
}
