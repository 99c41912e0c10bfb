package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/hedgerow-iot/hedgerow/batching/reading"
)

func (d *Doctor) clock(context.Context, *box) []Finding {
	now, q := newClock()()
	return one(clockFinding(now, q))
}

// lastYear is one that a right clock does not show for a long time.
const lastYear = 2100

func clockFinding(now time.Time, q reading.Clock) Finding {
	f := Finding{Check: "clock", Verdict: VerdictOK, Found: now.UTC().Format(time.RFC3339)}
	switch {
	case q == reading.ClockBad || now.Year() > lastYear:
		f.Verdict = VerdictBad
		f.Found += ", which cannot be right"
		f.Advice = "set the clock and run an NTP service, such as chrony or systemd-timesyncd; readings are marked with clock bad until then"
	case q == reading.ClockUnsure:
		f.Verdict = VerdictWarn
		f.Found += ", not synchronised"
		f.Advice = "run an NTP service, such as chrony or systemd-timesyncd; readings are marked with clock unsure until then"
	default:
		f.Found += ", synchronised"
	}
	return f
}

// What the speed of the disk is measured with.
const (
	speedFile   = "doctor.tmp"
	speedSyncs  = 400
	speedTime   = time.Second
	speedAppend = 4 << 10
	speedRoom   = 128 << 20 // free bytes without which nothing is written
	slowSync    = 20 * time.Millisecond
)

func (d *Doctor) diskSpeed(ctx context.Context, b *box) []Finding {
	f := Finding{Check: "disk_speed", Verdict: VerdictWarn}
	dir := string(d.Config.DataDir)
	sys, err := statDisk(existing(dir))
	switch {
	case err == nil && sys.free < speedRoom:
		f.Found, f.Advice = "not measured: the disk is nearly full", "make room"
		return one(f)
	case b.unseen:
		f.Found, f.Advice = "not measured: this user may not write to "+dir, "ask as the gateway's user"
		return one(f)
	case !exists(dir):
		f.Verdict, f.Found = VerdictOK, "not measured: "+dir+" is made at the first start"
		return one(f)
	}
	times, err := measureSyncs(ctx, filepath.Join(dir, speedFile))
	if err != nil {
		f.Found, f.Advice = "not measured: "+err.Error(), "ask as the gateway's user"
		return one(f)
	}
	return one(speedFinding(times))
}

func speedFinding(times []time.Duration) Finding {
	f := Finding{Check: "disk_speed", Verdict: VerdictOK}
	slices.Sort(times)
	n := len(times)
	p50, p99 := times[n/2], times[min(n-1, n*99/100)]
	f.Found = fmt.Sprintf("%d synced appends of 4 KiB: p50 %.1f ms, p99 %.1f ms", n, milliseconds(p50), milliseconds(p99))
	if p50 > slowSync {
		f.Verdict = VerdictWarn
		f.Advice = "an acknowledgement takes at least as long: use a faster disk than this for data_dir, such as an SSD in place of an SD card"
	}
	return f
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// measureSyncs appends to a file of its own for about a second and returns how
// long each append took to be durable; at least one.
func measureSyncs(ctx context.Context, path string) (times []time.Duration, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	chunk := make([]byte, speedAppend)
	for start := time.Now(); len(times) == 0 || len(times) < speedSyncs && time.Since(start) < speedTime && ctx.Err() == nil; {
		at := time.Now()
		if _, err := f.Write(chunk); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(at))
	}
	return times, nil
}

// existing returns the directory, or the nearest one above it that exists.
func existing(dir string) string {
	dir, err := filepath.Abs(dir)
	for err == nil && !exists(dir) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
	}
	return dir
}

// A diskState is what the file system of a directory says of itself.
type diskState struct {
	kind                  string // such as ext4; "" unknown
	readOnly              bool
	free, size            int64  // bytes an ordinary process may still write; all
	freeInodes, allInodes uint64 // 0 of all: it makes them as it needs them
}

