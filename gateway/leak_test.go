package gateway

import (
	"context"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Run returns after the last goroutine of every stage has ended. A doctor under
// test has this program read stores.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "fsck" {
		if err := Fsck(context.Background(), os.Args[2:], os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(2)
		}
		os.Exit(0)
	}
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
