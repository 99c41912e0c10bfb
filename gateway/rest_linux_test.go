package gateway

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestTimerSlackIsThatOfAllThreads(t *testing.T) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	defer setTimerSlack(busySlack)
	for _, slack := range []time.Duration{restSlack, busySlack} {
		setTimerSlack(slack)
		set := 0
		for _, thread := range threads {
			got, err := os.ReadFile("/proc/" + thread.Name() + "/timerslack_ns")
			if err == nil && strings.TrimSpace(string(got)) == fmt.Sprint(slack.Nanoseconds()) {
				set++
			}
		}
		if os.Geteuid() == 0 && set < len(threads) {
			t.Errorf("%d of %d threads have a slack of %v", set, len(threads), slack)
		}
	}
}
