// exp and what is made of it, on Simd lanes. Included inside an anonymous namespace after a Simd.

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2High = 0.693359375f;  // few bits, so that n * kLn2High is exact
constexpr float kLn2Low = -2.12194440e-4f;
constexpr float kExpUnderflow = -87.33654f;  // ln of the smallest normal float
constexpr float kRoundMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer

// exp to about 1 ulp; exp(0) = 1 exactly, results below the smallest normal float are 0 (denormals would cost a
// microcode assist each), NaN stays NaN. x = n ln 2 + r, |r| <= ln 2 / 2; the polynomial in r is Cephes' expf.
inline Simd::F Exp(Simd::F from) {
  // NaN must be the second operand of Min and Max to get through.
  const Simd::F x = Simd::Min(Simd::Set(100.0f), Simd::Max(Simd::Set(kExpUnderflow), from));
  const Simd::F n = Simd::Sub(Simd::Fma(x, Simd::Set(kLog2E), Simd::Set(kRoundMagic)), Simd::Set(kRoundMagic));
  Simd::F r = Simd::Fma(n, Simd::Set(-kLn2High), x);
  r = Simd::Fma(n, Simd::Set(-kLn2Low), r);
  Simd::F p = Simd::Set(1.9875691500e-4f);
  p = Simd::Fma(p, r, Simd::Set(1.3981999507e-3f));
  p = Simd::Fma(p, r, Simd::Set(8.3334519073e-3f));
  p = Simd::Fma(p, r, Simd::Set(4.1665795894e-2f));
  p = Simd::Fma(p, r, Simd::Set(1.6666665459e-1f));
  p = Simd::Fma(p, r, Simd::Set(5.0000001201e-1f));
  p = Simd::Add(Simd::Fma(p, Simd::Mul(r, r), r), Simd::Set(1.0f));
  return Simd::ZeroIfLess(from, Simd::Set(kExpUnderflow), Simd::ScaleByPowerOf2(p, n));
}

// silu(gate) * up, silu(x) = x / (1 + exp(-x)).
inline Simd::F SiluMul(Simd::F gate, Simd::F up) {
  const Simd::F denominator = Simd::Add(Simd::Set(1.0f), Exp(Simd::Sub(Simd::Set(0.0f), gate)));
  return Simd::Mul(Simd::Div(gate, denominator), up);
}

// (clamp(up, -limit, limit) + 1) * g * sigmoid(1.702 g) with g = min(gate, limit). The bound is the first operand of
// Min and Max, so that NaN gets through.
inline Simd::F ClampedSwiglu(Simd::F gate, Simd::F up, float limit) {
  const Simd::F g = Simd::Min(Simd::Set(limit), gate);
  const Simd::F u = Simd::Max(Simd::Set(-limit), Simd::Min(Simd::Set(limit), up));
  const Simd::F denominator = Simd::Add(Simd::Set(1.0f), Exp(Simd::Mul(Simd::Set(-1.702f), g)));
  return Simd::Mul(Simd::Add(u, Simd::Set(1.0f)), Simd::Div(g, denominator));
}

inline Simd::F Relu(Simd::F x) { return Simd::Max(Simd::Set(0.0f), x); }  // NaN, the second operand, gets through

// 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
inline Simd::F GeluTanh(Simd::F x) {
  constexpr float kTwiceRoot = 1.5957691216057308f;  // 2 sqrt(2 / pi)
  const Simd::F cubic = Simd::Fma(Simd::Mul(Simd::Set(0.044715f), Simd::Mul(x, x)), x, x);
  return Simd::Div(x, Simd::Add(Simd::Set(1.0f), Exp(Simd::Mul(Simd::Set(-kTwiceRoot), cubic))));
}

// 2 / (1 + exp(-2x)) - 1: right to 1e-7, but near 0 not to the last bits of what is left.
inline Simd::F Tanh(Simd::F x) {
  const Simd::F denominator = Simd::Add(Simd::Set(1.0f), Exp(Simd::Mul(Simd::Set(-2.0f), x)));
  return Simd::Sub(Simd::Div(Simd::Set(2.0f), denominator), Simd::Set(1.0f));
}
