// Package backup is the one file that holds a backup of a gateway: what stands
// in it, in which order, and how it is checked.
//
// It knows neither stores nor sockets nor configuration: the keys and values of
// a store are bytes to it.
//
// A backup is a tar archive, from which tar extracts the small files, and one
// line behind its end:
//
//	backup.json         the [Header]
//	NAME                files, such as network.json and hedgerow.yaml
//	ledger/00000001 …   the records of a store, cut into parts of 1 MiB; the parts
//	journal/00000001 …  of one store follow each other
//	sha256:HEX          over everything before
//
// A record is: length of the key, key, length of the value, value, and the Unix
// time in seconds at which it expires or 0; numbers are uvarints.
package backup

import (
	"bufio"
	"errors"
	"io"
	"time"
)

// Format is the version of the format that this package writes, and the newest
// that it reads.
const Format = 1

var (
	// ErrDamaged means that a file is no backup, or not a whole one, or that
	// its checksum is wrong.
	ErrDamaged = errors.New("backup damaged or incomplete")
	// ErrNewer means that a newer program wrote the backup.
	ErrNewer = errors.New("backup written by a newer version of hedgerow")
)

// Bounds of what is read.
const (
	maxHeader = 64 << 10
	maxFile   = 16 << 20
	maxFiles  = 4096
	maxKey    = 64 << 10
	maxValue  = 4 << 20
	partSize  = 1 << 20
)

const (
	headerName = "backup.json"
	sumPrefix  = "sha256:"
	sumLine    = len(sumPrefix) + 64 + 1 // with the end of the line
)

// A Header says whose backup it is, and what is needed to read it.
type Header struct {
	Format  int       `json:"hedgerowBackup"`
	Created time.Time `json:"created"`
	Version string    `json:"version"` // of the program
	Gateway string    `json:"gateway"` // name in its network
	// PublicKey is that of the gateway's identity, which is not in the backup.
	PublicKey string `json:"publicKey"`
	Network   string `json:"network"`
	Genesis   string `json:"genesis"` // hash of the network's first file
	Epoch     uint32 `json:"epoch"`
	Gateways  int    `json:"gateways"` // of the network in that epoch
	// Stores has the format of each store.
	Stores map[string]int `json:"stores"`
	Files  []string       `json:"files"` // that stand before the stores
}

// A Next returns one record after the other, each in memory of its own, and
// [io.EOF] after the last.
type Next func() (key, value []byte, expires uint64, err error)

// nextOf reads records. The error wraps ErrDamaged when they end early.
func nextOf(r io.Reader) Next {
	in := bufio.NewReaderSize(r, 64<<10)
	return func() (key, value []byte, expires uint64, err error) {
		if _, err := in.Peek(1); err != nil { // the one place at which it may end
			return nil, nil, 0, err
		}
		if key, err = readBytes(in, maxKey); err == nil {
			value, err = readBytes(in, maxValue)
		}
		if err == nil {
			expires, err = readNumber(in)
		}
		if errors.Is(err, io.EOF) {
			err = damaged("a record ends early")
		}
		return key, value, expires, err
	}
}
