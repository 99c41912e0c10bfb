package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
)

// Badger's manifest is a header and records of changes: tables that came and
// went. When the sync behind a record fails, badger deletes the tables that
// the record brought, and leaves the record: the next start finds a table
// missing and gives up, although all that the record took away is still there.
// So a start leaves out records that were undone like that.
const (
	manifestHeader = 8 // magic and versions; badger checks them
	recordHeader   = 8 // length and CRC-32C
)

// A tableChange is one record of a manifest.
type tableChange struct {
	raw              []byte // with its header
	created, deleted []uint64
}

// mendManifest repairs the manifest in dir if a record was undone, and
// reports whether it did. The error wraps ErrCorrupt when a table is missing
// for another reason, or has no end.
func mendManifest(dir string) (mended bool, err error) {
	name := filepath.Join(dir, badger.ManifestFilename)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, orphans(dir)
	}
	if err != nil || len(b) < manifestHeader {
		return false, err
	}
	changes := parseManifest(b[manifestHeader:])
	for {
		tables := tablesOf(changes)
		missing := uint64(0)
		for id := range tables {
			switch ok, err := whole(dir, id); {
			case err != nil:
				return false, err
			case !ok:
				missing = max(missing, id) // ids are given in order from 1
			}
		}
		if missing == 0 {
			break
		}
		i := tables[missing]
		for _, id := range changes[i].deleted {
			if ok, err := whole(dir, id); err != nil || !ok {
				return false, fmt.Errorf("%w: table %d is missing", ErrCorrupt, missing)
			}
		}
		changes = append(changes[:i:i], changes[i+1:]...)
		mended = true
	}
	if !mended {
		return false, nil
	}
	out := b[:manifestHeader:manifestHeader]
	for _, c := range changes {
		out = append(out, c.raw...)
	}
	return true, replaceFile(name, out)
}

// tablesOf returns the tables that there are after the changes, and which of
// them created each.
func tablesOf(changes []tableChange) map[uint64]int {
	tables := map[uint64]int{}
	for i, c := range changes {
		for _, id := range c.created {
			tables[id] = i
		}
		maps.DeleteFunc(tables, func(id uint64, _ int) bool {
			return slices.Contains(c.deleted, id)
		})
	}
	return tables
}

// parseManifest returns the records up to the first one that is cut off or
// damaged, as badger does.
func parseManifest(b []byte) (changes []tableChange) {
	for len(b) >= recordHeader {
		n := uint64(binary.BigEndian.Uint32(b))
		if n > uint64(len(b)-recordHeader) {
			break
		}
		body := b[recordHeader : recordHeader+n]
		if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[4:]) {
			break
		}
		c := tableChange{raw: b[:recordHeader+n]}
		if !c.parse(body) {
			break
		}
		changes, b = append(changes, c), b[recordHeader+n:]
	}
	return changes
}

// parse reads a protobuf message ManifestChangeSet: repeated field 1, in which
// field 1 is a table and field 2 is 1 for a deletion.
func (c *tableChange) parse(b []byte) bool {
	for len(b) > 0 {
		size, n := binary.Uvarint(b[1:])
		if b[0] != 1<<3|2 || n <= 0 || size > uint64(len(b)-1-n) {
			return false
		}
		var id, op uint64
		for m := b[1+n : 1+n+int(size)]; len(m) > 0; {
			v, k := binary.Uvarint(m[1:])
			if m[0]&7 != 0 || k <= 0 {
				return false
			}
			switch m[0] >> 3 {
			case 1:
				id = v
			case 2:
				op = v
			}
			m = m[1+k:]
		}
		if op == 1 {
			c.deleted = append(c.deleted, id)
		} else {
			c.created = append(c.created, id)
		}
		b = b[1+n+int(size):]
	}
	return true
}

// whole reports whether the table is there. One that ends in zeros, on which
// badger panics where nobody can recover it, is an error.
func whole(dir string, id uint64) (bool, error) {
	f, err := os.Open(table.NewFilename(id, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	var end [4]byte // length of the checksum before it
	if _, err := f.ReadAt(end[:], info.Size()-int64(len(end))); err != nil || binary.BigEndian.Uint32(end[:])-1 > 64 {
		return false, fmt.Errorf("%w: table %d of %d bytes has no end", ErrCorrupt, id, info.Size())
	}
	return true, nil
}

// replaceFile writes a file durably under the name of another.
func replaceFile(name string, b []byte) error {
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// orphans returns an error when dir holds tables although it has no manifest,
// as after an incomplete copy: badger would begin anew and delete them.
func orphans(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".sst" {
			return fmt.Errorf("%w: %s is there but the file %s is missing", ErrCorrupt, e.Name(), badger.ManifestFilename)
		}
	}
	return nil
}
