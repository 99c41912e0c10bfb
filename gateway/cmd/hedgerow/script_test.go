package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(tidy{m}, map[string]func(){"hedgerow": main})
}

// tidy runs the tests with a directory for temporary files that is removed
// afterwards, the built binary in it too.
type tidy struct{ m *testing.M }

func (t tidy) Run() int {
	dir, err := os.MkdirTemp("", "hedgerow-test-")
	if err == nil {
		defer os.RemoveAll(dir) //nolint:errcheck // nothing depends on it
		err = os.Setenv("TMPDIR", dir)
	}
	if err != nil {
		panic(err)
	}
	return t.m.Run()
}

// The command from outside: each script of testdata/script runs the program
// as a process of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("NO_COLOR", "1")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"serves":  serves,
			"await":   await,
			"publish": publish,
			"put":     put,
			"get":     get,
		},
	})
}

// exits CODE COMMAND...: the command ends with this code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// await REGEXP COMMAND...: sooner or later the command succeeds and prints
// what matches.
func await(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile(args[0])
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ts.Exec(args[1], args[2:]...)
		if out := ts.ReadFile("stdout"); err == nil && want.MatchString(out) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("%v does not print %q within 30 s", args[1:], args[0])
		}
	}
}

// serves DIR: sooner or later the API of the sandbox answers, ready or not.
func serves(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var api struct{ Address string }
		b, err := os.ReadFile(ts.MkAbs(filepath.Join(args[0], "api.json")))
		if err == nil && json.Unmarshal(b, &api) == nil {
			if resp, err := http.Get("http://" + api.Address + "/ready"); err == nil {
				_ = resp.Body.Close()
				return
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("nothing answers for %s within 30 s", args[0])
		}
	}
}

// publish DIR TOPIC PAYLOAD: one MQTT publish to the sandbox is acknowledged.
func publish(ts *testscript.TestScript, _ bool, args []string) {
	p, err := dialMQTT(context.Background(), listener(ts, args[0], "mqtt"), "script")
	ts.Check(err)
	defer p.close()
	ts.Check(p.publish(args[1], 1, []byte(args[2])))
	id, err := p.acked()
	ts.Check(err)
	if id != 1 {
		ts.Fatalf("packet %d acknowledged, want 1", id)
	}
}

// put DIR PATH PAYLOAD: one CoAP PUT to the sandbox is answered with success.
func put(ts *testscript.TestScript, _ bool, args []string) {
	c, err := dialCoAP(listener(ts, args[0], "coap"), 1)
	ts.Check(err)
	defer c.close()
	ts.Check(c.put(context.Background(), strings.Split(args[1], "/"), []byte(args[2])))
}

// get DIR PATH FILE: writes what the sandbox's API answers into a file.
func get(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), ask(ts, args[0], args[1]), 0o600))
}

func listener(ts *testscript.TestScript, dir, protocol string) string {
	var status struct {
		Listeners []struct{ Protocol, Address string }
	}
	ts.Check(json.Unmarshal(ask(ts, dir, "/api/hedgerow/v1/status"), &status))
	for _, l := range status.Listeners {
		if l.Protocol == protocol {
			return l.Address
		}
	}
	ts.Fatalf("nothing listens for %s", protocol)
	return ""
}

func ask(ts *testscript.TestScript, dir, path string) []byte {
	var api struct{ Address string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(filepath.Join(dir, "api.json"))), &api))
	req, err := http.NewRequest(http.MethodGet, "http://"+api.Address+path, nil)
	ts.Check(err)
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(ts.ReadFile(filepath.Join(dir, "admin.token"))))
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if resp.StatusCode != http.StatusOK {
		ts.Fatalf("GET %s: %d %s", path, resp.StatusCode, b)
	}
	return b
}
