package gateway

import (
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Run returns after the last goroutine of every stage has ended.
func TestMain(m *testing.M) {
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}
