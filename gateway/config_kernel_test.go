package gateway

import (
	"strings"
	"testing"

	"github.com/hedgerow-iot/hedgerow/powfarm"
)

func TestKernelOfAnotherMachineIsRefused(t *testing.T) {
	usable := strings.Join(powfarm.Kernels(), ", ")
	for _, name := range []string{"auto", "avx512", "avx2", "go"} {
		_, err := Parse("box.yaml", []byte("powfarm:\n  kernel: "+name+"\n"), nil)
		if name == "auto" || strings.Contains(usable, name) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		want := "box.yaml:2:11: powfarm.kernel: " + name + " does not run on this machine; usable are auto, " + usable
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}
