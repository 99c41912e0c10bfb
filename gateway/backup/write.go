package backup

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"time"
)

// A Writer writes one backup: first the files that the header names, in that
// order, then each store. It keeps one part of a store in memory. One goroutine
// uses it; after an error it is of no use.
type Writer struct {
	out   io.Writer
	sum   hash.Hash
	tar   *tar.Writer
	mtime time.Time
	left  []string // files to come
	store string   // that is being written
	part  []byte
	parts int
}

// NewWriter begins a backup on w. It completes the header.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	b := &Writer{out: w, sum: sha256.New(), mtime: h.Created, left: h.Files}
	b.tar = tar.NewWriter(io.MultiWriter(w, b.sum))
	h.Format = Format
	text, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return nil, err
	}
	return b, b.entry(headerName, append(text, '\n'))
}

func (b *Writer) entry(name string, content []byte) error {
	err := b.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: b.mtime, Format: tar.FormatPAX})
	if err == nil {
		_, err = b.tar.Write(content)
	}
	if err != nil {
		return fmt.Errorf("write %s of the backup: %w", name, err)
	}
	return nil
}

// File writes the next file that the header names.
func (b *Writer) File(name string, content []byte) error {
	if len(b.left) == 0 || b.left[0] != name || len(content) > maxFile {
		return fmt.Errorf("file %s of %d bytes does not follow in the backup", name, len(content))
	}
	b.left = b.left[1:]
	return b.entry(name, content)
}

// Store writes the records of a store: each calls its argument with them.
func (b *Writer) Store(name string, each func(yield func(key, value []byte, expires uint64) error) error) error {
	b.store, b.parts, b.part = name, 0, b.part[:0]
	if err := each(b.record); err != nil {
		return err
	}
	if len(b.part) == 0 && b.parts > 0 {
		return nil
	}
	return b.flush(len(b.part))
}

func (b *Writer) record(key, value []byte, expires uint64) error {
	if len(key) > maxKey || len(value) > maxValue {
		return fmt.Errorf("a record of %d and %d bytes is too large for a backup", len(key), len(value))
	}
	p := binary.AppendUvarint(b.part, uint64(len(key)))
	p = binary.AppendUvarint(append(p, key...), uint64(len(value)))
	b.part = binary.AppendUvarint(append(p, value...), expires)
	for len(b.part) >= partSize {
		if err := b.flush(partSize); err != nil {
			return err
		}
	}
	return nil
}

// flush writes the first n bytes of the part.
func (b *Writer) flush(n int) error {
	b.parts++
	err := b.entry(fmt.Sprintf("%s/%08d", b.store, b.parts), b.part[:n])
	b.part = b.part[:copy(b.part, b.part[n:])]
	return err
}

// Close ends the backup with its checksum. It does not close what is below.
func (b *Writer) Close() error {
	if len(b.left) > 0 {
		return fmt.Errorf("file %s of the backup is missing", b.left[0])
	}
	if err := b.tar.Close(); err != nil {
		return fmt.Errorf("end the backup: %w", err)
	}
	_, err := io.WriteString(b.out, sumPrefix+hex.EncodeToString(b.sum.Sum(nil))+"\n")
	return err
}
