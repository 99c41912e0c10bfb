// Package stardust encodes and decodes the bytes and the JSON that the
// Stardust TIPs define.
//
// It holds formats only: no socket, no disk, no state. Every package may
// import it; it imports none of ours.
package stardust

// A BlockID is the BLAKE2b-256 hash of a block's bytes (TIP-24).
type BlockID [32]byte
