package gateway

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/hedgerow-iot/hedgerow/ledger/network"
)

// A Verdict says how a check went.
type Verdict string

// The verdicts of a [Finding].
const (
	VerdictOK   Verdict = "ok"
	VerdictWarn Verdict = "warn" // works, but somebody should look
	VerdictBad  Verdict = "bad"  // does not work, or will not for long
)

// A Finding is what one check of a [Doctor] found.
type Finding struct {
	Check   string  `json:"check"` // constant, lower case
	Verdict Verdict `json:"verdict"`
	Found   string  `json:"found"`  // one line
	Advice  string  `json:"advice"` // what to do; may be empty
	// Store is set when a store is damaged or newer than this program.
	Store bool `json:"-"`
}

// A Doctor examines what a gateway stands on, whether it runs or not.
type Doctor struct {
	Config Config
	File   string // of the configuration; empty for a sandbox
	// Self returns a command that calls [Fsck] with the arguments and writes
	// its outcome to stdout. It is started and waited for.
	Self func(ctx context.Context, args ...string) *exec.Cmd
}

// A box is what Examine knows of the gateway before it looks closer.
type box struct {
	address string   // of the API; empty: no gateway runs
	unseen  bool     // this user may not look into the data directory
	pid     int      // of the process that holds the data directory; 0: none
	lock    *os.File // of the data directory; nil: others hold it, or there is none
	refused error    // why the lock could not be taken though nobody holds it
	token   string   // empty: it could not be read
	status  *runningStatus
}

// Examine makes every check and returns what each found, in a fixed order. It
// takes a second or two, and as long as the stores take to be read. A gateway
// that runs is asked; otherwise its data directory is locked meanwhile, and its
// stores are opened as a start would.
func (d *Doctor) Examine(ctx context.Context) []Finding {
	b, err := d.look(ctx)
	if b.lock != nil {
		defer b.lock.Close() //nolint:errcheck // nothing was written
	}
	var all []Finding
	for _, check := range []func(context.Context, *box) []Finding{
		d.configuration, d.identity, d.adminToken, d.network,
		d.clock, d.diskSpeed, d.diskSpace, d.fileSystem, d.memory, d.openFiles,
		d.listeners, d.certificates, d.peers, d.quorum, d.proofOfWork, d.stores,
	} {
		all = append(all, check(ctx, b)...)
	}
	if err != nil {
		all = append(all, d.unasked(b, err))
	}
	return all
}

// look finds out whether a gateway runs, and takes the data directory if not.
// The error is that of asking a gateway that runs.
func (d *Doctor) look(ctx context.Context) (*box, error) {
	b := &box{}
	dir := string(d.Config.DataDir)
	var err error
	b.pid, err = inUse(dir)
	b.unseen = errors.Is(err, fs.ErrPermission)
	if address, ok := Running(d.Config); ok {
		b.address = address
		secret, err := d.Config.API.Token.Read()
		if err == nil {
			b.token, err = parseToken(secret)
		}
		if err != nil {
			return b, errNoToken // what is wrong with it, a check of its own says
		}
		b.status, err = d.askStatus(ctx, b)
		return b, err
	}
	if b.pid != 0 || !exists(dir) {
		return b, nil
	}
	if b.refused = ownedBy(dir, os.Geteuid()); b.refused == nil {
		b.lock, b.refused = lockDir(dir)
	}
	return b, nil
}

func one(f Finding) []Finding { return []Finding{f} }

func (d *Doctor) configuration(context.Context, *box) []Finding {
	if d.File == "" && !exists(d.Config.Home) {
		return one(Finding{"configuration", VerdictWarn, "there is no sandbox in " + d.Config.Home,
			"hedgerow run --sandbox makes one there; a gateway with a configuration is examined with --config FILE", false})
	}
	if d.File == "" {
		return one(Finding{Check: "configuration", Verdict: VerdictOK, Found: "sandbox in " + d.Config.Home})
	}
	if err := Check(d.File, nil); err != nil {
		return one(Misconfigured(d.File, err))
	}
	return one(Finding{Check: "configuration", Verdict: VerdictOK, Found: d.File + " is valid"})
}

