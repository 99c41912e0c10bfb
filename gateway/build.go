package gateway

import (
	"runtime"
	"runtime/debug"
)

// version is the release that this program belongs to.
const version = "0.1.0"

// A Build says what the program was made from.
type Build struct {
	Version     string `json:"version"`
	Commit      string `json:"commit"` // "unknown" outside a checkout
	Go          string `json:"go"`
	StoreFormat string `json:"storeFormat"` // newest format that it reads and writes
}

// ReadBuild returns what is known of this program.
func ReadBuild() Build {
	b := Build{Version: version, Commit: "unknown", Go: runtime.Version(), StoreFormat: storeFormat}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			b.Commit += " (modified)"
		}
	}
	return b
}
