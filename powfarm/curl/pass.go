package curl

// passOne computes one round. It is the plain form of passTwo.
func passOne(dst, src *bitState) {
	a := 0
	for i := range dst {
		b := a + stride
		if b >= stateTrits {
			b -= stateTrits
		}
		dst[i] = sbox(src[a], src[b])
		a = b
	}
}

// passTwo computes two rounds.
//
// With u[n] = src[547*n] (indices modulo 729; 547 is 3/4), the first round
// gives v[n] = g(u[n], u[n-2]) and the second dst[n] = g(v[n], v[n+1]): a
// window of three u and two v slides along and nothing is computed twice.
// Because 4*547 is 1, u is four interleaved runs through src.
func passTwo(dst, src *bitState) {
	const run = stateTrits / 4 // 182
	r1, r2, r3, r4 := src[547:][:run], src[365:][:run], src[183:][:run], src[1:][:run]
	p, q := src[run], src[0] // u[n-2], u[n-1] for n = 1
	first := sbox(q, src[364])
	v := first // v[n-1]
	for m := range run {
		d := (*[4]bitTrit)(dst[4*m:])

		u := r1[m]
		w := sbox(u, p)
		d[0] = sbox(v, w)

		p = r2[m]
		v = sbox(p, q)
		d[1] = sbox(w, v)

		q = r3[m]
		w = sbox(q, u)
		d[2] = sbox(v, w)

		u = r4[m]
		v = sbox(u, p)
		d[3] = sbox(w, v)

		p, q = q, u
	}
	dst[stateTrits-1] = sbox(v, first)
}
