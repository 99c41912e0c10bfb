package coap

import (
	"net"

	"golang.org/x/sys/unix"
)

// datagramWaits tells whether a datagram waits to be read; false when that
// cannot be known.
func datagramWaits(u *net.UDPConn) (waits bool) {
	c, err := u.SyscallConn()
	if err != nil {
		return false
	}
	_ = c.Control(func(fd uintptr) {
		n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
		waits = err == nil && n > 0 // an empty one does not count
	})
	return waits
}
