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
		want := fmt.Sprint(slack.Nanoseconds())
		for _, thread := range threads {
			name := "/proc/" + thread.Name() + "/timerslack_ns"
			got, err := os.ReadFile(name)
			if err != nil || strings.TrimSpace(string(got)) == want {
				continue
			}
			if os.WriteFile(name, []byte(want), 0) == nil { // else it may not
				t.Errorf("thread %s has a slack of %s ns, want %s", thread.Name(), got, want)
			}
		}
	}
}
