package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching"
)

// upkeep does what Run does from time to time.
func upkeep(t *testing.T, j *Journal, now int64) {
	t.Helper()
	pruned, err := j.prune()
	if err != nil {
		t.Fatal(err)
	}
	dropped, err := j.trim(now)
	if err := errors.Join(err, j.reclaim(!dropped && !pruned)); err != nil {
		t.Fatal(err)
	}
}

// Dedup keys outlast their readings. Under load they would fill a journal at
// its cap, which drops all readings for them and then refuses for good.
func TestDedupKeysDoNotFillTheJournal(t *testing.T) {
	if testing.Short() {
		t.Skip("writes some 500 MB")
	}
	for _, tt := range []struct {
		name    string
		senders int // 0: each packet has its own, as a device has that takes a new port each time
		packets int
		least   uint64 // readings that are left in the end
	}{{"few senders", 20, 2_000_000, 1_000_000}, {"a sender a packet", 0, 1_000_000, 200_000}} {
		t.Run(tt.name, func(t *testing.T) {
			j := open0(t, t.TempDir(), Options{MaxDisk: minDisk})
			now := time.Now().UnixMilli()
			busy := 0 // times in a row
			for n := 0; n < tt.packets; {
				packets := siteGroup(n, 4000)
				for i := range packets {
					packets[i].Key = batching.Key{Sender: scattered(n + i), Message: scattered(n + i)}
					if tt.senders > 0 {
						packets[i].Key.Sender = scattered(i % tt.senders)
					}
				}
				_, err := j.Append(packets, batching.Stamp{Received: now})
				switch {
				case err == nil:
					n, busy = n+len(packets), 0
				case !errors.Is(err, batching.ErrBusy):
					t.Fatal(err)
				default:
					if busy++; busy > 500 {
						t.Fatalf("refused for good after %d packets: %v, %+v", n, err, j.Stats())
					}
				}
				mustFlush(t, j)
				if err := j.Trim(j.Next() - 1); err != nil {
					t.Fatal(err)
				}
				upkeep(t, j, now)
			}
			if s := j.Stats(); s.Readings < tt.least {
				t.Errorf("%d of %d readings are left: %+v", s.Readings, tt.packets, s)
			}
			checkNow(t, j)
		})
	}
}

// scattered returns 16 bytes that look random and are those of n.
func scattered(n int) (b [16]byte) {
	binary.BigEndian.PutUint64(b[:], uint64(n+1)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(b[8:], uint64(n+1)*0xc2b2ae3d27d4eb4f)
	return b
}

func TestPruneLeavesWhatRecallLooksAt(t *testing.T) {
	dir := t.TempDir()
	j := open0(t, dir, Options{})
	now := time.Now().UnixMilli()
	key := func(sender, n int) batching.Key {
		return batching.Key{Sender: scattered(sender), Message: scattered(n)}
	}
	const packets, each = 3 * windowSize, 64
	for n := range packets {
		mustAppend(t, j, now, batching.Packet{Readings: pack(num("a", "x", 1)).Readings, Key: key(1, n)})
		if n == 0 { // a sender that is heard once
			mustAppend(t, j, now, batching.Packet{Readings: pack(num("a", "x", 1)).Readings, Key: key(2, n)})
		}
		if n%each == each-1 {
			mustFlush(t, j)
		}
	}
	n, err := j.pruneWindows(0, j.checkpoint.next)
	if err != nil || n < windowSize/2*18 {
		t.Errorf("pruned %d bytes, %v", n, err)
	}
	if again, err := j.pruneWindows(0, j.checkpoint.next); err != nil || again != 0 {
		t.Errorf("a second time %d bytes, %v", again, err)
	}
	k := open0(t, killed(t, dir), Options{})
	for n := packets - windowSize; n < packets; n++ {
		if _, ok := k.Recall(key(1, n), time.Hour, now); !ok {
			t.Fatalf("packet %d of %d is forgotten", n, packets)
		}
	}
	if _, ok := k.Recall(key(2, 0), time.Hour, now); !ok {
		t.Error("the packet of the other sender is forgotten")
	}
	if _, err := j.pruneWindows(j.Next(), j.checkpoint.next); err != nil {
		t.Fatal(err)
	}
	k = open0(t, killed(t, dir), Options{})
	if _, ok := k.Recall(key(2, 0), time.Hour, now); ok {
		t.Error("a packet below the number is remembered")
	}
	checkNow(t, k)
}

func TestPruningKeepsTheNewestOfEachSender(t *testing.T) {
	const half, w = windowSize / 2, windowSize
	type window struct {
		sender, packets int
		expired, gone   bool
	}
	for i, windows := range [][]window{
		{{1, w, false, false}},
		{{1, half, false, true}, {1, half, false, false}, {1, half, false, false}},
		{{1, half, false, true}, {1, w, false, false}, {2, half, false, false}},
		{{1, half, true, true}, {1, 1, false, false}, {2, 1, true, true}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			var gone []uint64
			p := &pruning{delete: func(s storedWindow) error { gone = append(gone, s.first); return nil }}
			var want []uint64
			for n, x := range windows {
				s := storedWindow{key: windowKey(scattered(x.sender), uint64(n)), first: uint64(n), packets: x.packets, expired: x.expired}
				if err := p.add(s); err != nil {
					t.Fatal(err)
				}
				if x.gone {
					want = append(want, uint64(n))
				}
			}
			if err := p.sender(); err != nil {
				t.Fatal(err)
			}
			if slices.Sort(gone); !slices.Equal(gone, want) {
				t.Errorf("deleted %v, want %v", gone, want)
			}
		})
	}
}
