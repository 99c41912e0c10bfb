package journal

import (
	"fmt"
	"log/slog"
	"strings"
)

// storeLog hands what badger says to the gateway's log. What badger calls
// information is detail to us.
type storeLog struct{ log *slog.Logger }

func (l storeLog) Errorf(f string, a ...any)   { l.log.Error("store: " + line(f, a)) }
func (l storeLog) Warningf(f string, a ...any) { l.log.Warn("store: " + line(f, a)) }
func (l storeLog) Infof(f string, a ...any)    { l.log.Debug("store: " + line(f, a)) }
func (l storeLog) Debugf(string, ...any)       {}

func line(f string, a []any) string { return strings.TrimSpace(fmt.Sprintf(f, a...)) }