// Misconfigured is the finding of a configuration that cannot be loaded.
func Misconfigured(file string, err error) Finding {
	f := Finding{Check: "configuration", Verdict: VerdictBad, Found: err.Error(), Advice: "correct it; hedgerow check --config " + file + " says whether it is valid"}
	var problems Problems
	if errors.As(err, &problems) {
		f.Found = fmt.Sprintf("%d problems, the first is %s", len(problems), problems[:1].Error())
		if len(problems) == 1 {
			f.Found = problems.Error()
		}
	}
	return f
}

func (d *Doctor) identity(context.Context, *box) []Finding {
	s := d.Config.Identity
	key, err := readIdentity(s)
	f := Finding{Check: "identity", Verdict: VerdictOK}
	switch {
	case err == nil:
		f.Found = fmt.Sprintf("%v, public key 0x%s", s, hex.EncodeToString(key.Public().(ed25519.PublicKey)))
	case s.Scheme == "file" && errors.Is(err, fs.ErrNotExist) && !used(string(d.Config.DataDir)):
		f.Found = s.Ref + " is made at the first start"
	case s.Scheme == "file" && errors.Is(err, fs.ErrNotExist):
		f.Verdict, f.Found = VerdictBad, s.Ref+" is missing, but the data directory holds stores made with it"
		f.Advice = "put the key back from its copy; without it this gateway cannot sign for its name any more"
	default:
		f.Verdict, f.Found = VerdictBad, err.Error()
		f.Advice = secretAdvice(s, err)
	}
	return one(f)
}

// asItsUser is the advice to whoever may not see what the gateway sees.
const asItsUser = "ask as the gateway's user; if that is this one, give it the right to read"

func secretAdvice(s Secret, err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return asItsUser
	case s.Scheme == "file" && tooOpen(s.Ref):
		return "take the right to read it from others, as doctor --repair does, and consider who may have read it"
	}
	return "put the right one there, readable for the gateway's user"
}

// tooOpen reports whether others may read or write the file.
func tooOpen(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0
}

func (d *Doctor) adminToken(_ context.Context, b *box) []Finding {
	s := d.Config.API.Token
	secret, err := s.Read()
	if err == nil {
		_, err = parseToken(secret)
	}
	f := Finding{Check: "admin_token", Verdict: VerdictOK, Found: s.String()}
	switch {
	case err == nil:
	case s.Scheme == "file" && errors.Is(err, fs.ErrNotExist) && b.address != "" && !b.unseen:
		f.Verdict, f.Found = VerdictBad, s.Ref+" is missing, and the gateway that runs wants the token that was in it"
		f.Advice = "put it back, or restart the gateway: the start makes another"
	case s.Scheme == "file" && errors.Is(err, fs.ErrNotExist):
		f.Found = s.Ref + " is made at the next start"
	default:
		f.Verdict, f.Found, f.Advice = VerdictBad, err.Error(), secretAdvice(s, err)
	}
	return one(f)
}

func (d *Doctor) network(context.Context, *box) []Finding {
	path := d.Config.networkPath()
	f, err := network.Load(path)
	out := Finding{Check: "network", Verdict: VerdictOK}
	switch {
	case errors.Is(err, fs.ErrNotExist) && d.Config.Network == "" && !exists(filepath.Join(string(d.Config.DataDir), "ledger")):
		out.Found = path + " is made at the first start: a network of one"
		return one(out)
	case errors.Is(err, fs.ErrPermission):
		return one(Finding{"network", VerdictBad, err.Error(), asItsUser, false})
	case err != nil:
		out.Verdict, out.Found = VerdictBad, err.Error()
		out.Advice = "put the network file back; every member of the network has it"
		return one(out)
	}
	if key, err := readIdentity(d.Config.Identity); err == nil {
		if err := checkMember(f, d.Config.Name, key.Public().(ed25519.PublicKey), path); err != nil {
			out.Verdict, out.Found = VerdictBad, err.Error()
			out.Advice = "use the name and the identity key that the network file has for this gateway"
			if wasMember(string(d.Config.DataDir), f, d.Config.Name, key.Public().(ed25519.PublicKey)) {
				out.Advice = "it was a member until an epoch took it out or renamed it: add it again (hedgerow network add), set the new name, or give its devices another gateway"
			}
			return one(out)
		}
	}
	out.Advice = ClockAdvice(f)
	n := len(f.Gateways)
	out.Found = fmt.Sprintf("%s, epoch %d, %s, quorum %d of weight %d", f.NetworkName, f.Epoch, counted(n, "gateway"), f.Quorum(), f.Weight())
	all := one(out)
	dir := string(d.Config.DataDir)
	for _, err := range []error{joinDone(dir), repairDone(dir), unpackDone(dir)} {
		if err != nil {
			all = append(all, Finding{"data_directory", VerdictBad, err.Error(), "run that command; no start goes through before", false})
		}
	}
	return all
}

