package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

// A File is a backup that was verified. Its methods may be called concurrently.
type File struct {
	Header
	in   io.ReaderAt
	size int64 // of the archive
}

// Open verifies the whole backup of size bytes in r, which must not change, and
// calls progress, unless it is nil, with the bytes that were read. The error
// wraps [ErrDamaged] or [ErrNewer] when that is why.
func Open(r io.ReaderAt, size int64, progress func(read int64)) (*File, error) {
	f := &File{in: r, size: size - int64(sumLine)}
	if f.size < 0 {
		return nil, damaged("%d bytes are no backup", size)
	}
	line := make([]byte, sumLine)
	if _, err := r.ReadAt(line, f.size); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	want, ok := bytes.CutPrefix(bytes.TrimSuffix(line, []byte("\n")), []byte(sumPrefix))
	if !ok {
		return nil, damaged("the line with the checksum is missing at its end")
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, &counted{io.NewSectionReader(r, 0, f.size), 0, progress}); err != nil {
		return nil, err
	}
	if hex.EncodeToString(sum.Sum(nil)) != string(want) {
		return nil, damaged("the checksum is wrong")
	}
	return f, f.readHeader()
}

func (f *File) readHeader() error {
	in := tar.NewReader(io.NewSectionReader(f.in, 0, f.size))
	e, err := in.Next()
	if err != nil || e.Name != headerName || e.Size > maxHeader {
		return damaged("it does not begin with %s", headerName)
	}
	if err := json.NewDecoder(io.LimitReader(in, maxHeader)).Decode(&f.Header); err != nil {
		return damaged("read %s: %v", headerName, err)
	}
	switch {
	case f.Format > Format:
		return fmt.Errorf("%w: format %d, this program knows %d", ErrNewer, f.Format, Format)
	case f.Format < 1 || len(f.Files) > maxFiles:
		return damaged("format %d with %d files", f.Format, len(f.Files))
	}
	return nil
}

// Has reports whether a file of that name is in the backup.
func (f *File) Has(name string) bool { return slices.Contains(f.Files, name) }

// ReadFile returns a file of the backup, 16 MiB at most.
func (f *File) ReadFile(name string) ([]byte, error) {
	in := tar.NewReader(io.NewSectionReader(f.in, 0, f.size))
	for {
		e, err := in.Next()
		switch {
		case err != nil:
			return nil, damaged("file %s: %v", name, err)
		case e.Name != name:
			continue
		case e.Size > maxFile:
			return nil, damaged("file %s has %d bytes", name, e.Size)
		}
		return io.ReadAll(in)
	}
}

// Store returns the records of a store, of which it keeps one in memory, and
// calls progress, unless it is nil, with the bytes of them that were read.
func (f *File) Store(name string, progress func(read int64)) Next {
	p := &parts{in: tar.NewReader(io.NewSectionReader(f.in, 0, f.size)), store: name}
	return nextOf(&counted{p, 0, progress})
}

// parts is the content of the parts of a store, one after the other.
type parts struct {
	in    *tar.Reader
	store string
	n     int // of the part that is read; 0: none yet
	left  int64
	end   bool
}

func (p *parts) Read(b []byte) (int, error) {
	for p.left == 0 {
		if p.end {
			return 0, io.EOF
		}
		if err := p.next(); err != nil {
			return 0, err
		}
	}
	n, err := p.in.Read(b)
	p.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
		if p.left > 0 {
			err = damaged("part %d of %s ends early", p.n, p.store)
		}
	}
	return n, err
}

// next goes to the next part, or finds that there is none.
func (p *parts) next() error {
	for {
		e, err := p.in.Next()
		switch {
		case errors.Is(err, io.EOF) && p.n > 0:
			p.end = true
			return nil
		case err != nil:
			return damaged("the store %s: %v", p.store, err)
		case !strings.HasPrefix(e.Name, p.store+"/") && p.n > 0:
			p.end = true
			return nil
		case !strings.HasPrefix(e.Name, p.store+"/"):
			continue
		case e.Name != fmt.Sprintf("%s/%08d", p.store, p.n+1) || e.Size > partSize:
			return damaged("%s of %d bytes follows part %d", e.Name, e.Size, p.n)
		}
		p.n, p.left = p.n+1, e.Size
		return nil
	}
}

// counted tells how much was read.
type counted struct {
	io.Reader
	n    int64
	tell func(int64)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += int64(n)
	if c.tell != nil {
		c.tell(c.n)
	}
	return n, err
}

func readNumber(in *bufio.Reader) (uint64, error) { return binary.ReadUvarint(in) }

func readBytes(in *bufio.Reader, most uint64) ([]byte, error) {
	n, err := readNumber(in)
	if err != nil {
		return nil, err
	}
	if n > most {
		return nil, damaged("a record claims %d bytes", n)
	}
	b := make([]byte, n)
	if _, err = io.ReadFull(in, b); errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return b, err
}
