package archive

// Runs are pairs of first and last number that ascend and do not touch.

// split cuts runs at the ends of buckets and calls f with those of each.
func split(runs [][2]uint64, f func(bucket uint64, runs [][2]uint64) error) error {
	var part [][2]uint64
	for _, r := range runs {
		for from := r[0]; ; {
			bucket := from >> bucketBits
			if len(part) > 0 && part[0][0]>>bucketBits != bucket {
				if err := f(part[0][0]>>bucketBits, part); err != nil {
					return err
				}
				part = nil
			}
			to := min(r[1], (bucket+1)<<bucketBits-1) // in the last bucket this wraps to its end
			part = append(part, [2]uint64{from, to})
			if to == r[1] {
				break
			}
			from = to + 1
		}
	}
	if len(part) == 0 {
		return nil
	}
	return f(part[0][0]>>bucketBits, part)
}

// both returns the numbers that are in a and in b.
func both(a, b [][2]uint64) (out [][2]uint64) {
	for len(a) > 0 && len(b) > 0 {
		if first, last := max(a[0][0], b[0][0]), min(a[0][1], b[0][1]); first <= last {
			out = append(out, [2]uint64{first, last})
		}
		if a[0][1] < b[0][1] {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return out
}

// without returns the numbers of a that are not in b.
func without(a, b [][2]uint64) (out [][2]uint64) {
	for _, r := range a {
		for len(b) > 0 && b[0][1] < r[0] {
			b = b[1:]
		}
		first := r[0]
		for i := 0; i < len(b) && b[i][0] <= r[1]; i++ {
			if first < b[i][0] {
				out = append(out, [2]uint64{first, b[i][0] - 1})
			}
			first = b[i][1] + 1 // not beyond a uint64: no batch holds its last number
		}
		if first <= r[1] {
			out = append(out, [2]uint64{first, r[1]})
		}
	}
	return out
}

// indexOf returns how many numbers come before seq, and whether it is there.
func indexOf(runs [][2]uint64, seq uint64) (i int, ok bool) {
	for _, r := range runs {
		if seq < r[0] {
			break
		}
		if seq <= r[1] {
			return i + int(seq-r[0]), true
		}
		i += int(r[1] - r[0] + 1)
	}
	return 0, false
}

func length(runs [][2]uint64) (n uint64) {
	for _, r := range runs {
		n += r[1] - r[0] + 1
	}
	return n
}
