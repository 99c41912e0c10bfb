// Package remote lets gateways search nonces on other boxes, over NATS.
//
// A [Server] lends what searches here to the members of a network; a [Pool]
// asks servers in addition to what searches locally. Digest, zeros and a
// deadline go out, a nonce comes back. The block never leaves the box, and
// every nonce is verified: a worker can withhold, and nothing else.
//
// # Who asks whom
//
// The local search begins at once and never waits. Workers are asked as well
// when nothing searches here, when the local farm is busy, or when the search
// is expected to take, or has taken, longer than a quarter of a second. As
// few are asked as should find within that time together; when they have not
// found in three times as long, all are. A search has no memory:
// searchers divide its time and share nothing but the end of it, so nothing
// is lost with a worker that dies, and asking again with another digest costs
// two small messages for each.
//
// The worker chooses where its search starts, at random as the farm does for
// each of its own threads; there are 2^64 nonces. A start that came with the
// request would have it try the same nonces again each time another search has
// had its turn.
//
// How fast a worker is counts as what it has earned: the nonces that it found
// lately, times the tries that they take on average, over the time that it
// searched; and never more than it announced. At first it is taken at its
// word, within limits. One that exaggerates, withholds or is shared by many
// falls behind the others by itself, whatever it announces. A wrong nonce is a lie: the liar is left alone for half
// a minute, then twice as long each time. So is one that does not answer by the
// deadline, for shorter times. Either shows in [Pool.Workers].
//
// # What a server does for whom
//
// Gateways take turns of 50 ms on all threads, whatever the number and size of
// their searches; the searches of one gateway take turns by priority. Each has
// room for a few searches, deadlines are capped, searches too long for this
// worker are refused, and so is what exceeds a rate of messages: nobody can
// hang a worker.
//
// # Messages
//
// Frames have fixed sizes and end in an Ed25519 signature over the BLAKE2b-256
// hash of a domain, the network's genesis hash, the receiver's key (zeros for
// a hello) and the frame; so none is good for another network or another
// receiver. NATS is trusted with delivery alone. The subjects, below
// the network's prefix, where ID is the first 16 hex digits of a public key:
//
//	pow.hello              workers announce themselves
//	pow.ID                 searches and cancellations for worker ID
//	inbox.ID.pow.REQUEST   the answer for gateway ID
//
// The last is the reply subject of the search, so that a worker that may
// publish hellos, hear its own subject and reply needs no other right. It
// should have none: the session of a hello and the first half of a request's
// number are random and go on from message to message, so that who hears neither
// cannot forge messages in such numbers that the real ones are not looked at.
//
// No clock is trusted. A worker's hello carries a stamp that grows; a search
// names the stamp it answers to, which must be one of the last few, and its
// own number, which must be new. So a recorded request works once, or
// not at all, and a recorded hello only while its worker is dead, when it
// earns the requests that nobody answers.
package remote
