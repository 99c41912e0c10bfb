//go:build !linux

package coap

import "net"

// datagramWaits would tell whether a datagram waits to be read.
func datagramWaits(*net.UDPConn) bool { return false }
