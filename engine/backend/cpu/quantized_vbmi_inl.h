// fp8 by look-up, where 16 columns share a scale, as they do in blocks of 128 rows. Floor as in quantized_avx512_inl.h;
// expanding a chunk takes half as long as there, because nothing is multiplied: the 128 numbers without sign times the
// scale are 256 bytes in four registers, which vpermi2b picks from. All machines with AMX have it (AVX512_VBMI).
//
// Included inside an anonymous namespace, after quantized_avx512_inl.h.

// The bytes of the numbers, codes 0-63 and 64-127.
struct Fp8Table {
  __m512i low[2];
  __m512i high[2];
};

// Codes 0-15 are multiplied and rounded; each further eight are the last eight of them times a power of two.
// REQUIRES: scale between 2^-100 and 2^100 in magnitude, so that no number is denormal.
inline Fp8Table MakeFp8Table(float scale) {
  const __m512 first = _mm512_mul_ps(_mm512_loadu_ps(kF8E4m3Floats.values), _mm512_set1_ps(scale));
  __m256i rounded = (__m256i)_mm512_cvtneps_pbh(first);
#if defined(__clang__)
  __asm__("" : "+v"(rounded));  // clang 16 crashes when it shuffles bfloat16
#endif
  const __m512i eights = _mm512_broadcast_i32x4(_mm256_extracti128_si256(rounded, 1));
  const auto rows = [&](int first_row) {  // four rows of eight numbers
    const int64_t step = 0x0080008000800080;
    const __m512i times = _mm512_setr_epi64((first_row - 1) * step, (first_row - 1) * step, first_row * step,
                                            first_row * step, (first_row + 1) * step, (first_row + 1) * step,
                                            (first_row + 2) * step, (first_row + 2) * step);
    return _mm512_add_epi16(eights, times);
  };
  const __m512i words[4] = {_mm512_inserti32x4(rows(0), _mm256_castsi256_si128(rounded), 0), rows(4), rows(8),
                            _mm512_mask_set1_epi16(rows(12), __mmask32{1} << 31, 0x7fc0)};
  alignas(64) static constexpr auto kEvenBytes = [] {
    struct Bytes {
      uint8_t values[64];
    } bytes{};
    for (int i = 0; i < 64; ++i) bytes.values[i] = static_cast<uint8_t>(2 * i);
    return bytes;
  }();
  const __m512i even = _mm512_load_si512(kEvenBytes.values), odd = _mm512_or_si512(even, _mm512_set1_epi8(1));
  return {{_mm512_permutex2var_epi8(words[0], even, words[1]), _mm512_permutex2var_epi8(words[2], even, words[3])},
          {_mm512_permutex2var_epi8(words[0], odd, words[1]), _mm512_permutex2var_epi8(words[2], odd, words[3])}};
}

// All steps of one tile column.
inline void LookUpFp8(const Fp8Table& table, const uint8_t* codes, int64_t steps, uint16_t* to) {
  constexpr int64_t kTileBytesOfCodes = TileCodeBytes(QuantizedFormat::kFp8);
  const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80)), low_byte = _mm512_set1_epi16(0xff);
  constexpr int kXorOfAnd = 0x78;  // a ^ (b & c)
  constexpr int kSelect = 0xca;    // a ? b : c
  for (int64_t step = 0; step < steps; ++step, codes += 2 * kTileBytesOfCodes) {
    for (int64_t i = 0; i < kTileBytesOfCodes; i += 64, to += 64) {
      const __m512i words = _mm512_loadu_si512(codes + i);
      _mm_prefetch(codes + i + kExpandAhead, _MM_HINT_T0);
      const __m512i low = _mm512_permutex2var_epi8(table.low[0], words, table.low[1]);
      const __m512i magnitude = _mm512_permutex2var_epi8(table.high[0], words, table.high[1]);
      const __m512i high = _mm512_ternarylogic_epi32(magnitude, words, sign, kXorOfAnd);
      _mm512_store_si512(to, _mm512_ternarylogic_epi32(low_byte, low, _mm512_slli_epi16(high, 8), kSelect));
      _mm512_store_si512(to + 32, _mm512_ternarylogic_epi32(low_byte, _mm512_srli_epi16(low, 8), high, kSelect));
    }
  }
}

void ExpandFp8Vbmi(const uint8_t* chunk, int64_t steps, uint16_t* panel) {
  float table_scale = 0.0f;
  Fp8Table table;
  for (int tile = 0; tile < 2; ++tile) {
    const float* const scales = reinterpret_cast<const float*>(chunk) + tile * kTileCols;
    uint16_t* const to = panel + tile * steps * kTileElements;
    const __m512 scale = _mm512_load_ps(scales);
    const bool shared = _mm512_cmp_ps_mask(scale, _mm512_set1_ps(scales[0]), _CMP_EQ_OQ) == 0xffff;
    if (!shared || PlainFp8Scales(scale) != 0xffff) {
      ExpandFp8TileAvx512(chunk, tile, steps, to);
      continue;
    }
    if (table_scale != scales[0]) table = MakeFp8Table(scales[0]);
    table_scale = scales[0];
    LookUpFp8(table, chunk + kChunkScaleBytes + tile * TileCodeBytes(QuantizedFormat::kFp8), steps, to);
  }
}
