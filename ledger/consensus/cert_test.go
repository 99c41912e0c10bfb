package consensus

import (
	"bytes"
	"errors"
	"testing"
)

func certOf(i int, id byte) Signature { return SignMilestone(simKey(i), 1, [32]byte{id}) }

func TestCertificateNeedsAQuorum(t *testing.T) {
	file := simFile("c", []uint32{1, 1, 1, 1})
	m := &Milestone{Essence: Essence{Index: 1}}
	own := m.ID()
	sign := func(i int) Signature { return SignMilestone(simKey(i), 1, own) }
	c := NewCertificates(0)
	if _, err := c.Add(sign(3)); err != nil { // earlier than our own derivation
		t.Fatal(err)
	}
	if st := c.Derived(m, file); st.Certified {
		t.Error("certified by one of four")
	}
	for i, want := range []bool{false, true, false} { // 0: 2 of 4; 1: 3 of 4; 2: once only
		st, err := c.Add(sign(i))
		if err != nil || st.Certified != want {
			t.Errorf("after gateway %d: %+v, %v; want certified %v", i, st, err, want)
		}
	}
	got := c.Complete(1)
	if err := VerifyCertificate(file, own, got); err != nil || len(got) != 4 {
		t.Errorf("%d signatures: %v", len(got), err)
	}
	if err := VerifyCertificate(file, own, got[:2]); !errors.Is(err, ErrBadSignature) {
		t.Errorf("two of four: got %v, want ErrBadSignature", err)
	}
	if err := VerifyCertificate(file, own, []Signature{got[0], got[0], got[1]}); !errors.Is(err, ErrBadSignature) {
		t.Errorf("one key twice: got %v, want ErrBadSignature", err)
	}
	if err := VerifyCertificate(file, [32]byte{1}, got); !errors.Is(err, ErrBadSignature) {
		t.Errorf("another milestone: got %v, want ErrBadSignature", err)
	}
}

// More than B of the weight for another milestone is an alarm; B is not.
func TestContradictingCertificatesAlarm(t *testing.T) {
	c := NewCertificates(0)
	c.Derived(&Milestone{Essence: Essence{Index: 1}}, simFile("c", []uint32{1, 1, 1, 1}))
	for i, want := range []bool{false, true} {
		st, err := c.Add(certOf(i, 9))
		if err != nil || st.Alarm != want {
			t.Errorf("after %d of four: %+v, %v; want alarm %v", i+1, st, err, want)
		}
	}
}

func TestCertificatesRefuse(t *testing.T) {
	c := NewCertificates(0)
	c.Derived(&Milestone{Essence: Essence{Index: 1}}, simFile("c", []uint32{1, 1, 1, 1}))
	forged := certOf(0, 1)
	forged.Milestone[5]++
	for name, s := range map[string]Signature{"a forged one": forged, "that of a stranger": certOf(7, 1)} {
		if _, err := c.Add(s); !errors.Is(err, ErrBadSignature) {
			t.Errorf("%s: got %v, want ErrBadSignature", name, err)
		}
	}
	far := SignMilestone(simKey(0), 2+certWindow, [32]byte{})
	if _, err := c.Add(far); err != nil || c.open[far.Index] != nil {
		t.Errorf("one far ahead: %v, kept %v; want it ignored", err, c.open[far.Index] != nil)
	}
}

// What ParseSignature accepts encodes back to the same bytes.
func FuzzParseSignature(f *testing.F) {
	s := certOf(0, 1)
	f.Add(s.AppendBinary(nil))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := ParseSignature(in)
		if err != nil {
			return
		}
		if out := s.AppendBinary(nil); !bytes.Equal(in, out) {
			t.Errorf("encoded %x, parsed from %x", out, in)
		}
	})
}
