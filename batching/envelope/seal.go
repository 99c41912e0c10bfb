package envelope

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/klauspost/compress/zstd"
	"github.com/veraison/go-cose"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// A Sealer makes the envelopes of one gateway and journal. It keeps a
// compressor; methods may be called concurrently.
type Sealer struct {
	gateway     string
	genesis     [32]byte
	incarnation [8]byte
	signer      cose.Signer
	headers     cose.Headers // not changed after NewSealer
	zstd        *zstd.Encoder
}

// NewSealer returns a Sealer for batches of gateway, signed with key, in the
// network with this genesis hash, of the journal with this incarnation.
func NewSealer(gateway string, key ed25519.PrivateKey, genesis [32]byte, incarnation [8]byte) (*Sealer, error) {
	if err := CheckGateway(gateway); err != nil {
		return nil, err
	}
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("identity key is not an Ed25519 private key")
	}
	signer, err := cose.NewSigner(cose.AlgorithmEdDSA, key)
	if err != nil {
		return nil, fmt.Errorf("use the identity key: %w", err)
	}
	comp, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		return nil, fmt.Errorf("set up compression: %w", err)
	}
	protected, err := protectedHeader(key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	return &Sealer{
		gateway: gateway, genesis: genesis, incarnation: incarnation, signer: signer, zstd: comp,
		headers: cose.Headers{RawProtected: protected, RawUnprotected: []byte{emptyMap}},
	}, nil
}

// protectedHeader returns the encoded byte string of the protected header:
// alg EdDSA and kid, the public key.
func protectedHeader(key ed25519.PublicKey) ([]byte, error) {
	h := cose.ProtectedHeader{}
	h.SetAlgorithm(cose.AlgorithmEdDSA)
	h[cose.HeaderLabelKeyID] = []byte(key)
	raw, err := h.MarshalCBOR()
	if err != nil {
		return nil, fmt.Errorf("encode signature header: %w", err)
	}
	return raw, nil
}

// Seal returns the envelope of a clear batch of rs, whose sequence numbers
// must ascend. The error wraps [ErrTooLarge] when they are too many or too
// long, [ErrRuns] when the numbers do not ascend, and [ErrRecord] when one
// holds no value.
func (s *Sealer) Seal(secret [16]byte, rs []reading.Reading) ([]byte, error) {
	d, err := s.Draft(secret, rs)
	if err != nil {
		return nil, err
	}
	return d.Seal(len(rs))
}

// A Draft is a batch in the making: its records are encoded, so that trying
// how many of them fit costs little. It must not be used concurrently.
type Draft struct {
	sealer  *Sealer
	secret  [16]byte
	numbers []uint64
	body    []byte // the records, one after the other
	ends    []int  // where in body each of them ends
	plain   []byte // scratch: the body as CBOR
	packed  []byte // scratch: its frame
}

// Draft encodes the records of rs. The errors are those of [Sealer.Seal].
func (s *Sealer) Draft(secret [16]byte, rs []reading.Reading) (*Draft, error) {
	if len(rs) == 0 || len(rs) > MaxReadings {
		return nil, fmt.Errorf("%w: %d readings, want 1 to %d", ErrTooLarge, len(rs), MaxReadings)
	}
	d := &Draft{sealer: s, secret: secret, numbers: make([]uint64, len(rs)), ends: make([]int, len(rs))}
	last := uint64(0)
	for i := range rs {
		if rs[i].Seq <= last || rs[i].Seq == math.MaxUint64 {
			return nil, fmt.Errorf("%w: %d after %d", ErrRuns, rs[i].Seq, last)
		}
		last = rs[i].Seq
		var err error
		if d.body, err = AppendRecord(d.body, s.gateway, &rs[i]); err != nil {
			return nil, err
		}
		d.numbers[i], d.ends[i] = last, len(d.body)
	}
	return d, nil
}

// Len returns the number of readings drafted.
func (d *Draft) Len() int { return len(d.numbers) }

// Runs returns the runs of sequence numbers of the first n readings.
func (d *Draft) Runs(n int) [][2]uint64 {
	var runs [][2]uint64
	for _, seq := range d.numbers[:n] {
		if k := len(runs); k > 0 && runs[k-1][1]+1 == seq {
			runs[k-1][1] = seq
		} else {
			runs = append(runs, [2]uint64{seq, seq})
		}
	}
	return runs
}

// Size returns the length of Seal(n) without hashing and signing, or
// [math.MaxInt] when the first n readings are too long for any batch.
func (d *Draft) Size(n int) int {
	raw, err := d.marshal(n, make([]byte, 32))
	if err != nil {
		return math.MaxInt
	}
	const tags, unprotected, signature = 2, 1, 2 + ed25519.SignatureSize
	return tags + len(d.sealer.headers.RawProtected) + unprotected +
		len(appendHead(nil, majorBytes, len(raw))) + len(raw) + signature
}

// Seal returns the envelope of the first n readings, 1 to Len. The error
// wraps [ErrTooLarge] when they are too long for any batch.
func (d *Draft) Seal(n int) ([]byte, error) {
	records := make([][]byte, n)
	from := 0
	for i, end := range d.ends[:n] {
		records[i], from = d.body[from:end], end
	}
	root := Root(d.secret, records)
	raw, err := d.marshal(n, root[:])
	if err != nil {
		return nil, err
	}
	// The payload says what is signed, so no random bytes are involved.
	data, err := cose.Sign1(nil, d.sealer.signer, d.sealer.headers, raw, aad(d.sealer.genesis))
	if err != nil {
		return nil, fmt.Errorf("sign a batch: %w", err)
	}
	if len(data) > MaxData {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), MaxData)
	}
	return data, nil
}

// marshal returns the signed map for the first n readings and this root.
func (d *Draft) marshal(n int, root []byte) ([]byte, error) {
	d.plain = appendBodyHead(d.plain[:0], d.secret, n)
	d.plain = append(d.plain, d.body[:d.ends[n-1]]...)
	if len(d.plain) > MaxBody {
		return nil, fmt.Errorf("%w: body of %d bytes, at most %d", ErrTooLarge, len(d.plain), MaxBody)
	}
	p := payload{
		Gateway:     d.sealer.gateway,
		Runs:        encodeRuns(d.Runs(n)),
		Count:       uint64(n),
		Root:        root,
		Mode:        modeClear,
		Body:        d.plain,
		Compression: compressNone,
		Incarnation: d.sealer.incarnation[:],
	}
	d.packed = d.sealer.zstd.EncodeAll(d.plain, d.packed[:0])
	if len(d.packed) < len(d.plain) {
		p.Body, p.Compression = d.packed, compressZstd
	}
	raw, err := encoding.Marshal(&p)
	if err != nil {
		return nil, fmt.Errorf("encode a batch: %w", err)
	}
	return raw, nil
}

// appendBodyHead appends what stands before the records in a body.
func appendBodyHead(dst []byte, secret [16]byte, records int) []byte {
	dst = appendHead(dst, majorArray, 2)
	dst = append(appendHead(dst, majorBytes, len(secret)), secret[:]...)
	return appendHead(dst, majorArray, records)
}

// The major types of CBOR that envelopes are put together from.
const (
	majorBytes = 2 << 5
	majorArray = 4 << 5
	emptyMap   = 5 << 5
)

// appendHead appends the shortest head of a CBOR item (RFC 8949 §4.2.1).
func appendHead(dst []byte, major byte, n int) []byte {
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n < 1<<8:
		return append(dst, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
}
