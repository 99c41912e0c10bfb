package journal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	headName = "head"
	// headBytes is the size of the head's file. A lone reading takes a block
	// of it until it is indexed.
	headBytes = 8 << 20
	// headBlock is what a record begins on and takes whole: no append touches a
	// block with another record that is needed.
	headBlock = 4096
	headID    = 16
	// headRecord is id(16) first(8) length(4) CRC-32C(4), then the value.
	headRecord = headID + 8 + 4 + 4
)

// scanBlocks is how many blocks are looked at after one read.
const scanBlocks = 32

// errHeadFull means that the head has no room before something is released.
var errHeadFull = errors.New("head is full")

// A head is the log in front of the store: a file of fixed size, written round
// and round, in which a group is durable after one write. The file has all its
// blocks from the beginning, so that a write changes nothing but data, and it
// goes past the page cache, which would have to write the large pages that it
// keeps files in.
//
// append has one caller at a time; release may be called meanwhile.
type head struct {
	path   string
	f      *os.File
	id     [headID]byte // begins every record; random, so that no payload can pass for one
	direct bool         // f goes past the page cache
	space  []byte       // where a record is put together, aligned as a direct write wants it

	mu   sync.Mutex
	end  int64    // where the last record ends
	live []record // those not released, oldest first
}

// A record is where a group stands in the head.
type record struct {
	at, end     int64
	first, next uint64
}

// createHead makes the file of a new journal, durable. Records come into it
// only after the store has been told of it, so a crash leaves zeros at most:
// anything else belongs to a store that is lost, and ErrCorrupt says so.
func createHead(dir string) error {
	name := filepath.Join(dir, headName)
	b, err := os.ReadFile(name)
	switch {
	case err == nil && len(bytes.Trim(b, "\x00")) > 0:
		return fmt.Errorf("%w: %s holds readings, but the store beside it is empty", ErrCorrupt, name)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for n := 0; n < headBytes && err == nil; n += len(zeros) {
		_, err = f.Write(zeros)
	}
	return errors.Join(err, f.Sync(), f.Close(), syncDir(dir))
}

// openHead opens the file that createHead made. The error wraps ErrCorrupt
// when it is missing or was cut off.
func openHead(dir string, id [headID]byte) (*head, error) {
	h := &head{path: filepath.Join(dir, headName), id: id, direct: directFlag != 0}
	info, err := os.Stat(h.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%w: %s is missing", ErrCorrupt, h.path)
	case err != nil:
		return nil, err
	case info.Size() != headBytes:
		return nil, fmt.Errorf("%w: %s has %d bytes, want %d", ErrCorrupt, h.path, info.Size(), headBytes)
	}
	return h, h.reopen()
}

// reopen opens the file for writing, past the page cache where that can be.
func (h *head) reopen() error {
	if h.f != nil {
		h.f.Close()
	}
	flags := os.O_WRONLY | unix.O_DSYNC
	var err error
	if h.direct {
		if h.f, err = os.OpenFile(h.path, flags|directFlag, 0); err == nil || !errors.Is(err, unix.EINVAL) {
			return err
		}
		h.direct = false // this file system has no such thing
	}
	h.f, err = os.OpenFile(h.path, flags, 0)
	return err
}

func (h *head) close() error { return h.f.Close() }

// append writes the value of the group [first, next), which is durable when it
// returns nil. [errHeadFull] means that nothing was done; any other error
// leaves open whether the record is there.
func (h *head) append(first, next uint64, value []byte) error {
	size := recordSize(len(value))
	at, ok := h.place(size)
	if !ok {
		return errHeadFull
	}
	r := record{at: at, end: at + size, first: first, next: next}
	if err := h.write(r, value); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end = r.end
	h.live = append(h.live, r)
	return nil
}

// recordSize returns the bytes that a record with a value of that length takes.
func recordSize(length int) int64 {
	return int64(headRecord+length+headBlock-1) / headBlock * headBlock
}

// write puts the record in its place.
func (h *head) write(r record, value []byte) error {
	size := int(r.end - r.at)
	if len(h.space) < size {
		h.space = aligned(size)
	}
	b := h.space[:size]
	copy(b, h.id[:])
	binary.BigEndian.PutUint64(b[16:], r.first)
	binary.BigEndian.PutUint32(b[24:], uint32(len(value)))
	binary.BigEndian.PutUint32(b[28:], recordSum(b, value))
	clear(b[headRecord+copy(b[headRecord:], value):])
	return h.writeAt(b, r.at)
}

func (h *head) writeAt(b []byte, at int64) error {
	_, err := h.f.WriteAt(b, at)
	if h.direct && errors.Is(err, unix.EINVAL) { // refused, not tried
		h.direct = false
		if err = h.reopen(); err == nil {
			_, err = h.f.WriteAt(b, at)
		}
	}
	return err
}

// place finds room for a record of size bytes.
func (h *head) place(size int64) (at int64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	limit := int64(headBytes)
	if len(h.live) > 0 && h.end <= h.live[0].at { // it has come round
		return h.end, h.end+size <= h.live[0].at
	}
	if h.end+size <= limit {
		return h.end, true
	}
	if len(h.live) > 0 {
		limit = h.live[0].at
	}
	return 0, size <= limit
}

// release gives the room of the groups below next back.
func (h *head) release(next uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for n < len(h.live) && h.live[n].next <= next {
		n++
	}
	h.live = slices.Delete(h.live, 0, n)
}

// used returns how much of the head is taken.
func (h *head) used() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.live) == 0 {
		return 0
	}
	n := h.end - h.live[0].at
	if n <= 0 {
		n += headBytes
	}
	return n
}

