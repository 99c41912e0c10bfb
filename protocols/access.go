package protocols

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

// Credentials are what a client showed when it connected.
type Credentials struct {
	Source   reading.Source
	Remote   netip.Addr
	ClientID string // MQTT
	User     string // MQTT
	Password []byte // MQTT; not kept, not logged
}

// A Device is the principal behind a connection or a request: who it proved
// to be, and how. The zero Device is an anonymous client.
type Device struct {
	Name string // "" when anonymous
	Auth reading.Auth
}

// A Registry decides who may connect.
type Registry interface {
	// Authenticate returns the device behind the credentials. The error wraps
	// [ErrNotAllowed]. It may be called concurrently and may take as long as a
	// password hash.
	Authenticate(c Credentials) (Device, error)
}

// An ACL decides what a device may do. Its methods may be called concurrently
// and are fast: they are asked for every message.
type ACL interface {
	// MayReport tells whether who may publish readings of the named device.
	MayReport(who Device, device string) bool
	// MayPublish tells whether who may publish on a topic without mapping.
	MayPublish(who Device, topic string) bool
	// MaySubscribe tells whether who may subscribe to a filter.
	MaySubscribe(who Device, filter string) bool
}

// Anonymous admits clients without asking who they are: they may publish
// readings of any device and use the broker, except for topics that begin
// with "$" and, when publishing, the gateway's own event topics (TIP-28). It
// is both a [Registry] and an [ACL].
type Anonymous struct {
	loopbackOnly bool
}

// AnonymousFrom returns the rule of the sandbox (loopbackOnly) or of a
// configuration with `anonymous: true`.
func AnonymousFrom(loopbackOnly bool) Anonymous { return Anonymous{loopbackOnly: loopbackOnly} }

// Authenticate admits everybody, or everybody on this machine.
func (a Anonymous) Authenticate(c Credentials) (Device, error) {
	if a.loopbackOnly && !c.Remote.Unmap().IsLoopback() {
		return Device{}, fmt.Errorf("%w: anonymous clients only from this machine", ErrNotAllowed)
	}
	return Device{}, nil
}

// MayReport is always true.
func (Anonymous) MayReport(Device, string) bool { return true }

// MayPublish is true except for event topics and topics that begin with "$".
func (Anonymous) MayPublish(_ Device, topic string) bool {
	return !strings.HasPrefix(topic, "$") && !IsEventTopic(topic)
}

// MaySubscribe is true except for filters that begin with "$". Of a shared
// subscription ($share/group/filter) the inner filter counts.
func (Anonymous) MaySubscribe(_ Device, filter string) bool {
	if rest, ok := strings.CutPrefix(filter, "$share/"); ok {
		_, filter, ok = strings.Cut(rest, "/")
		if !ok {
			return false
		}
	}
	return !strings.HasPrefix(filter, "$")
}

// DenyAll admits nobody: the rule of a configuration without devices. It is
// both a [Registry] and an [ACL].
type DenyAll struct{}

// Authenticate refuses everybody.
func (DenyAll) Authenticate(Credentials) (Device, error) {
	return Device{}, fmt.Errorf("%w: no devices are registered and anonymous access is off", ErrNotAllowed)
}

// MayReport is always false.
func (DenyAll) MayReport(Device, string) bool { return false }

// MayPublish is always false.
func (DenyAll) MayPublish(Device, string) bool { return false }

// MaySubscribe is always false.
func (DenyAll) MaySubscribe(Device, string) bool { return false }
