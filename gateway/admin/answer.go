package admin

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// writeJSON writes v, which must be one that encodes.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "encode the answer: "+err.Error())
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that went away needs no answer
}

// writeError writes the error form of the contract, section 5.
func writeError(w http.ResponseWriter, status int, text string) {
	type message struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	writeJSON(w, status, map[string]message{"error": {strconv.Itoa(status), text}})
}

// writeQueryError answers for parameters that cannot be used.
func writeQueryError(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	if errors.Is(err, errGateway) {
		status = http.StatusNotFound
	}
	writeError(w, status, err.Error())
}

// methods answers the methods of one path, and the others 405.
type methods map[string]http.HandlerFunc

// ServeHTTP answers HEAD as GET; net/http drops the body.
func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if h, ok := m[method]; ok {
		h(w, r)
		return
	}
	allowed := strings.Join(slices.Sorted(maps.Keys(m)), ", ")
	allow := strings.Replace(allowed, http.MethodGet, "GET, HEAD", 1)
	w.Header().Set("Allow", allow)
	writeError(w, http.StatusMethodNotAllowed, "method "+r.Method+" not allowed here, only "+allowed)
}
