// Package journal keeps the readings of one gateway on disk: durable append,
// replay and trim for batching, last values and history for people.
//
// It writes badger keys and nothing else: it knows neither sockets nor blocks,
// and not what has become of a reading on the Tangle.
package journal
