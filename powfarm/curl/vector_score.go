package curl

func (k *vectorKernel) NewScorer() Scorer {
	k.once.Do(k.plan)
	return &vectorScorer{k: k, start: k.newState(), work: k.newState()}
}

// vectorScorer is a vector kernel's scorer.
type vectorScorer struct {
	k           *vectorKernel
	a, b        bitState
	start, work []uint64
}

func (s *vectorScorer) Zeros(out []int, works []Work) {
	for len(works) > fewWorks {
		n := min(len(works), 64*s.k.words)
		s.score(out[:n], works[:n])
		out, works = out[n:], works[n:]
	}
	scoreFew(out, works)
}

func (s *vectorScorer) score(out []int, works []Work) {
	words := s.k.words
	for w := 0; 64*w < len(works); w++ {
		load(&s.a, works[64*w:min(64*w+64, len(works))])
		s.k.begin(s.start, &s.a, &s.b, w)
	}
	src, last := s.start, len(s.k.tables)-1
	for i := range s.k.tables {
		t := &s.k.tables[i]
		if i == last {
			t = &s.k.whole
		}
		s.k.pass(&s.work[0], &src[0], &t.index[0], t.aside, t.loops)
		src = s.work
	}
	for w := 0; 64*w < len(out); w++ {
		count(out[64*w:min(64*w+64, len(out))], func(t int) uint64 {
			at := slot(t)*2*words + w
			return s.work[at] & s.work[at+words]
		})
	}
}
