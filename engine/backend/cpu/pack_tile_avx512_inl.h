// One tile of a bfloat16 panel from 16 rows of a weight matrix. Included inside an anonymous namespace.
//
// Floor: reading and writing each byte once. Per step of 32 k it is a transposition of 16 x 16 pairs of bfloat16, in
// registers. Written into the caches, which have just cleared the page that the lines are in: writing past them takes
// twice as long.
int64_t PackTileAvx512(const uint16_t* rows, int64_t in, int64_t steps, uint16_t* to) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  int64_t nonfinite = 0;
  for (int64_t step = 0; step < steps; ++step, to += kTileElements) {
    __m512i r[16], t[16];
    for (int i = 0; i < 16; ++i) {
      r[i] = _mm512_loadu_si512(rows + i * in + step * kStepK);
      nonfinite += __builtin_popcount(_mm512_cmpeq_epi16_mask(_mm512_and_si512(r[i], exponent), exponent));
    }
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
      t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    // Then lane L of r[i + j], i = 0, 4, 8, 12, holds column 4 L + j of rows i ... i + 3.
    for (int i = 0; i < 16; i += 4) {
      r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
      r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
      r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
      r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    constexpr int kEven = 0x88, kOdd = 0xdd;  // lanes 0 and 2, or 1 and 3, of both operands
    __m512i* const out = reinterpret_cast<__m512i*>(to);
    for (int j = 0; j < 4; ++j) {
      const __m512i even_low = _mm512_shuffle_i32x4(r[j], r[4 + j], kEven);
      const __m512i even_high = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], kEven);
      const __m512i odd_low = _mm512_shuffle_i32x4(r[j], r[4 + j], kOdd);
      const __m512i odd_high = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], kOdd);
      _mm512_store_si512(out + j, _mm512_shuffle_i32x4(even_low, even_high, kEven));
      _mm512_store_si512(out + 4 + j, _mm512_shuffle_i32x4(odd_low, odd_high, kEven));
      _mm512_store_si512(out + 8 + j, _mm512_shuffle_i32x4(even_low, even_high, kOdd));
      _mm512_store_si512(out + 12 + j, _mm512_shuffle_i32x4(odd_low, odd_high, kOdd));
    }
  }
  return nonfinite;
}
