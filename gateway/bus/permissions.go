package bus

import (
	"crypto/ed25519"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Bounds of what a worker may answer besides <network>.pow.
const (
	maxReplies  = 16               // messages to one request's reply subject
	replyWithin = 10 * time.Minute // of the request
)

// memberPermissions are those of a gateway: it hears its own requests and
// replies only, and everybody's blocks, signatures of milestones and proof of work.
func memberPermissions(network string, key ed25519.PublicKey) *server.Permissions {
	id := ID(key)
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			network + ".block", network + ".cert", network + ".peer.*", network + ".inbox.>", network + ".pow.>",
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{
			network + ".block", network + ".cert", network + ".peer." + id, network + ".inbox." + id + ".>", network + ".pow.>",
		}},
	}
}

// workerPermissions are those of a remote worker: to announce itself, to hear
// what it is asked, and to answer. What others announce or are asked is not
// its business: it could forge what it hears.
func workerPermissions(network string, key ed25519.PublicKey) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{network + ".pow.hello"}},
		Subscribe: &server.SubjectPermission{Allow: []string{network + ".pow." + ID(key), network + ".inbox." + ID(key) + ".>"}},
		Response:  &server.ResponsePermission{MaxMsgs: maxReplies, Expires: replyWithin},
	}
}