// load takes up the file where it was left: it returns the groups from number
// from on, and what is appended goes behind them. The last one is written once
// more, because nobody may have waited for it: where a write fails, the page
// cache can hold what the disk does not.
func (h *head) load(from uint64) ([]held, error) {
	groups, err := h.read(from)
	if err != nil || len(groups) == 0 {
		return nil, err
	}
	for i := range groups {
		h.live = append(h.live, groups[i].record)
	}
	last := &groups[len(groups)-1]
	h.end = last.end
	return groups, h.write(last.record, last.value)
}

// A held is a group in the head.
type held struct {
	record
	group *group
	value []byte
}

// read returns the groups from number from on, in order. The error wraps
// ErrCorrupt when one is missing: they were written one after the other, so
// that a crash can only have spoilt the last.
func (h *head) read(from uint64) ([]held, error) {
	f, err := os.Open(h.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return h.readFrom(f, from)
}

func (h *head) readFrom(f io.ReaderAt, from uint64) ([]held, error) {
	found, err := h.scan(f, from)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", h.path, err)
	}
	slices.SortFunc(found, func(a, b held) int { return cmp.Compare(a.first, b.first) })
	for i := range found {
		x := &found[i]
		if x.first != from {
			return nil, fmt.Errorf("%w: readings %d to %d are missing in %s", ErrCorrupt, from, x.first-1, h.path)
		}
		if x.group, err = decodeGroup(x.first, x.value); err != nil {
			return nil, err
		}
		if x.value[0] != inHead { // it would have no dedup keys
			return nil, fmt.Errorf("%w: group %d of %s has the format of the store", ErrCorrupt, x.first, h.path)
		}
		from = x.group.next()
		x.next = from
	}
	return found, nil
}

// scan looks at every block for a record with a number of from or above.
func (h *head) scan(f io.ReaderAt, from uint64) (found []held, err error) {
	window := make([]byte, scanBlocks*headBlock)
	begin, end := int64(0), int64(0) // of the window
	for at := int64(0); at < headBytes; {
		if at >= end {
			begin, end = at, min(at+int64(len(window)), headBytes)
			if _, err := f.ReadAt(window[:end-begin], begin); err != nil {
				return nil, err
			}
		}
		top := window[at-begin:][:headRecord]
		length := int(min(binary.BigEndian.Uint32(top[24:]), headBytes)) // too long for the file, whatever it says
		next := at + recordSize(length)
		if !bytes.Equal(top[:headID], h.id[:]) || next > headBytes {
			at += headBlock
			continue
		}
		value := make([]byte, length)
		if _, err := f.ReadAt(value, at+headRecord); err != nil {
			return nil, err
		}
		if recordSum(top, value) != binary.BigEndian.Uint32(top[28:]) {
			at += headBlock // cut off, or begun anew by the record before
			continue
		}
		if first := binary.BigEndian.Uint64(top[16:]); first >= from {
			found = append(found, held{record: record{at: at, end: next, first: first}, value: value})
		}
		at = next
	}
	return found, nil
}

// recordSum is the checksum of a record without the checksum.
func recordSum(top, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(top[:28], castagnoli), castagnoli, value)
}

// aligned returns n bytes that begin on a block.
func aligned(n int) []byte {
	b := make([]byte, n+headBlock)
	skip := headBlock - int(uintptr(unsafe.Pointer(&b[0]))%headBlock)
	return b[skip : skip+n : skip+n]
}
