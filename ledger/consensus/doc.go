// Package consensus is how gateways agree without a coordinator: from signed
// votes in the DAG it derives rounds, decisions, one sequence of milestones and
// the order in which the ledger applies transactions (consensus.md).
//
// It is the pure core: deterministic and incremental. It starts no goroutine,
// reads no clock, no disk and no socket; what is stored it asks of a [View],
// what transactions move of a [Ledger], and times are arguments. [State] is one
// replica's knowledge, [Issuer] decides when its gateway votes, [Certificates]
// collects the signatures that make milestones provable. The caller stores
// blocks before it adds them, and milestones before it adds the next block.
//
// # What may be forgotten
//
// In memory there is a node per block that no milestone has ordered, and per
// vote of a round from nextSlot-1 on. Of what is ordered the View keeps the
// milestone index and, of a vote, its [Claim]: gateway, round and seen set, and
// beyond what §8 lists the epoch and the merges, which the validity of a vote
// above it depends on. Bodies are needed of the last two milestones and of what
// is not ordered: with them [New] is brought to where it was.
//
// # What equivocators may cost
//
// A key that signs what it likes can make any number of votes that nothing
// refers to. [State.Evict] bounds what they cost, and takes nothing from what
// replicas agree on:
//
//   - Safety holds whatever a replica has seen, as long as it has the past of
//     it: one that forgot a vote is one to which that vote comes late. Only what
//     nothing refers to is forgotten, and it can be added again.
//   - What a replica that forgot concludes is what it concluded before. A vote
//     that nothing refers to adds a ballot and a certificate to what is known,
//     if it is an opener, and nothing else: it is in no other vote's cone, so it
//     counts in no support but its own, and as a proposal it can win no quorum.
//     Two different ballots of one gateway already count against every proposal,
//     and at most one proposal of a slot can be certified (§12, step 2). So per
//     gateway and round at most three openers tell all that any number does.
//   - Others can conclude it too. Kept are such openers from the round before
//     the slot that was committed last. With these a replica that is behind
//     decides that slot and the two before it as this one did, directly or
//     through the same anchor; all earlier ones follow from them, since the
//     first slot at least three later that is not skipped is then decided
//     (§4). The same rounds become tips when an epoch ends.
//   - Of a vote that came after its slots were decided, or before a restart, it
//     is not known what it tells: three of them are kept per gateway and round.
//   - The oldest are kept, so that a vote upon a kept one is itself forgotten
//     and no chain grows. A vote of an equivocator with more than 64 unordered
//     ones of equivocators in its own part of the cone is not taken
//     ([State.Useless]).
//
// So an equivocator has at most six openers of a round, with 64 votes below
// each, in the rounds since the last commit. Not bounded are votes that payload
// blocks or votes of others refer to, which those pay for, and votes of a
// closed epoch, which are plain blocks. Their rate is limited: of each gateway,
// those in the gossip of a member and those that a member hands out when it is
// asked, whatever asks for them. That takes the place of the 64 unknown votes
// that §7 lets a payload block or a vote of a closed epoch bring with it.
//
// # What lies too deep
//
// Blocks whose cone reaches back further than the honest depth rule allows (§8)
// are no tips, hide no tips and are forgotten: no honest gateway can refer to
// them, and waiting for them would keep those voting that know of them. A gateway whose own
// last vote reaches back too far opens its next round without self parent.
//
// The rule does not count what gateways of more than weight B have voted for.
// Taken to the letter it lets one block end a network: somebody refers to a
// block that was ordered idHorizon/2 milestones ago, the gateways vote for it,
// and with the next milestone everybody's last vote lies too deep for everybody
// (simulation: seed 3 at n = 4 with the rule to the letter). More than B includes
// an honest gateway, for which the block was within idHorizon/2; it is ordered
// within idHorizon as long as that gateway was less than half of it behind.
// Honest gateways of up to weight B may have voted for it while Byzantine ones
// keep silent, so that neither they nor the rest are a quorum without each
// other. Who has been unable to open a round for ten leader timeouts therefore
// takes votes of any depth: the milestones stand still meanwhile, so they are
// solid everywhere. A block that is no vote is never taken beyond the rule.
//
// A replica that forgets ids must also drop, when it starts, unordered blocks
// that refer to what it has forgotten, and what lies above them.
//
// # Readings
//
// Where consensus.md leaves room or cannot be followed to the letter:
//
//   - §3 leader: the hash is over networkId (u64), epoch (u32) and round (u32),
//     little-endian as everything, and its first 8 bytes taken as a u64 mod W.
//     The bias is below 2^-25 for the weights that a file allows.
//   - §7 equivocation: two votes with the same self parent are one too. An
//     honest gateway has one chain, and without this a key could put any number
//     of merge votes into a round by forking them, against what §2 promises.
//   - §4 tips: a vote of a gateway that equivocated is no tip, and does not end
//     the being a tip of its parents. Otherwise a payload block whose only child
//     is such a vote would never be referred to and never be ordered (INV-8;
//     the simulation found it within ten seeds).
//   - §7, §9: an equivocator's vote can decide a slot at the one replica that
//     got it, while nobody refers to it. Peers therefore exchange such openers
//     too ([State.Outcasts]); when the epoch ends by them, those from the round
//     before the last one on become tips, as the plain blocks that they are from
//     then on. Otherwise the others would wait for a gateway that is done: for
//     good across an epoch (seed 2647 at n = 4), else until the next payload.
//   - §5 time: the milestone of slot 1, which is a network's first unless that is
//     skipped, has time 0: there is no round below it whose votes told one. So have
//     those after it as long as no vote tells a time.
//   - §5 clocks: one that is plausible counts as known to be good, whether or not
//     the kernel calls it synchronised: else a site without a time server would
//     have no time at all. After a leap of more than an hour it counts again once
//     it is called synchronised, or has been steady for an hour; one that showed a
//     time before the program was made, as soon as it shows a later one.
//   - §6 payload blocks: more than four parents, up to eight, when there are many
//     tips, so that these become fewer; a tip's age plays no part. Tips reach back
//     idHorizon/4 milestones at most, half as far as §8 allows: a block takes a
//     while to be made, and who hands in one at the very limit could otherwise
//     have all those upon it lie too deep a moment later.
//   - §6 waits: the slots waited for are those before the round to be opened
//     (round-1 and round-2), which are opened and opened-1 unless rounds are
//     jumped. A leader counts as silent after max(3 s, 2 intervals), since a
//     pace of 5 s would make everybody silent, and support that can no longer
//     reach a quorum is not waited for.
//   - §6 back-off of merge votes starts at two intervals.
//   - §5 contradictions: what is signed is a milestone's id alone. That somebody
//     signed another one counts once that one is shown ([Certificates.Rival]),
//     else old signatures, sent again under another index, would halt everybody.
//   - §7 every start: a peer's report of a higher round counts for nothing by
//     itself. The peer shows the opener, and adding it enters recovering mode;
//     otherwise one liar could hold up every start.
//   - §7 assist: a target of more than four rounds above the highest known is
//     ignored; an honest one is at most three above.
//   - §7 too far behind, §8 depth rule: payloads are not attached anew. What a
//     minority attached while it was away for more than idHorizon/2 milestones
//     stays in its own replica, and no milestone ever orders it.
//   - §11 INV-7: a replica that took over a snapshot approves what that ordered
//     without holding the bodies; "stored" means stored or ordered there.
package consensus
