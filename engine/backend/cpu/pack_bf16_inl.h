// Rounding to bfloat16 with the AVX512_BF16 conversion.

// 32 floats to 32 bfloat16 in one conversion; the instruction rounds to nearest even.
void PackRowBf16(const float* in, int64_t cols, int64_t first_step, int64_t last_step, uint16_t* a_row) {
  for (int64_t step = first_step; step < last_step; ++step) {
    const float* from = in + step * kStepK;
    const int64_t left = cols - step * kStepK;
    const bool whole = left >= kStepK;
    const __m512 low = whole ? Simd::Load(from) : Simd::LoadN(from, static_cast<int>(left));
    const __m512 high = whole ? Simd::Load(from + 16) : Simd::LoadN(from + 16, static_cast<int>(left) - 16);
    _mm512_store_si512(a_row + step * kTileElements, (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
}
