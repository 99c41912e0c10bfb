package journal

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// More senders than memory keeps, before any of it is indexed and after: the
// first of them is recognised all the same, in memory or in the store.
func TestManySendersAreAllRecognised(t *testing.T) {
	const senders = maxWindowKeys / 3 * 5 / 4 // each with one packet costs three entries
	j := open0(t, t.TempDir(), Options{})
	key := func(i int) (k batching.Key) {
		binary.BigEndian.PutUint32(k.Sender[:], uint32(i+1))
		k.Message[0] = 1
		return k
	}
	var packets []batching.Packet
	for i := range senders {
		p := pack(num("probe", "count", int64(i)))
		p.Key = key(i)
		if packets = append(packets, p); len(packets) == 1000 || i == senders-1 {
			mustAppend(t, j, 1000, packets...)
			packets = nil
		}
	}
	check := func(when string) {
		t.Helper()
		for _, i := range []int{0, 1, senders / 2, senders - 1} {
			if seq, ok := j.Recall(key(i), time.Hour, 1000); !ok || seq != uint64(i+1) {
				t.Errorf("%s sender %d of %d: number %d, %t; want %d", when, i, senders, seq, ok, i+1)
			}
		}
		if seq, ok := j.Recall(key(senders), time.Hour, 1000); ok {
			t.Errorf("%s a new sender has number %d", when, seq)
		}
	}
	if j.Stats().Unindexed != senders {
		t.Fatalf("%d readings are not indexed yet, want all %d", j.Stats().Unindexed, senders)
	}
	check("before indexing")
	if err := j.flush(); err != nil {
		t.Fatal(err)
	}
	if n := len(j.windows.senders); 3*n > maxWindowKeys {
		t.Errorf("windows of %d senders are in memory", n)
	}
	check("after indexing")
}