// ClockAdvice says what a network's clocks can do to it; empty: nothing. With two
// or three gateways the median of their times is one gateway's (consensus.md §5).
func ClockAdvice(f *network.File) string {
	if n := len(f.Gateways); n < 2 || n > 3 {
		return ""
	}
	return "with 2 or 3 gateways one wrong clock can decide the time of milestones: keep the clocks of all of them synchronised, or have 4 gateways"
}

// counted is a number of things in words.
func counted[N int | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// stores has both stores read whole: by the gateway that runs, or by a process
// of its own.
func (d *Doctor) stores(ctx context.Context, b *box) []Finding {
	dir := string(d.Config.DataDir)
	switch {
	case b.unseen && b.status == nil:
		return uncheckedStores("this user may not look into "+dir, "")
	case b.address != "":
		return d.runningStores(ctx, b)
	case b.pid != 0:
		return uncheckedStores(fmt.Sprintf("process %d holds the data directory and does not serve", b.pid), "wait for it, or stop it")
	case b.refused != nil:
		return uncheckedStores(b.refused.Error(), "")
	}
	var all []Finding
	for _, job := range []string{jobJournal, jobLedger} {
		f := Finding{Check: job, Verdict: VerdictOK}
		path := filepath.Join(dir, job)
		if !exists(path) {
			f.Found = "none yet: the first start makes it"
			if job == jobLedger && exists(filepath.Join(dir, jobJournal)) {
				f.Verdict, f.Found = VerdictWarn, "missing"
				f.Advice = "put it back from a backup, or start: it is made anew, and what the journal keeps is attached again"
			}
			all = append(all, f)
			continue
		}
		n, err := d.fsck(ctx, b.lock, job, path)
		thing := map[string]string{jobJournal: "reading", jobLedger: "block"}[job]
		if f.Found = "read whole and in order, " + counted(n, thing); err != nil {
			f = d.sickStore(job, err)
		}
		all = append(all, f)
	}
	return all
}

// sickStore is the finding of a store that could not be opened or read.
func (d *Doctor) sickStore(job string, err error) Finding {
	f := Finding{Check: job, Verdict: VerdictBad, Found: short(err.Error())}
	wrong := (*fault)(nil)
	f.Store = errors.As(err, &wrong)
	switch {
	case !f.Store:
		f.Advice = "remove the cause and ask again; the store may be whole"
	case wrong.newer:
		f.Advice = "use the newer program that wrote it"
	case job == jobLedger:
		f.Advice = "keep a copy of data_dir, then: hedgerow doctor --repair " + d.which()
	default:
		f.Advice = "nothing is repaired in the journal, which holds what was acknowledged: keep a copy of data_dir, and restore a backup"
	}
	return f
}

// which names the gateway on a command line.
func (d *Doctor) which() string {
	if d.File == "" {
		return "--data " + d.Config.Home
	}
	return "--config " + d.File
}

func uncheckedStores(why, advice string) []Finding {
	advice = cmp.Or(advice, "ask as the gateway's user")
	return []Finding{
		{jobJournal, VerdictWarn, "not checked: " + why, advice, false},
		{jobLedger, VerdictWarn, "not checked: " + why, advice, false},
	}
}
