package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

// Media types of blocks.
const (
	mediaJSON  = "application/json"
	mediaBytes = "application/vnd.iota.serializer-v1"
)

// A refusal is an error that the client is told as it stands.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// refuse returns a refusal.
func refuse(status int, text string) error { return &refusal{status, text} }

// writeJSON writes v, which must be one that encodes.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "encode the answer: "+err.Error())
		return
	}
	write(w, status, mediaJSON, body)
}

func write(w http.ResponseWriter, status int, media string, body []byte) {
	w.Header().Set("Content-Type", media)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that went away needs no answer
}

// writeError writes the error form that client libraries read (TIP-25).
func writeError(w http.ResponseWriter, status int, text string) {
	type message struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	}
	body, _ := json.Marshal(map[string]message{"error": {strconv.Itoa(status), text}}) // strings always encode
	write(w, status, mediaJSON, body)
}

// wantsBytes reports whether the Accept header prefers a block's bytes to its
// JSON. Whatever names neither gets JSON, as in Hornet.
func wantsBytes(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(part, ";")
		switch strings.ToLower(strings.TrimSpace(media)) {
		case mediaBytes:
			return true
		case mediaJSON, "application/*", "*/*":
			return false
		}
	}
	return false
}

// pathID reads the block id of the path.
func pathID(w http.ResponseWriter, r *http.Request) (id stardust.BlockID, ok bool) {
	id, err := stardust.ParseBlockID(r.PathValue("id"))
	if err != nil {
		writeError(w, http.StatusBadRequest, "block id in the path: "+err.Error())
		return id, false
	}
	return id, true
}
