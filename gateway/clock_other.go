//go:build !linux

package gateway

// synchronised is false: only Linux tells.
func synchronised() bool { return false }