func (d *Doctor) diskSpace(context.Context, *box) []Finding {
	s, err := statDisk(existing(string(d.Config.DataDir)))
	if err != nil {
		return one(Finding{"disk_space", VerdictWarn, "not known: " + err.Error(), "ask as the gateway's user", false})
	}
	return []Finding{spaceFinding(s, int64(d.Config.Journal.Reserve)), inodeFinding(s)}
}

func spaceFinding(s diskState, reserve int64) Finding {
	f := Finding{Check: "disk_space", Verdict: VerdictOK}
	f.Found = fmt.Sprintf("%s free of %s, reserve %s", bytesText(s.free), bytesText(s.size), bytesText(reserve))
	switch {
	case s.free < reserve:
		f.Verdict = VerdictBad
		f.Advice = "readings are refused below the reserve: make room, or lower journal.reserve"
	case s.free < 2*reserve:
		f.Verdict = VerdictWarn
		f.Advice = "readings are refused when it falls below the reserve: make room, or lower journal.max_disk and ledger.retention.max_disk"
	}
	return f
}

func inodeFinding(s diskState) Finding {
	const least, few = 1000, 10000
	f := Finding{Check: "inodes", Verdict: VerdictOK, Found: fmt.Sprintf("%d free of %d", s.freeInodes, s.allInodes)}
	switch {
	case s.allInodes == 0:
		f.Found = "the file system has no fixed number"
	case s.freeInodes < least:
		f.Verdict, f.Advice = VerdictBad, "the stores can soon make no files: delete many small files on this file system"
	case s.freeInodes < few:
		f.Verdict, f.Advice = VerdictWarn, "delete many small files on this file system"
	}
	return f
}

func (d *Doctor) fileSystem(context.Context, *box) []Finding {
	dir := existing(string(d.Config.DataDir))
	s, err := statDisk(dir)
	if err != nil {
		return one(Finding{"file_system", VerdictWarn, "not known: " + err.Error(), "ask as the gateway's user", false})
	}
	return one(fileSystemFinding(dir, s))
}

func fileSystemFinding(dir string, s diskState) Finding {
	f := Finding{Check: "file_system", Verdict: VerdictOK, Found: dir + " is on " + orUnknown(s.kind)}
	const volume = "put data_dir on a disk that stays"
	switch {
	case s.readOnly:
		f.Verdict, f.Found = VerdictBad, f.Found+", read-only"
		f.Advice = "a disk turns read-only when it fails: look at the kernel's log, replace the disk or mount it for writing"
	case s.kind == "tmpfs" || s.kind == "ramfs":
		f.Verdict, f.Found, f.Advice = VerdictWarn, f.Found+": what is acknowledged is gone when the power is", volume
	case s.kind == "overlay":
		f.Verdict, f.Found, f.Advice = VerdictWarn, f.Found+": what is acknowledged goes with the container", "put data_dir on a volume"
	case slices.Contains([]string{"nfs", "smb", "fuse"}, s.kind):
		f.Verdict, f.Found, f.Advice = VerdictWarn, f.Found+": whether a sync means durable there, its server decides", "put data_dir on a local disk"
	case s.kind == "vfat" || s.kind == "exfat":
		f.Verdict, f.Found, f.Advice = VerdictWarn, f.Found+", which has no journal and no owners of files", "use ext4 or another journalling file system"
	}
	return f
}

func orUnknown(kind string) string {
	if kind == "" {
		return "a file system of unknown kind"
	}
	return kind
}

