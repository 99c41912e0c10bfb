package envelope

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/veraison/go-cose"
)

// Expect says whose batch an envelope should be.
type Expect struct {
	Genesis [32]byte          // of the network: part of what is signed
	Gateway string            // its name; "" takes the name the envelope holds
	Key     ed25519.PublicKey // its key; nil takes the key the envelope holds
}

// Open checks an envelope by every rule of contract.md, "Bytes on the
// Tangle", and returns what it holds. Nothing of an envelope may be used when
// it returns an error, which wraps one of the sentinels of this package.
//
// Input of any size and content is safe: a body is decompressed to at most
// [MaxBody] bytes.
func Open(data []byte, want Expect) (*Batch, error) {
	if len(data) > MaxData {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), MaxData)
	}
	signed, key, err := openSignature(data, want)
	if err != nil {
		return nil, err
	}
	p, err := parsePayload(signed)
	if err != nil {
		return nil, err
	}
	if want.Gateway != "" && p.Gateway != want.Gateway {
		return nil, fmt.Errorf("%w: %q, not %q", ErrGateway, p.Gateway, want.Gateway)
	}
	b := &Batch{Gateway: p.Gateway, Key: key, Root: [32]byte(p.Root), Incarnation: [8]byte(p.Incarnation)}
	var count uint64
	if b.Runs, count, err = parseRuns(p.Runs); err != nil {
		return nil, err
	}
	if count != p.Count {
		return nil, fmt.Errorf("%w: runs hold %d numbers, count is %d", ErrRuns, count, p.Count)
	}
	if count > MaxReadings {
		return nil, fmt.Errorf("%w: %d readings, at most %d", ErrTooLarge, count, MaxReadings)
	}
	b.Count = int(count)
	if err := b.openBody(p); err != nil {
		return nil, err
	}
	return b, nil
}

// openSignature returns the payload of a COSE_Sign1 in its one encoding
// whose signature verifies, and the key that it verifies with.
func openSignature(data []byte, want Expect) (signed []byte, key ed25519.PublicKey, err error) {
	var msg cose.Sign1Message
	if err := msg.UnmarshalCBOR(data); err != nil {
		return nil, nil, fmt.Errorf("%w: %v", ErrSyntax, err)
	}
	kid, ok := msg.Headers.Protected[cose.HeaderLabelKeyID].([]byte)
	if !ok || len(kid) != ed25519.PublicKeySize {
		return nil, nil, fmt.Errorf("%w: kid is not an Ed25519 public key", ErrSyntax)
	}
	key = ed25519.PublicKey(kid)
	if want.Key != nil && !bytes.Equal(want.Key, key) {
		return nil, nil, fmt.Errorf("%w: %x, not %x", ErrKey, kid, want.Key)
	}
	// There is one encoding of key, payload and signature; any other header,
	// longer form or trailing byte shows as a difference from it.
	protected, err := protectedHeader(key)
	if err != nil {
		return nil, nil, err
	}
	msg.Headers = cose.Headers{RawProtected: protected, RawUnprotected: []byte{emptyMap}}
	if again, err := msg.MarshalCBOR(); err != nil || !bytes.Equal(again, data) {
		return nil, nil, fmt.Errorf("signature frame: %w", ErrCanonical)
	}
	verifier, err := cose.NewVerifier(cose.AlgorithmEdDSA, key)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %v", ErrSyntax, err)
	}
	if err := msg.Verify(aad(want.Genesis), verifier); err != nil {
		return nil, nil, fmt.Errorf("%w: %v", ErrSignature, err)
	}
	return msg.Payload, key, nil
}

// parsePayload reads the signed map and checks its fields one by one.
func parsePayload(signed []byte) (*payload, error) {
	var p payload
	if err := decoding.Unmarshal(signed, &p); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrSyntax, err)
	}
	switch {
	case p.Mode != modeClear:
		return nil, fmt.Errorf("%w: %d", ErrMode, p.Mode)
	case len(p.Root) != 32:
		return nil, fmt.Errorf("%w: root has %d bytes, want 32", ErrSyntax, len(p.Root))
	case len(p.Incarnation) != 8:
		return nil, fmt.Errorf("%w: incarnation has %d bytes, want 8", ErrSyntax, len(p.Incarnation))
	case p.Compression != compressNone && p.Compression != compressZstd:
		return nil, fmt.Errorf("%w: compression %d", ErrSyntax, p.Compression)
	}
	if err := CheckGateway(p.Gateway); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrSyntax, err)
	}
	if again, err := encoding.Marshal(&p); err != nil || !bytes.Equal(again, signed) {
		return nil, fmt.Errorf("payload: %w", ErrCanonical)
	}
	return &p, nil
}

