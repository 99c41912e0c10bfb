//go:build !amd64 || purego

package curl

// vectorKernels returns none: assembly exists for amd64 only.
func vectorKernels() []Kernel { return nil }
