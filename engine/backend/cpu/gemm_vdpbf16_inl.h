// bfloat16 GEMM on vdpbf16ps: 2 x 16 multiply-adds an instruction. Bytes = panel, flops = 2 * rows * panel elements;
// at 64 flops a cycle it is bound by memory up to about 8 rows.

inline __m512bh LoadBf16Pairs(const uint16_t* p) { return (__m512bh)_mm512_loadu_si512(p); }

inline __m512bh BroadcastPair(const uint16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, 4);
  __m512i pairs = _mm512_set1_epi32(pair);
#if defined(__clang__)
  __asm__("" : "+v"(pairs));  // clang 16 crashes when it folds the broadcast into a bfloat16 operand
#endif
  return (__m512bh)pairs;
}

// Into L2, where the lines wait while up to 8 rows are multiplied; from there kPrefetchBytes ahead into L1. On two Xeon
// cores and 4 rows an expert 7 % faster than the short distance alone; 2 and 8 KiB gain half of that.
constexpr int kFarPrefetchBytes = 4096;

// As GemmRowsBf16.
template <int kRows>
inline void GemmRowsVdpBf16(const uint16_t* a, int64_t a_steps, int first_row, const uint16_t* panel, int64_t steps,
                            bool resume, float* c) {
  const int64_t other_cols = steps * kTileElements;
  const uint16_t* rows[kRows];
  for (int r = 0; r < kRows; ++r) rows[r] = PackedRow(a, first_row + r, a_steps);
  __m512 low[kRows], high[kRows];
  for (int r = 0; r < kRows; ++r) {
    const float* const sums = c + (first_row + r) * kPanelCols;
    low[r] = resume ? _mm512_loadu_ps(sums) : _mm512_setzero_ps();
    high[r] = resume ? _mm512_loadu_ps(sums + kTileCols) : _mm512_setzero_ps();
  }
  for (int64_t step = 0; step < steps; ++step) {
    for (int pair = 0; pair < kStepK / 2; ++pair) {
      const uint16_t* b = panel + step * kTileElements + pair * 2 * kTileCols;
      _mm_prefetch(b + kFarPrefetchBytes / 2, _MM_HINT_T1);
      _mm_prefetch(b + other_cols + kFarPrefetchBytes / 2, _MM_HINT_T1);
      __builtin_prefetch(b + kPrefetchBytes / 2);
      __builtin_prefetch(b + other_cols + kPrefetchBytes / 2);
      const __m512bh b_low = LoadBf16Pairs(b);
      const __m512bh b_high = LoadBf16Pairs(b + other_cols);
      for (int r = 0; r < kRows; ++r) {
        const __m512bh x = BroadcastPair(rows[r] + step * kTileElements + pair * 2);
        low[r] = _mm512_dpbf16_ps(low[r], x, b_low);
        high[r] = _mm512_dpbf16_ps(high[r], x, b_high);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    _mm512_storeu_ps(c + (first_row + r) * kPanelCols, low[r]);
    _mm512_storeu_ps(c + (first_row + r) * kPanelCols + kTileCols, high[r]);
  }
}

// Eight rows give 16 independent chains, enough to hide the instruction's latency.
void GemmVdpBf16Steps(const uint16_t* a, int64_t a_steps, int num_rows, const uint16_t* panel, int64_t steps,
                      bool resume, float* c) {
  InRowBlocks<8>(num_rows, [&]<int kRows>(int r) {
    GemmRowsVdpBf16<kRows>(a, a_steps, r, panel, steps, resume, c);
  });
}

void GemmVdpBf16(const uint16_t* a, int num_rows, const uint16_t* panel, int64_t k_steps, float* c) {
  GemmVdpBf16Steps(a, k_steps, num_rows, panel, k_steps, false, c);
}
