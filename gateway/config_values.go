package gateway

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Auto is the value of an AutoInt that the program chooses itself.
const Auto = -1

// A Size is a number of bytes, written as 256KiB or 2GiB.
type Size int64

// A Duration is written as 5ms, 2s, 10m, 1h or 400d.
type Duration time.Duration

// A Rate is a number of events per hour, written as 1/s, 30/m or 100/h, or 0,
// written none: no bound.
type Rate int64

// An AutoSize is a Size, or 0, written auto.
type AutoSize int64

// An AutoInt is a number, or [Auto], written auto.
type AutoInt int

// A Path is a file or directory, relative to the configuration file until
// Load has resolved it.
type Path string

// A Secret says where a secret is found: file:PATH, env:NAME or
// credential:NAME (systemd's LoadCredential), or nothing: no secret. It never
// holds the secret.
type Secret struct {
	Scheme string // file, env or credential
	Ref    string
}

// errLiteral does not quote the value: it may be a secret.
var errLiteral = errors.New("a secret never stands in the configuration; write file:PATH, env:NAME or credential:NAME")

// A unit is one of the units of a Size or a Rate.
type unit struct {
	name string
	size int64
}

// units returns the units of a Size from the largest.
func units() [5]unit {
	return [...]unit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
}

func (s *Size) set(text string) error {
	digits, per := text, int64(1)
	for _, u := range units() {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			digits, per = strings.TrimSpace(rest), u.size
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/per {
		return fmt.Errorf("%q is not a size; write bytes or a unit, such as 256KiB, 16MiB or 2GiB", clip(text))
	}
	*s = Size(n * per)
	return nil
}

// String returns the shortest exact form, such as 256KiB.
func (s Size) String() string {
	for _, u := range units() {
		if s != 0 && int64(s)%u.size == 0 && u.size > 1 {
			return strconv.FormatInt(int64(s)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

func (s *AutoSize) set(text string) error {
	if text == "auto" {
		*s = 0
		return nil
	}
	var n Size
	if err := n.set(text); err != nil || n == 0 {
		return fmt.Errorf("%q is neither auto nor a size such as 8KiB", clip(text))
	}
	*s = AutoSize(n)
	return nil
}

// String returns auto or the size.
func (s AutoSize) String() string {
	if s == 0 {
		return "auto"
	}
	return Size(s).String()
}

func (n *AutoInt) set(text string) error {
	if text == "auto" {
		*n = Auto
		return nil
	}
	v, err := strconv.Atoi(text)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is neither auto nor a number", clip(text))
	}
	*n = AutoInt(v)
	return nil
}

// String returns auto or the number.
func (n AutoInt) String() string {
	if n == Auto {
		return "auto"
	}
	return strconv.Itoa(int(n))
}

func (d *Duration) set(text string) error {
	bad := fmt.Errorf("%q is not a duration; write a number and a unit, such as 5ms, 10s, 2h or 400d", clip(text))
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || !(n >= 0 && n <= 100_000) {
			return bad
		}
		*d = Duration(n * 24 * float64(time.Hour))
		return nil
	}
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return bad
	}
	*d = Duration(v)
	return nil
}

// ParseDuration reads a duration as a configuration writes it.
func ParseDuration(text string) (time.Duration, error) {
	var d Duration
	err := d.set(text)
	return time.Duration(d), err
}

// String returns the shortest exact form, such as 400d or 5ms.
func (d Duration) String() string {
	v := time.Duration(d)
	if day := 24 * time.Hour; v >= 2*day && v%day == 0 {
		return strconv.FormatInt(int64(v/day), 10) + "d"
	}
	s := v.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// rateUnits returns the units of a Rate, with how many there are in an hour.
func rateUnits() [3]unit {
	return [...]unit{{"s", 3600}, {"m", 60}, {"h", 1}}
}

func (r *Rate) set(text string) error {
	const most = 1_000_000
	if text == "none" {
		*r = 0
		return nil
	}
	number, name, _ := strings.Cut(text, "/")
	n, err := strconv.ParseInt(number, 10, 64)
	for _, u := range rateUnits() {
		if err == nil && u.name == name && n > 0 && n <= most {
			*r = Rate(n * u.size)
			return nil
		}
	}
	return fmt.Errorf("%q is not a rate; write a number up to %d and a unit, such as 1/s, 30/m or 100/h, or none for no bound", clip(text), most)
}

// String returns the form with the smallest number, such as 1/s.
func (r Rate) String() string {
	for _, u := range rateUnits() {
		if r > 0 && int64(r)%u.size == 0 {
			return strconv.FormatInt(int64(r)/u.size, 10) + "/" + u.name
		}
	}
	return "none"
}

// every returns the time from one event to the next, 0 for no bound.
func (r Rate) every() time.Duration {
	if r == 0 {
		return 0
	}
	return time.Hour / time.Duration(r)
}

func (p *Path) set(text string) error {
	if strings.ContainsRune(text, 0) {
		return errors.New("a path holds no NUL")
	}
	*p = Path(text)
	return nil
}

func (s *Secret) set(text string) error {
	if text == "" {
		*s = Secret{}
		return nil
	}
	scheme, ref, ok := strings.Cut(text, ":")
	if !ok || scheme != "file" && scheme != "env" && scheme != "credential" {
		return errLiteral
	}
	if ref == "" || strings.ContainsRune(ref, 0) {
		return fmt.Errorf("%s: needs a name after the colon", scheme)
	}
	if scheme == "credential" && (strings.ContainsRune(ref, '/') || ref == "." || ref == "..") {
		return errors.New("credential: takes the name of a systemd credential, not a path")
	}
	*s = Secret{scheme, ref}
	return nil
}

// String returns the reference as it is written in the file.
func (s Secret) String() string {
	if s.Scheme == "" {
		return ""
	}
	return s.Scheme + ":" + s.Ref
}

// relativeTo returns p below dir unless it is absolute or empty.
func (p Path) relativeTo(dir string) Path {
	if p == "" || filepath.IsAbs(string(p)) {
		return p
	}
	return Path(filepath.Join(dir, string(p)))
}

// clip shortens text from outside for an error message.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
