package consensus

import (
	"bytes"
	"errors"
	"testing"

	"github.com/hedgerow-iot/hedgerow/ledger/stardust"
)

func certOf(i int, id byte) Signature { return SignMilestone(simKey(i), 1, [32]byte{id}) }

// rival is another milestone of an index than those that tests derive.
func rival(index uint32, which byte) *Essence {
	return &Essence{Index: index, Timestamp: uint32(which), Parents: []stardust.BlockID{{1}}}
}

func signRival(i int, e *Essence) Signature { return SignMilestone(simKey(i), e.Index, e.ID()) }

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
		st, err := c.Rival(rival(1, 9), signRival(i, rival(1, 9)))
		if err != nil || st.Alarm != want {
			t.Errorf("after %d of four: %+v, %v; want alarm %v", i+1, st, err, want)
		}
	}
}

// What is signed is an id without an index: signatures of other milestones can be
// sent again under this one. They count only if the milestone is one of this
// index.
func TestSignaturesOfOtherIndexesAreNoContradiction(t *testing.T) {
	file := simFile("c", []uint32{1, 1, 1, 1})
	c := NewCertificates(0)
	m := &Milestone{Essence: Essence{Index: 1}}
	for i := range 3 { // before it is derived
		for _, which := range []byte{1, 2} {
			if _, err := c.Add(SignMilestone(simKey(i), 1, rival(7, which).ID())); err != nil {
				t.Fatal(err)
			}
		}
	}
	if st := c.Derived(m, file); st.Alarm || len(st.Against) > 0 || len(st.Doubts) != 6 {
		t.Errorf("derived after six of another index: %+v", st)
	}
	for i := range 3 {
		s := SignMilestone(simKey(i), 1, rival(7, 3).ID())
		if st, err := c.Add(s); err != nil || st.Alarm || len(st.Against) > 0 || len(st.Doubts) != 1 || st.Doubts[0] != s {
			t.Errorf("gateway %d: %+v, %v; want a doubt", i, st, err)
		}
		if st, err := c.Rival(rival(7, 3), s); err != nil || st.Alarm || len(st.Against) > 0 {
			t.Errorf("gateway %d, and the milestone is shown: %+v, %v", i, st, err)
		}
	}
	for i := range 3 {
		st, err := c.Add(SignMilestone(simKey(i), 1, m.ID()))
		if err != nil || st.Certified != (i == 2) {
			t.Errorf("gateway %d signs: %+v, %v", i, st, err)
		}
	}
	// A member that signs what it likes shows one of it at most.
	for _, which := range []byte{1, 2, 3} {
		if _, err := c.Rival(rival(1, which), signRival(3, rival(1, which))); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.open[1].rivals); n != 1 {
		t.Errorf("%d milestones are kept of one member", n)
	}
	// Once a milestone of the index is shown its other signers count at once.
	if _, err := c.Rival(rival(1, 9), signRival(0, rival(1, 9))); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Add(signRival(1, rival(1, 9))); err != nil || !st.Alarm || len(st.Against) != 1 || len(st.Doubts) > 0 {
		t.Errorf("another signer of what was shown: %+v, %v", st, err)
	}
	forged := signRival(2, rival(1, 9))
	forged.Signature[0] ^= 1
	if st, err := c.Rival(rival(1, 9), forged); !errors.Is(err, ErrBadSignature) || len(st.Against) > 0 {
		t.Errorf("a forged signature of what was shown: %+v, %v", st, err)
	}
}

// certified returns the certificates of gateway 0 of four, which has derived,
// certified and stored milestones up to last; with others, those have signed them.
func certified(t *testing.T, last uint32) *Certificates {
	t.Helper()
	c, file := NewCertificates(0), simFile("c", []uint32{1, 1, 1, 1})
	for index := uint32(1); index <= last; index++ {
		m := &Milestone{Essence: Essence{Index: index}}
		st := c.Derived(m, file)
		for i := 0; i < 4 && !st.Certified; i++ {
			var err error
			if st, err = c.Add(SignMilestone(simKey(i), index, m.ID())); err != nil {
				t.Fatal(err)
			}
		}
		if !st.Certified {
			t.Fatalf("milestone %d is not certified", index)
		}
		c.Forget(index + 1)
	}
	return c
}

// Of four, two sign one milestone for one gateway and another for the other:
// both certify theirs, and each hears of the other's certificate afterwards.
func TestAContradictingCertificateAlarmsAfterTheOwnOne(t *testing.T) {
	restarted := NewCertificates(100)
	for index := 100 + 1 - uint32(CertWindow); index <= 100; index++ {
		restarted.Sealed(&Milestone{Essence: Essence{Index: index}}, simFile("c", []uint32{1, 1, 1, 1}))
	}
	for name, c := range map[string]*Certificates{"running": certified(t, 100), "restarted": restarted} {
		for _, at := range []uint32{100, 100 + 1 - CertWindow} {
			for i, alarm := range []bool{1: false, 2: true, 3: true} {
				if i == 0 {
					continue
				}
				s := signRival(i, rival(at, 9))
				if st, err := c.Rival(rival(at, 9), s); err != nil || st.Alarm != alarm || st.Certified || len(st.Against) != 1 || st.Against[0] != s.PublicKey {
					t.Errorf("%s, gateway %d of milestone %d: %+v, %v; want alarm %v", name, i, at, st, err, alarm)
				}
				s.Milestone[0], s.Signature[0] = 8, 8 // a further word is not even looked at
				if st, err := c.Add(s); err != nil || len(st.Against)+len(st.Doubts) > 0 {
					t.Errorf("%s, gateway %d again: %+v, %v", name, i, st, err)
				}
			}
		}
	}
}

// Of certified milestones nothing is kept, or verified, but what contradicts them.
func TestStoredCertificatesCostNothing(t *testing.T) {
	c := certified(t, 1000)
	if len(c.open) != CertWindow {
		t.Errorf("%d milestones are kept, want %d", len(c.open), CertWindow)
	}
	late := SignMilestone(simKey(3), 1000, c.open[1000].id)
	late.Signature[0] ^= 1 // nobody looks
	if st, err := c.Add(late); err != nil || st.Certified {
		t.Errorf("one more for the milestone: %+v, %v", st, err)
	}
	forged := SignMilestone(simKey(2), 1000, [32]byte{9})
	forged.Signature[0] ^= 1
	for name, s := range map[string]Signature{"a forged one": forged, "that of a stranger": SignMilestone(simKey(7), 1000, [32]byte{9})} {
		if st, err := c.Add(s); !errors.Is(err, ErrBadSignature) || len(st.Against) > 0 {
			t.Errorf("%s: got %+v, %v, want ErrBadSignature", name, st, err)
		}
	}
	for index := range uint32(1000 + 1) { // all that four members can say
		for i := range 4 {
			if _, err := c.Add(SignMilestone(simKey(i), index, [32]byte{byte(i)})); err != nil {
				t.Fatal(err)
			}
		}
	}
	for index, k := range c.open {
		if len(k.said) > 0 || index <= 1000-CertWindow || index > 1000 {
			t.Errorf("of milestone %d %d signatures are kept", index, len(k.said))
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
	far := SignMilestone(simKey(0), 2+CertWindow, [32]byte{})
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
