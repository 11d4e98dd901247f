// Sixteen lanes: AVX-512 F, BW, DQ, VL. Included inside an anonymous namespace; see simd_scalar.h.
struct Simd {
  static constexpr int kWidth = 16;
  static constexpr int kGemmRows = 8;
  static constexpr int kGemmBf16Rows = 8;
  static constexpr int kSumSteps = 0;  // products per chain of the fp32 GEMM; 0: one chain
  static constexpr int kAttentionRows = 4;
  using F = __m512;

  static F Set(float x) { return _mm512_set1_ps(x); }
  static F Load(const float* p) { return _mm512_loadu_ps(p); }
  static F LoadN(const float* p, int n) { return _mm512_maskz_loadu_ps(Mask(n), p); }
  static void Store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static void StoreN(float* p, F x, int n) { _mm512_mask_storeu_ps(p, Mask(n), x); }
  static void Stream(float* p, F x) { _mm512_stream_ps(p, x); }
  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  static F ZeroIfLess(F a, F b, F x) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ), x); }
  static float First(F a) { return _mm512_cvtss_f32(a); }
  static float Sum(F a) { return _mm512_reduce_add_ps(a); }
  static float MaxLane(F a) { return _mm512_reduce_max_ps(a); }
  static F ScaleByPowerOf2(F x, F n) { return _mm512_scalef_ps(x, n); }
  static void LoadPairs(const uint16_t* p, F* even, F* odd) { Split(_mm512_loadu_si512(p), even, odd); }
  static void StoreBf16(uint16_t* p, F x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i tie = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(tie, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
  }

 private:
  static void Split(__m512i pairs, F* even, F* odd) {
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static __mmask16 Mask(int n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1); }
};
