//go:build linux && !cgo

package gateway

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Every thread of the process has it, those of the runtime too.
func TestTimerSlackIsThatOfAllThreads(t *testing.T) {
	defer setTimerSlack(busySlack)
	for _, slack := range []time.Duration{restSlack, busySlack} {
		setTimerSlack(slack)
		want := fmt.Sprint(slack.Nanoseconds())
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			got, err := os.ReadFile("/proc/" + thread.Name() + "/timerslack_ns")
			if err == nil && strings.TrimSpace(string(got)) != want {
				t.Errorf("thread %s has a slack of %s ns, want %s", thread.Name(), got, want)
			}
		}
	}
}
