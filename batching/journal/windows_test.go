package journal

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
	"github.com/hedgerow-iot/hedgerow/batching/reading"
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

// A box without a clock of its own starts in 1970. What it stores before its
// clock is set is recognised afterwards, in memory and in the store.
func TestRepetitionIsRecognisedWhenTheClockIsSetInBetween(t *testing.T) {
	const now = clockUnset + 86_400_000*500
	dir := t.TempDir()
	j := open0(t, dir, Options{})
	mustAppend(t, j, 5_000, batching.Packet{Readings: []reading.Reading{num("a", "x", 1)}, Key: keyOf(1, 1)})
	find := func(j *Journal, when string, at int64, want bool) {
		t.Helper()
		if seq, ok := j.Recall(keyOf(1, 1), time.Hour, at); ok != want || ok && seq != 1 {
			t.Errorf("%s: recall = %d, %t; want %t", when, seq, ok, want)
		}
	}
	find(j, "before", 6_000, true)
	find(j, "after two hours without a set clock", 5_000+2*3_600_000, false)
	find(j, "in memory", now, true)
	if err := j.flush(); err != nil {
		t.Fatal(err)
	}
	find(open0(t, killed(t, dir), Options{}), "after a restart", now, true)
	if got := windowTTL(time.UnixMilli(5_000)); !time.UnixMilli(5_000).Add(got).After(time.UnixMilli(now)) {
		t.Errorf("a window written in 1970 expires after %v", got)
	}
	mustAppend(t, j, now, batching.Packet{Readings: []reading.Reading{num("a", "x", 1)}, Key: keyOf(1, 2)})
	if _, ok := j.Recall(keyOf(1, 2), time.Hour, now+2*3_600_000); ok {
		t.Error("recalled after its time")
	}
	// The clock steps back: what came later by it is young.
	if _, ok := j.Recall(keyOf(1, 2), time.Hour, now-36*3_600_000); !ok {
		t.Error("forgotten because the clock stepped back")
	}
}
