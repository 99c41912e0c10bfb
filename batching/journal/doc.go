// Package journal keeps the readings of one gateway on disk: durable append,
// replay and trim for batching, last values and history for people.
//
// It writes badger keys and nothing else: it knows neither sockets nor blocks,
// and not what has become of a reading on the Tangle.
//
// # A head, and a store behind it
//
// What Append gets in one call becomes one group, and one synced write into
// the head, a file of 8 MiB that is written round and round: that, and nothing
// else, happens before an acknowledgement. A few thousand readings at a time,
// Run moves the groups into badger, off the way of the acknowledgement, several
// under one key, with all that can be made from them: series by time, last
// values, windows of dedup keys. That ends at a checkpoint. What lies above it
// is in the head and in memory, and Open reads it back with the same function
// that Append uses. So an index is never newer or older than the truth, and a
// reading costs a fraction of a key.
//
//	key                                     value
//	g first(8)                              group: the readings from number first on
//	i device 00 name 00 received(8) seq(8)  chunk: entries of one series, first one in the key
//	k next(8)                               number that next stood at before SkipTo(next)
//	l device 00 name                        newest entry of the series: seq(8) received(8)
//	t first(8)                              segment: next(8) bytes(8) least received(8) latest(8)
//	w sender(16) first(8)                   window: dedup keys of one sender, for 25 h
//	m version                               format(4): 3
//	m incarnation                           8 random bytes
//	m head                                  16 random bytes: what records of the head begin with
//	m checkpoint                            first number not indexed(8) latest received of a dedup key(8)
//	m trimmed                               last number dropped(8)
//	d                                       nothing; there for a moment to have the store written out
//
// Numbers are big-endian; a received time in a chunk key has its top bit
// flipped so that it sorts. "m version" stands for the bytes "mversion".
//
// Record of the head, on whole blocks of 4 KiB: id (16), first number (8),
// length (4), CRC-32C of all but itself (4), group.
//
// Group, checksummed together with its key:
//
//	0   1  format: 1 in the head, 2 in the store
//	1   1  clock quality
//	2   8  received, Unix milliseconds
//	10  4  packets, or runs
//	14  4  readings
//	18     packets: sender (uvarint: 0 no key, 1 new and 16 bytes follow, n the
//	       (n-2)th), message (16) unless no key, uvarint readings, readings
//	       or runs: received less that of the run before (the first: of the
//	       group) as varint, uvarint twice the readings and 1 more if another
//	       clock quality (1) follows, readings
//	-4  4  CRC-32C
//
// In the store a group holds up to 128 readings of several groups of the head,
// in runs that were taken in together. Dedup keys are left to the windows.
//
// Reading: series (uvarint: 0 new and device, name, unit follow, n the
// (n-1)th); form (bits 0-2 kind of value, 3 has time, 4 has error); auth
// (low half) and source (high half); value (int: varint, uint: uvarint, float:
// 8 bytes, bool: 1, else uvarint length and bytes); time as varint difference
// to received; error as uvarint length and bytes. A text of a series is a
// uvarint: 0 new and length and bytes follow, n the (n-1)th.
//
// Chunk: uvarint entries, last received less first, last number less first;
// then for each entry but the first number and received less the one before.
// Received times in a chunk do not fall and span at most one hour: a query
// from some time on begins one hour before it and is exact even where the
// clock went back. Window: message (16), number less the one before as
// uvarint, received less the one before as varint.
//
// # When the power goes
//
// Append: the group is there or not; an unacknowledged one may be there, and
// the dedup keys in it recognise the repetition. A record touches no block of
// another one that is still needed, and is written before the next begins: only
// the last can be spoilt, and a hole before it is damage ([ErrCorrupt]).
// Moving: keys above the checkpoint are ignored, and the next flush begins at
// the same number and so writes the same ones; the head gives room back when
// the checkpoint is synced. Dropping: "m trimmed" first takes a segment out of
// sight; Open finishes the deletion. A write that fails ends the process
// ([ErrInDoubt]): the kernel may have dropped what it could not write.
//
// # Disk
//
// The head has all its blocks from the start. A full disk is no error to badger
// but a fault: it writes to mapped files. So Append refuses while less than the
// reserve, and in any case 64 MiB, is free, and Open does not open the store
// below that. At nine tenths of its own cap the journal drops the oldest
// segments that [Journal.Trim] allows, and has the store compacted, without
// which a deletion frees nothing for long; appends do not wait for it. A journal whose clock jumps ahead drops nothing by it alone: age is also
// measured against the newest reading.
//
// # Figures
//
// Two shared cores of an AMD EPYC server at 2.5 GHz, a synced write of 4 KiB
// 0.09 ms; one packet a reading, 50 devices with 4 names each, every packet
// with a dedup key (BenchmarkAppend and the others here):
//
//	readings a commit          1       100     1000
//	commit, ms                 0.11    0.30    1.7
//	readings/s                 9,400   333,000 591,000
//	encoded bytes a reading    96      50      36
//	written bytes a reading    4,150   215     170 (head, all levels, indexes)
//
// A lone reading costs a block of 4 KiB because that is what a disk syncs:
// hence linger. On disk a reading takes about 70 bytes with its indexes, 25 of
// them for a day only. Open after a kill with a million readings: 50 ms. Read
// of the newest 1000: 0.05 ms, of the oldest 0.3; History of 1000 of one series
// that lie in 1000 groups: 25 ms, in journal order 0.4. An idle journal holds 3.5
// MB of memory besides mapped files. Loaded at full speed it takes 150 to 250
// MB, most of it buffers that badger builds tables in; 20 s after the load it
// is back at 25 MB (Run tells Go's collector, which has no reason of its own).
//
// D4's question, badger alone or a log in front of it, is answered with a log
// of our own. With badger alone, a key a commit, a commit of one took 0.21 ms
// and one of 100 0.95: badger syncs its empty value log at every commit, and a
// memory table's file that grows, which costs the file system a second write;
// and an append waited behind each index and each table. The head overwrites
// blocks that it has, so that one flush of the device is all there is.
package journal
