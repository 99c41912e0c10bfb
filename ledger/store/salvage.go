package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"

	"github.com/hedgerow-iot/hedgerow/ledger"
	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// ReadRuns returns the readings that the store in dir, which nobody may have
// open, marks as attached: their runs in ascending order, neighbours put
// together. It is for a store whose blocks are damaged. The error wraps
// ErrDamaged unless every mark could be read as it was written, and ErrNewer
// or ErrDiskFull when that is why. What a crash left is recovered as by Open;
// nothing else of the store changes.
//
// Damage beyond what Open survives can end the process: badger checks some of
// what it reads in goroutines of its own.
func ReadRuns(dir string, log *slog.Logger) (runs [][2]uint64, err error) {
	if runs, err = readRuns(dir, log); err != nil {
		return nil, fmt.Errorf("read the marks of %s: %w", dir, err)
	}
	return runs, nil
}

func readRuns(dir string, log *slog.Logger) (runs [][2]uint64, err error) {
	if err := newGuard(dir, Options{}).checkRoom("read"); err != nil {
		return nil, err
	}
	if err := orphans(dir); err != nil {
		return nil, err
	}
	if err := checkTables(dir, prefixMark); err != nil {
		return nil, err
	}
	s := &Store{}
	if s.db, err = openBadger(still(badgerOptions(dir, logger{log, &s.failed}))); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.db.Close()) }()
	if err := s.checkFormat(); err != nil {
		return nil, err
	}
	err = s.db.View(func(txn *badger.Txn) error {
		prefix := []byte{prefixMark}
		return scan(txn, prefix, prefix, func(key, value []byte) (bool, error) {
			run, _, err := decodeMark(key, value)
			if err != nil {
				return false, err
			}
			n := len(runs)
			switch {
			case n > 0 && run[0] <= runs[n-1][1]:
				return false, damaged("marks %d-%d and %d-%d overlap", runs[n-1][0], runs[n-1][1], run[0], run[1])
			case n > 0 && run[0] == runs[n-1][1]+1:
				runs[n-1][1] = run[1]
			default:
				runs = append(runs, run)
			}
			return true, nil
		})
	})
	return runs, err
}

// CreateWithRuns makes a store in dir, which must not exist, that marks these
// readings as attached to a block that is elsewhere, and holds nothing else.
// With begin it is that of a gateway that never voted ([ledger.Begin]). It is
// durable and closed when CreateWithRuns returns nil.
func CreateWithRuns(dir string, runs [][2]uint64, begin bool, log *slog.Logger) error {
	if _, err := os.Stat(dir); err == nil {
		return fmt.Errorf("make a store in %s: it is there already", dir)
	}
	s, err := Open(dir, Options{Reserve: 1, Log: log})
	if err != nil {
		return err
	}
	const most = 4096 // runs that one transaction takes
	for len(runs) > 0 && err == nil {
		n := min(most, len(runs))
		err = s.Commit(ledger.Change{Entries: []ledger.Entry{{ID: stardust.GenesisID, Runs: runs[:n]}}})
		runs = runs[n:]
	}
	if begin && err == nil {
		err = ledger.Begin(s)
	}
	return errors.Join(err, s.Close())
}

// checkTables returns an error unless every table in dir can be trusted as far
// as keys with this first byte go: badger reads blocks of entries without
// looking at their checksums, and would take a flipped bit for what was stored.
func checkTables(dir string, prefix byte) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := checkTable(b, prefix); err != nil {
			return fmt.Errorf("table %s: %w", filepath.Base(name), err)
		}
	}
	return nil
}

// checkTable checks the checksums of a table's index and of its blocks that can
// hold keys with this first byte. A table is blocks, index, length of the
// index (4 bytes), checksum of the index, its length (4 bytes); a block ends
// in its checksum and that one's length.
func checkTable(b []byte, prefix byte) (err error) {
	defer func() {
		if p := recover(); p != nil { // flatbuffers trusts an index
			err = damaged("index: %v", p)
		}
	}()
	b, sum, ok := cutSum(b)
	if !ok || len(b) < 4 {
		return damaged("no end")
	}
	size := binary.BigEndian.Uint32(b[len(b)-4:])
	b = b[:len(b)-4]
	if uint64(size) > uint64(len(b)) {
		return damaged("index of %d bytes", size)
	}
	raw := b[len(b)-int(size):]
	if !sums(raw, sum) {
		return damaged("checksum of the index")
	}
	index := fb.GetRootAsTableIndex(raw, 0)
	n := index.OffsetsLength()
	for i := range n {
		var at, next fb.BlockOffset
		if index.Offsets(&at, i); at.Key(0) > prefix { // blocks are in order of their first keys
			break
		}
		if i+1 < n && index.Offsets(&next, i+1) && next.Key(0) < prefix {
			continue
		}
		end := uint64(at.Offset()) + uint64(at.Len())
		if end > uint64(len(b)) {
			return damaged("block %d ends at %d of %d", i, end, len(b))
		}
		if data, sum, ok := cutSum(b[at.Offset():end]); !ok || !sums(data, sum) {
			return damaged("checksum of block %d", i)
		}
	}
	return nil
}

// cutSum takes a checksum and its length from the end of b.
func cutSum(b []byte) (rest, sum []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	size := binary.BigEndian.Uint32(b[len(b)-4:])
	b = b[:len(b)-4]
	if uint64(size) > uint64(len(b)) {
		return nil, nil, false
	}
	at := len(b) - int(size)
	return b[:at], b[at:], true
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sums reports whether sum is badger's checksum of data: a protobuf message
// whose field 2 is the CRC-32C; field 1, the kind, is 0 and therefore absent.
func sums(data, sum []byte) bool {
	want := crc32.Checksum(data, castagnoli)
	if len(sum) == 0 {
		return want == 0
	}
	v, n := binary.Uvarint(sum[1:])
	return sum[0] == 2<<3 && n == len(sum)-1 && v == uint64(want)
}

// checkSums holds all blocks of all tables against their checksums, which
// badger does not do when it reads them.
func checkSums(db *badger.DB) (err error) {
	defer func() {
		if p := recover(); p != nil { // badger, of a block whose end is damaged
			err = damaged("%v", p)
		}
	}()
	if err := db.VerifyChecksum(); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}
