package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/hedgerow-iot/hedgerow/gateway"
)

// target says which gateway a command asks.
type target struct {
	Config string `placeholder:"FILE" xor:"target" help:"Configuration file of the gateway to ask."`
	Data   string `placeholder:"DIR" xor:"target" help:"Directory of the sandbox to ask (default ./hedgerow-data)."`
}

// configuration is that of the gateway to ask.
func (t *target) configuration() (gateway.Config, error) {
	if t.Config == "" {
		return sandboxConfig(t.Data, nil)
	}
	cfg, err := gateway.Load(t.Config, nil)
	if err != nil {
		return cfg, usageError{err}
	}
	return cfg, nil
}

// A client asks the admin API, of a running gateway or of stores that no
// gateway has open.
type client struct {
	http  *http.Client
	base  string
	token string
	close func() error
}

// open returns a client for the target. Stores that nobody uses are opened
// here and stay as they are.
func (t *target) open(e *env) (*client, error) {
	cfg, err := t.configuration()
	if err != nil {
		return nil, err
	}
	address, running := gateway.Running(cfg)
	if !running {
		off, err := gateway.OpenOffline(cfg, slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelError})))
		if errors.Is(err, gateway.ErrEmpty) {
			return nil, fmt.Errorf("no gateway runs on %s, and no readings are stored there; say which with --config FILE or --data DIR", cfg.DataDir)
		}
		if errors.Is(err, gateway.ErrLocked) { // by a command, or a start that is not through
			return nil, err
		}
		if err != nil {
			return nil, fmt.Errorf("no gateway runs on %s, and its stores: %w", cfg.DataDir, err)
		}
		return &client{
			http: &http.Client{Transport: inProcess{off}}, base: "http://offline",
			token: off.Token(), close: off.Close,
		}, nil
	}
	return clientOf(cfg, address)
}

// clientOf returns a client for the running gateway at the address.
func clientOf(cfg gateway.Config, address string) (*client, error) {
	secret, err := cfg.API.Token.Read()
	if err != nil {
		return nil, fmt.Errorf("read the admin token: %w", err)
	}
	return &client{
		http: &http.Client{}, base: "http://" + address,
		token: strings.TrimSpace(string(secret)), close: func() error { return nil },
	}, nil
}

// get asks for a path; the caller closes the body.
func (c *client) get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	return c.getBehind(ctx, path, query, "")
}

// getBehind is get for a stream of events that goes on behind the one with the
// id last.
func (c *client) getBehind(ctx context.Context, path string, query url.Values, last string) (*http.Response, error) {
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	return c.do(req)
}

// post sends a body and decodes the answer.
func (c *client) post(ctx context.Context, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(into); err != nil {
		return fmt.Errorf("read the gateway's answer to %s: %w", path, err)
	}
	return nil
}

// do sends a request with the token; the caller closes the body.
func (c *client) do(req *http.Request) (*http.Response, error) {
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the gateway: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	var answer struct {
		Error struct{ Message string } `json:"error"`
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if json.Unmarshal(b, &answer) == nil && answer.Error.Message != "" {
		return nil, fmt.Errorf("the gateway answers %s: %s", resp.Status, answer.Error.Message)
	}
	return nil, fmt.Errorf("the gateway answers %s", resp.Status)
}

// getJSON asks for a path and decodes the answer.
func (c *client) getJSON(ctx context.Context, path string, query url.Values, into any) error {
	resp, err := c.get(ctx, path, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(into); err != nil {
		return fmt.Errorf("read the gateway's answer to %s: %w", path, err)
	}
	return nil
}

// inProcess is a transport that calls the handler in place of a network.
type inProcess struct{ handler http.Handler }

// RoundTrip runs the handler in a goroutine that ends when it has answered or
// the body is closed.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	body, w := io.Pipe()
	rec := &pipeWriter{header: http.Header{}, body: w, ready: make(chan struct{})}
	r = r.Clone(r.Context())
	r.RemoteAddr = "127.0.0.1:0"
	go func() {
		defer func() {
			if p := recover(); p != nil { // how handlers cut an answer short
				rec.WriteHeader(http.StatusInternalServerError)
				_ = w.CloseWithError(errors.New("the answer was cut short"))
			}
		}()
		t.handler.ServeHTTP(rec, r)
		rec.WriteHeader(http.StatusOK)
		_ = w.Close()
	}()
	<-rec.ready
	return &http.Response{
		Status: fmt.Sprintf("%d %s", rec.code, http.StatusText(rec.code)), StatusCode: rec.code,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: rec.sent, Body: body, Request: r, ContentLength: -1,
	}, nil
}

// pipeWriter is the ResponseWriter of inProcess; one goroutine uses it.
type pipeWriter struct {
	header, sent http.Header
	body         *io.PipeWriter
	code         int
	ready        chan struct{} // closed when code and sent are set
}

func (p *pipeWriter) Header() http.Header { return p.header }

func (p *pipeWriter) WriteHeader(code int) {
	if p.code != 0 {
		return
	}
	p.code, p.sent = code, p.header.Clone()
	close(p.ready)
}

func (p *pipeWriter) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	return p.body.Write(b)
}

// isTerminal reports whether somebody watches w, and may see colours and
// moving lines.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	return isatty(f.Fd())
}

// colour reports whether w may be given colours (no-color.org).
func colour(w io.Writer) bool { return os.Getenv("NO_COLOR") == "" && isTerminal(w) }
