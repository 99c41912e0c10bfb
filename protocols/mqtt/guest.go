package mqtt

import (
	"crypto/rand"
	"strings"

	mochi "github.com/mochi-mqtt/server/v2"

	"github.com/hedgerow-iot/hedgerow/protocols"
)

// A guest is a client of the public path for events: it is let in without
// login, may subscribe to event topics, and nothing else. Its connection says
// that it is one; nothing that it sends does.

// makeGuest takes from a client at CONNECT what could touch others: a client
// id of its choice would end, or inherit, the session of a device with the
// same, and a lasting session would stay behind.
func makeGuest(cl *mochi.Client) {
	cl.ID = "guest-" + rand.Text()
	cl.Properties.Clean = true
	pr := &cl.Properties.Props
	pr.SessionExpiryInterval, pr.SessionExpiryIntervalFlag = 0, false
	if pr.AssignedClientID != "" { // it asked for one
		pr.AssignedClientID = cl.ID
	}
}

// maySubscribe tells whether a client may subscribe to a filter, or have a
// message on a topic. Event topics are everybody's who was let in; a guest has
// nothing else.
func (s *session) maySubscribe(filter string) bool {
	switch {
	case protocols.IsEventTopic(filter):
		return true
	case s.c.guest, sharesEvents(filter):
		return false
	}
	return s.b.acl.MaySubscribe(s.dev, filter)
}

// sharesEvents tells of a shared subscription to event topics. There are none:
// events are sent once, at QoS 0, and a member of the group that does not read
// would take them from the others.
func sharesEvents(filter string) bool {
	if len(filter) == 0 || filter[0] != '$' {
		return false
	}
	prefix, rest, _ := strings.Cut(filter, "/")
	_, inner, _ := strings.Cut(rest, "/")
	return strings.EqualFold(prefix, mochi.SharePrefix) && protocols.IsEventTopic(inner)
}
