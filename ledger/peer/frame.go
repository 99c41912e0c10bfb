package peer

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync/atomic"

	"golang.org/x/crypto/blake2b"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// A kind says what a frame's body is.
type kind byte

const (
	kindGossip   kind = 1 // to everybody: blocks
	kindFrontier kind = 2 // to one: what the sender has
	kindOrder    kind = 3 // request: ids in the order of the receiver
	kindBlocks   kind = 4 // request: blocks with these ids
	kindStream   kind = 5 // request: blocks in the order of the receiver
	kindAnswer   kind = 6 // to a request

	kindSignatures kind = 7 // request: signatures of milestones
	kindNetwork    kind = 8 // request: the network file with this hash

	kindNetworks kind = 9  // request: network files
	kindEssences kind = 10 // request: milestones, the last first
	kindLists    kind = 11 // request: what milestones order
	kindClaims   kind = 12 // request: hash over what milestones order and votes claim
)

// Frames of one class come in the order in which they were made.
const (
	classGossip = iota
	classFrontier
	classRequest
)

func (k kind) class() int {
	switch k {
	case kindGossip:
		return classGossip
	case kindFrontier:
		return classFrontier
	}
	return classRequest
}

func (k kind) request() bool {
	return k == kindOrder || k == kindBlocks || k == kindStream || k >= kindSignatures && k <= kindClaims
}

// kindOf returns what b says it is, if it is a frame.
func kindOf(b []byte) kind {
	if len(b) < 2 {
		return 0
	}
	return kind(b[1])
}

const (
	frameVersion = 1
	frameHead    = 1 + 1 + ed25519.PublicKeySize + 8 + 8
	frameLeast   = frameHead + ed25519.SignatureSize
	frameDomain  = "hedgerow-peer-1"
)

// A frame is a message between gateways:
//
//	version u8 | kind u8 | sender's key 32 | session u64 | count u64 | body | signature 64
//
// in little-endian numbers. The signature is over the BLAKE2b-256 hash of
// "hedgerow-peer-1", the network's genesis hash, the receiver's key (zeros in
// gossip), the hash of the context, and the frame before the signature. The
// context of a request is the subject of its answer; that of an answer is the
// request's signature; all else has none.
type frame struct {
	kind    kind
	sender  network.PublicKey
	session uint64 // random, one for each run of a gateway
	count   uint64 // grows with every frame of a session
	body    []byte
	bytes   []byte // all of it
}

var errFrame = errors.New("not a frame of this version")

// parseFrame reads a frame; it shares b's memory. Its signature is not checked.
func parseFrame(b []byte) (frame, error) {
	if len(b) < frameLeast || b[0] != frameVersion || b[1] < byte(kindGossip) || b[1] > byte(kindClaims) {
		return frame{}, errFrame
	}
	f := frame{kind: kind(b[1]), bytes: b, body: b[frameHead : len(b)-ed25519.SignatureSize]}
	n := 2 + copy(f.sender[:], b[2:])
	f.session = binary.LittleEndian.Uint64(b[n:])
	f.count = binary.LittleEndian.Uint64(b[n+8:])
	return f, nil
}

// signature returns that of the frame.
func (f frame) signature() []byte { return f.bytes[len(f.bytes)-ed25519.SignatureSize:] }

// A signer makes and checks the frames of one gateway.
type signer struct {
	key     ed25519.PrivateKey
	public  network.PublicKey
	genesis [32]byte
	session uint64
	count   *atomic.Uint64
}

func newSigner(key ed25519.PrivateKey, genesis [32]byte) signer {
	var session [8]byte
	_, _ = rand.Read(session[:]) // never fails
	return signer{
		key: key, public: network.PublicKey(key.Public().(ed25519.PublicKey)), genesis: genesis,
		session: binary.LittleEndian.Uint64(session[:]), count: &atomic.Uint64{},
	}
}

// seal returns the frame for the receiver to, zero for everybody.
func (s signer) seal(k kind, to network.PublicKey, context, body []byte) []byte {
	b := make([]byte, 0, frameLeast+len(body))
	b = append(b, frameVersion, byte(k))
	b = append(b, s.public[:]...)
	b = binary.LittleEndian.AppendUint64(b, s.session)
	b = binary.LittleEndian.AppendUint64(b, s.count.Add(1))
	b = append(b, body...)
	hash := s.hash(to, context, b)
	return append(b, ed25519.Sign(s.key, hash[:])...)
}

// signed reports whether f's sender signed it for the receiver to.
func (s signer) signed(f frame, to network.PublicKey, context []byte) bool {
	hash := s.hash(to, context, f.bytes[:len(f.bytes)-ed25519.SignatureSize])
	return ed25519.Verify(f.sender[:], hash[:], f.signature())
}

func (s signer) hash(to network.PublicKey, context, unsigned []byte) (hash [32]byte) {
	about := blake2b.Sum256(context)
	h, err := blake2b.New256(nil)
	if err != nil {
		panic(err) // only for keys that are too long
	}
	h.Write([]byte(frameDomain))
	h.Write(s.genesis[:])
	h.Write(to[:])
	h.Write(about[:])
	h.Write(unsigned)
	h.Sum(hash[:0])
	return hash
}

// recent remembers the sessions of one sender and class, so that a frame that is sent
// again by somebody else is not taken for a new one.
type recent struct {
	sessions [16]struct{ id, count uint64 } // used from the front
	used     int
	next     int // to be replaced
}

// fresh reports whether the frame is newer than all frames of its session.
func (r *recent) fresh(f frame) bool {
	for i := range r.used {
		if s := &r.sessions[i]; s.id == f.session {
			if f.count <= s.count {
				return false
			}
			s.count = f.count
			return true
		}
	}
	r.sessions[r.next] = struct{ id, count uint64 }{f.session, f.count}
	r.next = (r.next + 1) % len(r.sessions)
	r.used = min(r.used+1, len(r.sessions))
	return true
}
