package bus

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
)

func TestARouteThatIsDownIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name string
		why  error
		want string
	}{
		{"dialled in vain", &net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 8), Port: 6222}, Err: errors.New("refused")}, `address=10.0.0.8:6222 err=refused`},
		{"a name without address", errors.New("lookup for host nosuch.example: no such host"), `up" err="lookup for host nosuch.example: no such host"`},
	} {
		var out bytes.Buffer
		s := &serverLog{log: slog.New(slog.NewTextHandler(&out, nil)), limited: newLimiter()}
		for range 2 { // the second within a minute is left out
			s.Errorf(routeDown+" (attempt %v): %v", downAttempts, tt.why)
		}
		if strings.Count(out.String(), "\n") != 1 || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s is logged %q, want one line with %q", tt.name, out.String(), tt.want)
		}
	}
}
