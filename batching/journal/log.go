package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
)

// storeLog hands what badger says to the gateway's log. What badger calls
// information is detail to us.
//
// It is also the only way to hear of a write that failed in the background:
// badger logs it and goes on, with a manifest that may name what is not there.
type storeLog struct {
	log  *slog.Logger
	fail *atomic.Pointer[error] // the first such error
}

func (l storeLog) Errorf(f string, a ...any) {
	l.heed(a)
	l.log.Error("store: " + line(f, a))
}

func (l storeLog) Warningf(f string, a ...any) {
	l.heed(a)
	l.log.Warn("store: " + line(f, a))
}

func (l storeLog) Infof(f string, a ...any) { l.log.Debug("store: " + line(f, a)) }
func (l storeLog) Debugf(string, ...any)    {}

// heed takes note of an error of the operating system among what is logged.
func (l storeLog) heed(a []any) {
	for _, v := range a {
		err, ok := v.(error)
		var errno syscall.Errno
		if ok && errors.As(err, &errno) {
			l.fail.CompareAndSwap(nil, &err)
		}
	}
}

func line(f string, a []any) string { return strings.TrimSpace(fmt.Sprintf(f, a...)) }
