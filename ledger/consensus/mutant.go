package consensus

// A mutant is a rule left out. Only tests set one, to show that they would
// notice (§15); the zero value is the algorithm.
type mutant uint8

const (
	noMutant          mutant = iota
	halfQuorum               // a quorum is half of the weight
	supportTwo               // an opener supports every proposal that it sees
	anyCertifies             // every later vote certifies, not only openers of R+2
	forgetPruned             // votes that are ordered do not count for rounds
	replicaEpochRules        // votes are judged by the replica's epoch
	equalMedian              // a milestone's time is a median without weights
	anyDepth                 // parents may reach back as far as they like
	strictDepth              // also for what honest gateways voted for they may not
	evictOpen                // equivocators' votes are forgotten whatever they tell
)
