// One lane of plain C++: the baseline that every machine has, and the simplest reading of kernels_inl.h.
//
// Included inside an anonymous namespace. Min and Max return the second operand when one is NaN, as the x86
// instructions do: exp relies on it to pass NaN on.
struct Simd {
  static constexpr int kWidth = 1;
  static constexpr int kGemmRows = 4;      // rows of a whole panel at a time
  static constexpr int kGemmBf16Rows = 4;  // rows of bfloat16, above kGemmRows of half a panel
  static constexpr int kSumSteps = 8;  // products per chain of the fp32 GEMM; 0: one chain
  static constexpr int kAttentionRows = 1;
  using F = float;

  static F Set(float x) { return x; }
  static F Load(const float* p) { return *p; }
  static F LoadN(const float* p, int n) { return n > 0 ? *p : 0.0f; }
  static void Store(float* p, F x) { *p = x; }
  static void StoreN(float* p, F x, int n) {
    if (n > 0) *p = x;
  }
  static void Stream(float* p, F x) { *p = x; }  // past the caches, to an aligned place
  static F Add(F a, F b) { return a + b; }
  static F Sub(F a, F b) { return a - b; }
  static F Mul(F a, F b) { return a * b; }
  static F Div(F a, F b) { return a / b; }
  static F Fma(F a, F b, F c) { return a * b + c; }
  static F Max(F a, F b) { return a > b ? a : b; }
  static F Min(F a, F b) { return a < b ? a : b; }
  static F ZeroIfLess(F a, F b, F x) { return a < b ? 0.0f : x; }
  static float First(F a) { return a; }
  static float Sum(F a) { return a; }
  static float MaxLane(F a) { return a; }
  static F ScaleByPowerOf2(F x, F n) {  // in two steps, so that a denormal result is right
    if (n != n) return n;  // NaN has no whole number
    const int whole = static_cast<int>(n);
    const int half = whole / 2;
    return x * PowerOf2(half) * PowerOf2(whole - half);
  }
  // The even and odd elements of kWidth pairs of bfloat16.
  static void LoadPairs(const uint16_t* p, F* even, F* odd) {
    *even = __builtin_bit_cast(float, static_cast<uint32_t>(p[0]) << 16);
    *odd = __builtin_bit_cast(float, static_cast<uint32_t>(p[1]) << 16);
  }
  static void StoreBf16(uint16_t* p, F x) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    *p = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }

 private:
  static float PowerOf2(int n) { return __builtin_bit_cast(float, static_cast<uint32_t>(n + 127) << 23); }
};
