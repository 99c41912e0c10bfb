//go:build !linux

package powfarm

import "time"

const threadTimed = false

func threadTime() time.Duration { return 0 }
