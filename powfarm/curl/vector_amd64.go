//go:build amd64 && !purego

package curl

import "golang.org/x/sys/cpu"

//go:generate sh -c "go run gen.go > pass_amd64.s"

//go:noescape
func pass512(dst, src *uint64, table *uint16, aside, loops int)

//go:noescape
func pass256(dst, src *uint64, table *uint16, aside, loops int)

var (
	avx512 = &vectorKernel{name: "avx512", words: 8, fused: 5, pass: pass512}
	avx2   = &vectorKernel{name: "avx2", words: 4, fused: 3, pass: pass256}
)

// vectorKernels returns those that the processor and the system support,
// fastest first.
func vectorKernels() (ks []Kernel) {
	if cpu.X86.HasAVX512F {
		ks = append(ks, avx512)
	}
	if cpu.X86.HasAVX2 {
		ks = append(ks, avx2)
	}
	return ks
}