// openBody reads secret and records and checks them against runs and root.
func (b *Batch) openBody(p *payload) error {
	body := p.Body
	if p.Compression == compressZstd {
		var err error
		if body, err = decompress(p.Body); err != nil {
			return err
		}
		if len(body) <= len(p.Body) {
			return fmt.Errorf("%w: compression does not make it smaller", ErrBody)
		}
	}
	var err error
	if b.Secret, b.Records, err = splitBody(body, b.Count); err != nil {
		return err
	}
	seq, run := b.Runs[0][0], 0
	for i, raw := range b.Records {
		r, err := ParseRecord(raw, b.Gateway)
		if err != nil {
			return fmt.Errorf("record %d of %d: %w", i+1, b.Count, err)
		}
		if r.Seq != seq {
			return fmt.Errorf("record %d of %d: %w: it is %d, want %d", i+1, b.Count, ErrUnlisted, r.Seq, seq)
		}
		b.Readings = append(b.Readings, r)
		if seq++; seq > b.Runs[run][1] && i+1 < b.Count {
			run++
			seq = b.Runs[run][0]
		}
	}
	if Root(b.Secret, b.Records) != b.Root {
		return ErrRoot
	}
	return nil
}

// splitBody takes the array [secret, [record, …]] apart, which must hold
// count records in its one encoding.
func splitBody(body []byte, count int) (secret [16]byte, records [][]byte, err error) {
	var parts struct {
		_       struct{} `cbor:",toarray"`
		Secret  []byte
		Records []cbor.RawMessage
	}
	if err := decoding.Unmarshal(body, &parts); err != nil {
		return secret, nil, fmt.Errorf("%w: %v", ErrBody, err)
	}
	switch {
	case len(parts.Secret) != len(secret):
		return secret, nil, fmt.Errorf("%w: secret has %d bytes, want %d", ErrBody, len(parts.Secret), len(secret))
	case len(parts.Records) != count:
		return secret, nil, fmt.Errorf("%w: %d records, count is %d", ErrRuns, len(parts.Records), count)
	}
	secret = [16]byte(parts.Secret)
	rest, ok := bytes.CutPrefix(body, appendBodyHead(nil, secret, count))
	records = make([][]byte, count)
	for i, raw := range parts.Records {
		records[i] = raw
		rest, ok = rest[min(len(raw), len(rest)):], ok && bytes.HasPrefix(rest, raw)
	}
	if !ok || len(rest) > 0 {
		return secret, nil, fmt.Errorf("body: %w", ErrCanonical)
	}
	return secret, records, nil
}

// decompress returns the content of exactly one zstd frame.
func decompress(frame []byte) ([]byte, error) {
	if err := checkFrame(frame); err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxBody), zstd.WithDecoderMaxWindow(MaxBody))
	if err != nil {
		return nil, fmt.Errorf("set up decompression: %w", err)
	}
	defer dec.Close()
	body, err := dec.DecodeAll(frame, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrBody, err)
	}
	if len(body) > MaxBody {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrBody, len(body), MaxBody)
	}
	return body, nil
}

// checkFrame walks the blocks of a zstd frame (RFC 8878 §3.1.1) and returns
// an error unless the frame is one of content and nothing follows it, which
// the decompressor would take for another frame.
func checkFrame(frame []byte) error {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return fmt.Errorf("%w: %v", ErrBody, err)
	}
	if h.Skippable || h.DictionaryID != 0 || h.FrameContentSize > MaxBody {
		return fmt.Errorf("%w: frame is skippable, needs a dictionary or holds over %d bytes", ErrBody, MaxBody)
	}
	rest := frame[h.HeaderSize:]
	for last := false; !last; {
		if len(rest) < 3 {
			return fmt.Errorf("%w: frame is cut off", ErrBody)
		}
		head := uint32(binary.LittleEndian.Uint16(rest)) | uint32(rest[2])<<16
		size := int(head >> 3)
		if kind := head >> 1 & 3; kind == 1 { // one byte, repeated size times
			size = 1
		}
		if len(rest) < 3+size {
			return fmt.Errorf("%w: frame is cut off", ErrBody)
		}
		rest, last = rest[3+size:], head&1 == 1
	}
	if h.HasCheckSum {
		rest = rest[min(4, len(rest)):]
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: %d bytes follow its frame", ErrCanonical, len(rest))
	}
	return nil
}
