// Floor: a chunk of 2,176 bytes (mxfp4) or 4,224 (fp8) from memory, 120 or 235 ns at 18 GB/s a core; expanding it takes
// about 110 or 300 ns, in parallel. Included inside an anonymous namespace, after quantized_inl.h.

constexpr int kExpandAhead = 2048;  // bytes of the panel in use that are fetched ahead

// The 16 numbers of mxfp4 in bfloat16 as with the scale kMaxPlainScale, which keeps them apart from 0 when the exponent
// of a smaller one is subtracted with saturation: that leaves zeros zero. Twice, so that the fifth bit is ignored.
alignas(64) constexpr uint16_t kMxfp4Bits[32] = {
    0x0000, 0x7d80, 0x7e00, 0x7e40, 0x7e80, 0x7ec0, 0x7f00, 0x7f40, 0x0000, 0xfd80, 0xfe00, 0xfe40, 0xfe80, 0xfec0, 0xff00, 0xff40,
    0x0000, 0x7d80, 0x7e00, 0x7e40, 0x7e80, 0x7ec0, 0x7f00, 0x7f40, 0x0000, 0xfd80, 0xfe00, 0xfe40, 0xfe80, 0xfec0, 0xff00, 0xff40};

void ExpandMxfp4Avx512(const uint8_t* chunk, int64_t steps, uint16_t* panel) {
  constexpr int64_t kTileBytesOfCodes = TileCodeBytes(QuantizedFormat::kMxfp4);
  const __m512i table = _mm512_load_si512(kMxfp4Bits);
  for (int64_t step = 0; step < steps; ++step) {
    for (int tile = 0; tile < 2; ++tile) {
      const uint8_t* const scales = chunk + (step * 2 + tile) * kTileCols;
      const uint8_t* const codes = chunk + kChunkScaleBytes + (step * 2 + tile) * kTileBytesOfCodes;
      uint16_t* to = panel + (tile * steps + step) * kTileElements;
      for (int i = 0; i < kTileBytesOfCodes; i += 64) _mm_prefetch(codes + kExpandAhead + i, _MM_HINT_T0);
      const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(scales));
      const __m128i above_min = _mm_sub_epi8(bytes, _mm_set1_epi8(kMinPlainScale));
      if (_mm_cmpgt_epu8_mask(above_min, _mm_set1_epi8(static_cast<char>(kMaxPlainScale - kMinPlainScale))) != 0) {
        ExpandMxfp4TileExactly(scales, codes, to);
        continue;
      }
      __m512i less = _mm512_sub_epi32(_mm512_set1_epi32(kMaxPlainScale), _mm512_cvtepu8_epi32(bytes));
      less = _mm512_or_si512(_mm512_slli_epi32(less, 7), _mm512_slli_epi32(less, 23));
      for (int i = 0; i < kTileBytesOfCodes; i += 64, to += 4 * 2 * kTileCols) {
        const __m512i words = _mm512_loadu_si512(codes + i);
        const auto store = [&](int row, __m512i code) {
          _mm512_store_si512(to + row * 2 * kTileCols,
                             _mm512_subs_epu16(_mm512_permutexvar_epi16(code, table), less));
        };
        store(0, words);
        store(1, _mm512_srli_epi16(words, 4));
        store(2, _mm512_srli_epi16(words, 8));
        store(3, _mm512_srli_epi16(words, 12));
      }
    }
  }
}

// Two vectors of fp32, lanes 0-15 and 16-31 of a tile's row, to a row of bfloat16.
#ifdef __AVX512BF16__
inline __m512i RoundLanes(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }
#else
inline __m512i RoundLanes(__m512 low, __m512 high) {
  alignas(64) uint16_t lanes[32];
  Simd::StoreBf16(lanes, low);
  Simd::StoreBf16(lanes + 16, high);
  return _mm512_load_si512(lanes);
}
#endif

// Scales whose products with any number are neither denormal (which the rounding instruction takes for 0) nor infinite.
inline __mmask16 PlainFp8Scales(__m512 scales) {
  const __m512 magnitude = _mm512_abs_ps(scales);
  return _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(0x1p-100f), _CMP_GE_OQ) &
         _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(0x1p100f), _CMP_LE_OQ);
}

// All steps of one tile column. A code as binary16, seven bits further left, is the number times 2^-8, denormal ones
// included; so scales are taken times 2^8. NaN has a code of its own, and is left to the plain loop.
void ExpandFp8TileAvx512(const uint8_t* chunk, int tile, int64_t steps, uint16_t* to) {
  constexpr int64_t kTileBytesOfCodes = TileCodeBytes(QuantizedFormat::kFp8);
  const __m512i binary16 = _mm512_set1_epi16(static_cast<short>(0xbf80));
  const __m512i nan_code = _mm512_set1_epi8(0x7f);
  const float* const scales = reinterpret_cast<const float*>(chunk) + tile * kTileCols;
  const __m512 scale = _mm512_load_ps(scales);
  const bool plain = PlainFp8Scales(scale) == 0xffff;
  const __m512 times256 = _mm512_mul_ps(scale, _mm512_set1_ps(256.0f));
  const __m512 low_scales =
      _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), times256);
  const __m512 high_scales =
      _mm512_permutexvar_ps(_mm512_setr_epi32(8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15), times256);
  const auto expand = [&](__m512i halves) {
    const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
    const __m512 high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
    return RoundLanes(_mm512_mul_ps(low, low_scales), _mm512_mul_ps(high, high_scales));
  };
  const uint8_t* codes = chunk + kChunkScaleBytes + tile * kTileBytesOfCodes;
  for (int64_t step = 0; step < steps; ++step, codes += 2 * kTileBytesOfCodes, to += kTileElements) {
    __mmask64 any_nan = 0;
    for (int pair = 0; pair < 8; ++pair) {
      const __m512i words = _mm512_loadu_si512(codes + 64 * pair);
      _mm_prefetch(codes + 64 * pair + kExpandAhead, _MM_HINT_T0);
      any_nan |= _mm512_cmpeq_epi8_mask(_mm512_and_si512(words, nan_code), nan_code);
      const __m512i first = _mm512_srai_epi16(_mm512_slli_epi16(words, 8), 1), second = _mm512_srai_epi16(words, 1);
      _mm512_store_si512(to + 2 * pair * 32, expand(_mm512_and_si512(first, binary16)));
      _mm512_store_si512(to + (2 * pair + 1) * 32, expand(_mm512_and_si512(second, binary16)));
    }
    if (any_nan != 0 || !plain) ExpandFp8Tile(scales, codes, to);
  }
}

inline void ExpandFp8Avx512(const uint8_t* chunk, int64_t steps, uint16_t* panel) {
  for (int tile = 0; tile < 2; ++tile) ExpandFp8TileAvx512(chunk, tile, steps, panel + tile * steps * kTileElements);
}