func bytesText(n int64) string {
	const unit = 1 << 10
	v, names := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; v >= unit && i < len(names)-1; i++ {
		v /= unit
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + names[i]
}

func (d *Doctor) memory(context.Context, *box) []Finding {
	limit, source := memoryLimit(os.ReadFile)
	return one(memoryFinding(limit, source))
}

func memoryFinding(limit int64, source string) Finding {
	const least, roomy = 96 << 20, 256 << 20 // the memory tables; what saturation takes
	f := Finding{Check: "memory", Verdict: VerdictOK, Found: fmt.Sprintf("the gateway keeps below %s (%s)", bytesText(limit), source)}
	switch {
	case limit == 0:
		f.Found = "no limit is known"
	case limit < least:
		f.Verdict, f.Advice = VerdictBad, "the gateway would be killed: give it 256 MiB or more"
	case limit < roomy:
		f.Verdict, f.Advice = VerdictWarn, "enough for a few readings a second; give it 512 MiB for hundreds"
	}
	return f
}

func (d *Doctor) openFiles(_ context.Context, b *box) []Finding {
	limit, err := fileLimit(b.pid)
	if err != nil {
		return one(Finding{"open_files", VerdictWarn, "not known: " + err.Error(), "ask as the gateway's user", false})
	}
	return one(filesFinding(limit, d.Config.MQTT.Limits.Connections))
}

// filesFinding compares the limit with what the gateway opens at most: the
// connections of each server and the files of the stores.
func filesFinding(limit uint64, connections int) Finding {
	const stores = 512 // tables and logs, and what the stores keep free
	want := uint64(connections) + maxHTTPConns + stores
	f := Finding{Check: "open_files", Verdict: VerdictOK, Found: fmt.Sprintf("%d may be open, %d at most are needed", limit, want)}
	switch {
	case limit < stores:
		f.Verdict, f.Advice = VerdictBad, "raise the limit (LimitNOFILE, ulimit -n): readings are refused when files run out"
	case limit < want:
		f.Verdict, f.Advice = VerdictWarn, "raise the limit (LimitNOFILE, ulimit -n), or lower mqtt.limits.connections"
	}
	return f
}

// certificates looks at every certificate that the configuration names.
func (d *Doctor) certificates(context.Context, *box) []Finding {
	return certificatesOf(reflect.ValueOf(&d.Config).Elem(), time.Now())
}

// certificatesOf finds the keys of a configuration that name certificates:
// certificate, with the key beside it, ca and client_ca.
func certificatesOf(cfg reflect.Value, now time.Time) (all []Finding) {
	paths := map[string]string{}
	var keys []string
	each(cfg, "", func(key string, v reflect.Value, _ reflect.StructTag) {
		if p, ok := v.Interface().(Path); ok && p != "" {
			keys, paths[key] = append(keys, key), string(p)
		}
	})
	for _, key := range keys {
		section, name := "", key
		if i := strings.LastIndexByte(key, '.'); i >= 0 {
			section, name = key[:i+1], key[i+1:]
		}
		switch name {
		case "certificate":
			all = append(all, certificateFinding(key, paths[key], paths[section+"key"], now))
		case "ca", "client_ca":
			all = append(all, certificateFinding(key, paths[key], "", now))
		}
	}
	return all
}

const (
	maxCertificates = 1 << 20 // bytes of a file of them
	expiresSoon     = 30 * 24 * time.Hour
)

// certificateFinding looks at the certificates of a file, and whether the
// private key, if there is one, belongs to the first.
func certificateFinding(key, path, private string, now time.Time) Finding {
	f := Finding{Check: "certificate", Verdict: VerdictBad, Advice: "replace it; " + key + " names it"}
	certs, err := readCertificates(path)
	if err == nil && private != "" {
		_, err = tls.LoadX509KeyPair(path, private)
	}
	if err != nil {
		f.Found = fmt.Sprintf("%s %s: %v", key, path, err)
		return f
	}
	from, to := certs[0].NotBefore, certs[0].NotAfter
	for _, c := range certs[1:] { // all of a chain must be valid
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
		if c.NotAfter.Before(to) {
			to = c.NotAfter
		}
	}
	f.Found = fmt.Sprintf("%s %s is valid from %s to %s", key, path, from.UTC().Format(time.DateOnly), to.UTC().Format(time.DateOnly))
	switch {
	case now.Before(from) || now.After(to):
	case to.Sub(now) < expiresSoon:
		f.Verdict = VerdictWarn
	default:
		f.Verdict, f.Advice = VerdictOK, ""
	}
	return f
}

func readCertificates(path string) (certs []*x509.Certificate, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // nothing was written
	text, err := io.ReadAll(io.LimitReader(file, maxCertificates))
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM block CERTIFICATE")
	}
	return certs, nil
}
