// The kernels of kernels.h written once over a Simd. Each instruction set's file includes a simd_*.h, then this, inside
// an anonymous namespace: nothing here may have external linkage, or the linker could hand AVX-512 code to a machine
// without it. For the same reason no standard library algorithm is used.

#include "engine/backend/cpu/math_inl.h"  // NOLINT: inside the namespace on purpose

constexpr int kPrefetchBytes = 768;  // ahead of the weights in use
constexpr int kW = Simd::kWidth;
constexpr int kPanelVectors = kPanelCols / kW;
constexpr int kTileVectors = kTileCols / kW;

// ---- GEMM: bytes = panel, flops = 2 * rows * panel elements; memory-bound up to about 8 rows ----

// Adds the sums to c and starts new ones.
template <int kRows>
inline void AddSums(Simd::F (*acc)[kPanelVectors], float* c) {
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kPanelVectors; ++v) {
      float* const to = c + r * kPanelCols + v * kW;
      Simd::Store(to, Simd::Add(Simd::Load(to), acc[r][v]));
      acc[r][v] = Simd::Set(0.0f);
    }
  }
}

// body.operator()<R>(first_row) for blocks of kRows rows, then one of what is left: a panel is read once per block.
template <int kRows, typename Body>
inline void InRowBlocks(int num_rows, const Body& body, int first = 0) {
  for (; num_rows - first >= kRows; first += kRows) body.template operator()<kRows>(first);
  if constexpr (kRows > 1) {
    if (num_rows > first) InRowBlocks<kRows - 1>(num_rows, body, first);
  }
}

// One order of additions per output element, however many rows share the loads of the panel: chains of Simd::kSumSteps
// products, k ascending, whose sums are added up in turn; or a single chain. Short chains halve the rounding error,
// and cost a pass over c (in L1) each.
template <int kRows>
inline void GemmRowsF32(const float* const* rows, const float* panel, int64_t in, float* c) {
  Simd::F acc[kRows][kPanelVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kPanelVectors; ++v) {
      acc[r][v] = Simd::Set(0.0f);
      Simd::Store(c + r * kPanelCols + v * kW, acc[r][v]);
    }
  }
  for (int64_t k = 0; k < in; ++k) {
    if constexpr (Simd::kSumSteps > 0) {
      if (k > 0 && k % Simd::kSumSteps == 0) AddSums<kRows>(acc, c);
    }
    const float* b = panel + k * kPanelCols;
    __builtin_prefetch(b + kPrefetchBytes / 4);
    __builtin_prefetch(b + kPrefetchBytes / 4 + 16);
    Simd::F bv[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) bv[v] = Simd::Load(b + v * kW);
    for (int r = 0; r < kRows; ++r) {
      const Simd::F a = Simd::Set(rows[r][k]);
      for (int v = 0; v < kPanelVectors; ++v) acc[r][v] = Simd::Fma(a, bv[v], acc[r][v]);
    }
  }
  AddSums<kRows>(acc, c);
}

void GemmF32(const float* const* rows, int num_rows, const float* panel, int64_t in, float* c) {
  InRowBlocks<Simd::kGemmRows>(num_rows, [&]<int kRows>(int r) {
    GemmRowsF32<kRows>(rows + r, panel, in, c + r * kPanelCols);
  });
}

inline const uint16_t* PackedRow(const uint16_t* a, int row, int64_t k_steps) {
  return a + (row / kRowGroup) * k_steps * kTileElements + (row % kRowGroup) * kStepK;
}

constexpr int kExpandSteps = 4;  // of rows, at a time, to fp32 in L1: once for all columns, instead of with each vector

// The columns of kVectors vectors from `panel` on; of a whole panel the second half lies `steps` tiles behind. Even k,
// then odd k of each pair: bfloat16 products are exact in fp32, so only the additions round. The panel has `steps` of
// the a_steps steps that the rows have; `resume`: the sums continue from c.
template <int kRows, int kVectors>
inline void GemmRowsBf16(const uint16_t* a, int64_t a_steps, int first_row, const uint16_t* panel, int64_t steps,
                         bool resume, float* c) {
  constexpr int kPairs = kStepK / 2;
  const int64_t other_cols = steps * kTileElements;
  Simd::F acc[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      acc[r][v] = resume ? Simd::Load(c + (first_row + r) * kPanelCols + v * kW) : Simd::Set(0.0f);
    }
  }
  alignas(64) float even_a[kRows][kExpandSteps * kPairs], odd_a[kRows][kExpandSteps * kPairs];
  for (int64_t first_step = 0; first_step < steps; first_step += kExpandSteps) {
    const int num_steps = static_cast<int>(steps - first_step < kExpandSteps ? steps - first_step : kExpandSteps);
    for (int r = 0; r < kRows; ++r) {
      const uint16_t* const row = PackedRow(a, first_row + r, a_steps) + first_step * kTileElements;
      for (int i = 0; i < num_steps * kPairs; i += kW) {
        Simd::F even, odd;
        Simd::LoadPairs(row + i / kPairs * kTileElements + i % kPairs * 2, &even, &odd);
        Simd::Store(&even_a[r][i], even);
        Simd::Store(&odd_a[r][i], odd);
      }
    }
    const uint16_t* b = panel + first_step * kTileElements;
    for (int pair = 0; pair < num_steps * kPairs; ++pair, b += 2 * kTileCols) {
      __builtin_prefetch(b + kPrefetchBytes / 2);
      if constexpr (kVectors > kTileVectors) __builtin_prefetch(b + other_cols + kPrefetchBytes / 2);
      Simd::F even[kVectors], odd[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        Simd::LoadPairs(b + (v / kTileVectors) * other_cols + (v % kTileVectors) * kW * 2, &even[v], &odd[v]);
      }
      for (int r = 0; r < kRows; ++r) {
        const Simd::F a_even = Simd::Set(even_a[r][pair]), a_odd = Simd::Set(odd_a[r][pair]);
        for (int v = 0; v < kVectors; ++v) {
          acc[r][v] = Simd::Fma(a_odd, odd[v], Simd::Fma(a_even, even[v], acc[r][v]));
        }
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      Simd::Store(c + (first_row + r) * kPanelCols + v * kW, acc[r][v]);
    }
  }
}

void GemmBf16Steps(const uint16_t* a, int64_t a_steps, int num_rows, const uint16_t* panel, int64_t steps, bool resume,
                   float* c) {
  InRowBlocks<Simd::kGemmBf16Rows>(num_rows, [&]<int kRows>(int r) {
    constexpr int kCols = kRows <= Simd::kGemmRows ? kPanelCols : kTileCols;  // as many sums as registers hold
    for (int col = 0; col < kPanelCols; col += kCols) {
      GemmRowsBf16<kRows, kCols / kW>(a, a_steps, r, panel + col / kTileCols * steps * kTileElements, steps, resume,
                                      c + col);
    }
  });
}

void GemmBf16(const uint16_t* a, int num_rows, const uint16_t* panel, int64_t k_steps, float* c) {
  GemmBf16Steps(a, k_steps, num_rows, panel, k_steps, false, c);
}

void PackRow(const float* in, int64_t cols, int64_t first_step, int64_t last_step, uint16_t* a_row) {
  for (int64_t step = first_step; step < last_step; ++step) {
    for (int i = 0; i < kStepK; i += kW) {
      const int64_t left = cols - step * kStepK - i;
      const float* from = in + step * kStepK + i;
      const Simd::F x = left >= kW ? Simd::Load(from) : Simd::LoadN(from, static_cast<int>(left));
      Simd::StoreBf16(a_row + step * kTileElements + i, x);
    }
  }
}

int64_t PackTileBf16(const uint16_t* rows, int64_t in, int64_t steps, uint16_t* to) {
  int64_t nonfinite = 0;
  for (int64_t step = 0; step < steps; ++step, to += kTileElements) {
    for (int c = 0; c < kTileCols; ++c) {
      const uint16_t* const from = rows + c * in + step * kStepK;
      uint16_t in_step = 0;  // as wide as an element, so that as many are counted at once as a register has
      for (int k = 0; k < kStepK; ++k) in_step += (from[k] & 0x7f80) == 0x7f80 ? 1 : 0;
      nonfinite += in_step;
      for (int pair = 0; pair < kStepK / 2; ++pair) {
        __builtin_memcpy(to + (pair * kTileCols + c) * 2, from + 2 * pair, 4);
      }
    }
  }
  return nonfinite;
}

// ---- what becomes of a panel ----

void StorePanel(const float* c, int num_rows, int cols, const float* bias, bool add, float* out, int64_t stride) {
  for (int r = 0; r < num_rows; ++r, c += kPanelCols, out += stride) {
    for (int i = 0; i < cols; i += kW) {
      const int n = cols - i;
      Simd::F x = Simd::Load(c + i);
      if (bias != nullptr) x = Simd::Add(x, Simd::LoadN(bias + i, n));
      if (add) x = Simd::Add(Simd::LoadN(out + i, n), x);
      Simd::StoreN(out + i, x, n);
    }
  }
}

void StreamPanel(const float* c, int num_rows, int cols, float* out, int64_t stride) {
  const bool aligned = reinterpret_cast<uintptr_t>(out) % 64 == 0 && stride % 16 == 0;
  if (!aligned || cols < kPanelCols) return StorePanel(c, num_rows, cols, nullptr, false, out, stride);
  for (int r = 0; r < num_rows; ++r, c += kPanelCols, out += stride) {
    for (int i = 0; i < kPanelCols; i += kW) Simd::Stream(out + i, Simd::Load(c + i));
  }
}

// Columns of the intermediate that one panel makes, and those of them that start at c + i.
struct SiluOp {
  static constexpr int kCols = kTileCols;
  Simd::F operator()(const float* c) const { return SiluMul(Simd::Load(c), Simd::Load(c + kTileCols)); }
};
struct ClampedSwigluOp {
  static constexpr int kCols = kTileCols;
  float limit;
  Simd::F operator()(const float* c) const { return ClampedSwiglu(Simd::Load(c), Simd::Load(c + kTileCols), limit); }
};
struct ReluOp {
  static constexpr int kCols = kPanelCols;
  Simd::F operator()(const float* c) const { return Relu(Simd::Load(c)); }
};
struct GeluTanhOp {
  static constexpr int kCols = kPanelCols;
  Simd::F operator()(const float* c) const { return GeluTanh(Simd::Load(c)); }
};
struct TanhOp {
  static constexpr int kCols = kPanelCols;
  Simd::F operator()(const float* c) const { return Tanh(Simd::Load(c)); }
};

// body(op) with the activation's op.
template <typename Body>
inline void WithActivation(Activation activation, float limit, const Body& body) {
  switch (activation) {
    case Activation::kSilu: return body(SiluOp{});
    case Activation::kClampedSwiglu: return body(ClampedSwigluOp{limit});
    case Activation::kRelu: return body(ReluOp{});
    case Activation::kGeluTanh: return body(GeluTanhOp{});
    case Activation::kTanh: return body(TanhOp{});
  }
}

void ActivatePanelF32(Activation activation, float limit, const float* c, int num_rows, int cols, float* h,
                      int64_t stride) {
  WithActivation(activation, limit, [&](const auto op) {
    for (int r = 0; r < num_rows; ++r) {
      for (int i = 0; i < cols; i += kW) Simd::StoreN(h + r * stride + i, op(c + r * kPanelCols + i), cols - i);
    }
  });
}

void ActivatePanelBf16(Activation activation, float limit, const float* c, int num_rows, int64_t first_col,
                       int64_t k_steps, uint16_t* h) {
  h += first_col / kStepK * kTileElements + first_col % kStepK;
  WithActivation(activation, limit, [&](const auto op) {
    for (int r = 0; r < num_rows; ++r) {
      uint16_t* const row = h + (r / kRowGroup) * k_steps * kTileElements + (r % kRowGroup) * kStepK;
      for (int i = 0; i < op.kCols; i += kW) Simd::StoreBf16(row + i, op(c + r * kPanelCols + i));
    }
  });
}

void AddPanelBias(const float* bias, int num_rows, float* c) {
  for (int r = 0; r < num_rows; ++r, c += kPanelCols) {
    for (int i = 0; i < kPanelCols; i += kW) Simd::Store(c + i, Simd::Add(Simd::Load(c + i), Simd::Load(bias + i)));
  }
}

// ---- vectors: bytes-bound, from L1 or L2 ----

// Four partial sums per lane: fixed by `size`, so the same row always rounds the same way.
float Dot(const float* a, const float* b, int64_t size) {
  Simd::F sums[4] = {Simd::Set(0.0f), Simd::Set(0.0f), Simd::Set(0.0f), Simd::Set(0.0f)};
  int64_t i = 0;
  for (; i + 4 * kW <= size; i += 4 * kW) {
    for (int j = 0; j < 4; ++j) sums[j] = Simd::Fma(Simd::Load(a + i + j * kW), Simd::Load(b + i + j * kW), sums[j]);
  }
  for (int j = 0; i < size; i += kW, j = (j + 1) % 4) {
    const int n = static_cast<int>(size - i);
    sums[j] = Simd::Fma(Simd::LoadN(a + i, n), Simd::LoadN(b + i, n), sums[j]);
  }
  return Simd::Sum(Simd::Add(Simd::Add(sums[0], sums[1]), Simd::Add(sums[2], sums[3])));
}

void RmsNorm(const float* in, const float* weight, int64_t size, float eps, float* out) {
  const float mean = Dot(in, in, size) / static_cast<float>(size);
  const Simd::F scale = Simd::Set(1.0f / __builtin_sqrtf(mean + eps));
  int64_t i = 0;
  for (; i + kW <= size; i += kW) {
    Simd::Store(out + i, Simd::Mul(Simd::Mul(Simd::Load(in + i), scale), Simd::Load(weight + i)));
  }
  const int n = static_cast<int>(size - i);
  if (n > 0) Simd::StoreN(out + i, Simd::Mul(Simd::Mul(Simd::LoadN(in + i, n), scale), Simd::LoadN(weight + i, n)), n);
}

// Two passes over the row in L1: the variance as the mean of squares less the square of the mean would cancel.
void LayerNorm(const float* in, const float* weight, const float* bias, int64_t size, float eps, float* out) {
  Simd::F sums = Simd::Set(0.0f);
  int64_t i = 0;
  for (; i + kW <= size; i += kW) sums = Simd::Add(sums, Simd::Load(in + i));
  float sum = Simd::Sum(sums);
  for (; i < size; ++i) sum += in[i];
  const float mean = sum / static_cast<float>(size);
  const Simd::F shift = Simd::Set(mean);
  Simd::F squares = Simd::Set(0.0f);
  for (i = 0; i + kW <= size; i += kW) {
    const Simd::F x = Simd::Sub(Simd::Load(in + i), shift);
    squares = Simd::Fma(x, x, squares);
  }
  float square_sum = Simd::Sum(squares);
  for (; i < size; ++i) square_sum += (in[i] - mean) * (in[i] - mean);
  const Simd::F scale = Simd::Set(1.0f / __builtin_sqrtf(square_sum / static_cast<float>(size) + eps));
  for (i = 0; i < size; i += kW) {
    const int n = size - i >= kW ? kW : static_cast<int>(size - i);
    const Simd::F x = Simd::Mul(Simd::Sub(Simd::LoadN(in + i, n), shift), scale);
    const Simd::F weighed = Simd::Mul(x, Simd::LoadN(weight + i, n));
    Simd::StoreN(out + i, bias == nullptr ? weighed : Simd::Add(weighed, Simd::LoadN(bias + i, n)), n);
  }
}

void ScaleVector(float factor, int64_t size, float* x) {
  const Simd::F by = Simd::Set(factor);
  for (int64_t i = 0; i < size; i += kW) {
    const int n = size - i >= kW ? kW : static_cast<int>(size - i);
    Simd::StoreN(x + i, Simd::Mul(Simd::LoadN(x + i, n), by), n);
  }
}

void SiluMulVector(const float* gate, const float* up, int64_t size, float* out) {
  for (int64_t i = 0; i < size; i += kW) {
    const int n = size - i >= kW ? kW : static_cast<int>(size - i);
    Simd::StoreN(out + i, SiluMul(Simd::LoadN(gate + i, n), Simd::LoadN(up + i, n)), n);
  }
}

void ActivateVector(Activation activation, int64_t size, float* x) {
  for (int64_t i = 0; i < size; i += kW) {
    const int n = size - i >= kW ? kW : static_cast<int>(size - i);
    const Simd::F value = Simd::LoadN(x + i, n);
    const Simd::F activated = activation == Activation::kRelu   ? Relu(value)
                              : activation == Activation::kTanh ? Tanh(value)
                                                                : GeluTanh(value);
    Simd::StoreN(x + i, activated, n);
  }
}

void AddScaled(float scale, const float* in, int64_t size, float* out) {
  const Simd::F factor = Simd::Set(scale);
  int64_t i = 0;
  for (; i + kW <= size; i += kW) Simd::Store(out + i, Simd::Fma(factor, Simd::Load(in + i), Simd::Load(out + i)));
  const int n = static_cast<int>(size - i);
  if (n > 0) Simd::StoreN(out + i, Simd::Fma(factor, Simd::LoadN(in + i, n), Simd::LoadN(out + i, n)), n);
}

void Softmax(const float* logits, int64_t size, float* probabilities, float* max, float* sum) {
  float largest = logits[0];
  for (int64_t i = 1; i < size; ++i) largest = logits[i] > largest ? logits[i] : largest;
  const Simd::F shift = Simd::Set(largest);
  for (int64_t i = 0; i < size; i += kW) {
    const int n = size - i >= kW ? kW : static_cast<int>(size - i);
    Simd::StoreN(probabilities + i, Exp(Simd::Sub(Simd::LoadN(logits + i, n), shift)), n);
  }
  float total = 0.0f;
  for (int64_t i = 0; i < size; ++i) total += probabilities[i];
  for (int64_t i = 0; i < size; ++i) probabilities[i] /= total;
  *max = largest;
  *sum = total;
}

// ---- RoPE ----

// In double: at position 100,000 an angle in fp32 would be wrong in the third digit. sin and cos are fdlibm's series
// after taking off multiples of pi / 2 in three parts; plain loops, which the compiler turns into vectors.
void RopeAngles(int32_t position, const float* inv_freq, int64_t size, float factor, float* cos, float* sin) {
  constexpr double kTwoOverPi = 6.36619772367581382433e-01;
  constexpr double kPiHalf1 = 1.57079632673412561417e+00;  // 33 bits: products with integers below 2^20 are exact
  constexpr double kPiHalf2 = 6.07710050630396597660e-11;
  constexpr double kPiHalf3 = 2.02226624879595063154e-21;
  constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  for (int64_t m = 0; m < size; ++m) {
    const double angle = static_cast<double>(position) * static_cast<double>(inv_freq[m]);
    const double shifted = angle * kTwoOverPi + kMagic;
    const double n = shifted - kMagic;
    const double x = ((angle - n * kPiHalf1) - n * kPiHalf2) - n * kPiHalf3;
    const double z = x * x;
    const double s = x + x * z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 -
                     z * (1.0 / 39916800)))));
    const double c = 1.0 + z * (-0.5 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 +
                     z * (1.0 / 479001600))))));
    const uint64_t quadrant = __builtin_bit_cast(uint64_t, shifted) & 3;  // the low bits of the integer n
    const double sine = (quadrant & 1) != 0 ? c : s;
    const double cosine = (quadrant & 1) != 0 ? s : c;
    sin[m] = static_cast<float>((quadrant & 2) != 0 ? -sine : sine) * factor;
    cos[m] = static_cast<float>(((quadrant + 1) & 2) != 0 ? -cosine : cosine) * factor;
  }
}

void Rotate(const float* cos, const float* sin, int64_t size, float* x) {
  for (int64_t m = 0; m < size; ++m) {
    const float low = x[m];
    const float high = x[m + size];
    x[m] = low * cos[m] - high * sin[m];
    x[m + size] = high * cos[m] + low * sin[m];
  }
}

void RotatePairs(const float* cos, const float* sin, int64_t size, float* x) {
  for (int64_t m = 0; m < size; ++m) {
    const float even = x[2 * m];
    const float odd = x[2 * m + 1];
    x[2 * m] = even * cos[m] - odd * sin[m];
    x[2 * m + 1] = odd * cos[m] + even * sin[m];
  }
}

// ---- KV cache: bytes = key and value once in, once out ----

inline bool AllFinite(const float* x, int32_t size) {
  uint32_t bad = 0;  // without branches, so that it becomes vectors
  for (int32_t i = 0; i < size; ++i) {
    bad |= (__builtin_bit_cast(uint32_t, x[i]) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  return bad == 0;
}

inline void StoreKeyValueF32(const KvLayout& layout, char* group, int32_t slot, const float* key, const float* value,
                             bool finite) {
  float* const keys = reinterpret_cast<float*>(group) + slot;
  float* const values = reinterpret_cast<float*>(group + layout.keys_bytes) + slot * layout.dim_pad;
  for (int32_t d = 0; d < layout.head_dim; ++d) keys[d * kKeyGroup] = key[d];
  for (int32_t d = 0; d < layout.head_dim; ++d) values[d] = finite ? value[d] : 0.0f;
  if (!finite) keys[0] = __builtin_nanf("");
}

inline void StoreKeyValueBf16(const KvLayout& layout, char* group, int32_t slot, const float* key, const float* value,
                              bool finite) {
  alignas(64) uint16_t key_bits[kMaxHeadDim + kW];
  alignas(64) uint16_t value_bits[kMaxHeadDim + kW];
  for (int32_t d = 0; d < layout.head_dim; d += kW) {
    Simd::StoreBf16(key_bits + d, Simd::LoadN(key + d, layout.head_dim - d));
    Simd::StoreBf16(value_bits + d, Simd::LoadN(value + d, layout.head_dim - d));
  }
  uint16_t* const keys = reinterpret_cast<uint16_t*>(group) + slot * 2;
  uint16_t* const values = reinterpret_cast<uint16_t*>(group + layout.keys_bytes) + slot / 2 * layout.dim_pad * 2 +
                           slot % 2;
  for (int32_t d = 0; d < layout.head_dim; d += 2) __builtin_memcpy(keys + d * kKeyGroup, key_bits + d, 4);
  for (int32_t d = 0; d < layout.head_dim; ++d) {
    // The largest floats round to infinity in bfloat16; they saturate, or 0 * infinity would be back.
    const uint16_t bits = value_bits[d];
    values[2 * d] = (bits & 0x7fff) == 0x7f80 ? static_cast<uint16_t>(bits - 1) : bits;
  }
  if (finite) return;
  for (int32_t d = 0; d < layout.head_dim; ++d) values[2 * d] = 0;
  keys[0] = 0x7fc0;
}

void StoreKeyValue(const KvLayout& layout, char* group, int32_t slot, const float* key, const float* value) {
  const bool finite = AllFinite(value, layout.head_dim);
  if (layout.dtype == DType::kF32) {
    StoreKeyValueF32(layout, group, slot, key, value, finite);
  } else {
    StoreKeyValueBf16(layout, group, slot, key, value, finite);
  }
}

// A latent that is not finite becomes zeros, with a NaN where only scores read it: in the first element of its key
// that is not value.
void StoreLatent(const KvLayout& layout, char* group, int32_t slot, const float* latent) {
  const bool finite = AllFinite(latent, layout.head_dim);
  if (layout.dtype == DType::kF32) {
    float* const to = reinterpret_cast<float*>(group) + slot * layout.dim_pad;
    for (int32_t d = 0; d < layout.head_dim; ++d) to[d] = finite ? latent[d] : 0.0f;
    if (!finite) to[layout.value_dim] = __builtin_nanf("");
    return;
  }
  alignas(64) uint16_t bits[kMaxHeadDim + kW];
  for (int32_t d = 0; d < layout.head_dim; d += kW) {
    Simd::StoreBf16(bits + d, Simd::LoadN(latent + d, layout.head_dim - d));
  }
  uint16_t* const to = reinterpret_cast<uint16_t*>(group) + slot / 2 * layout.dim_pad * 2 + slot % 2;
  for (int32_t d = 0; d < layout.head_dim; ++d) {
    to[2 * d] = !finite                           ? uint16_t{0}
                : (bits[d] & 0x7fff) == 0x7f80 ? static_cast<uint16_t>(bits[d] - 1)
                                               : bits[d];
  }
  if (!finite) to[2 * layout.value_dim] = 0x7fc0;
}

#include "engine/backend/cpu/attention_inl.h"  // NOLINT: inside the namespace on purpose
#include "engine/backend/cpu/quantized_inl.h"  // NOLINT

constexpr Kernels BaseKernels(Isa isa) {
  Kernels kernels;
  kernels.isa = isa;
  kernels.gemm_f32 = GemmF32;
  kernels.gemm_bf16 = GemmBf16;
  kernels.gemm_quantized = GemmQuantized<GemmBf16Steps>;
  kernels.expand_mxfp4 = ExpandMxfp4;
  kernels.expand_fp8 = ExpandFp8;
  kernels.pack_row = PackRow;
  kernels.pack_tile_bf16 = PackTileBf16;
  kernels.store_panel = StorePanel;
  kernels.stream_panel = StreamPanel;
  kernels.activate_panel_f32 = ActivatePanelF32;
  kernels.activate_panel_bf16 = ActivatePanelBf16;
  kernels.add_panel_bias = AddPanelBias;
  kernels.rms_norm = RmsNorm;
  kernels.layer_norm = LayerNorm;
  kernels.scale = ScaleVector;
  kernels.silu_mul = SiluMulVector;
  kernels.activate = ActivateVector;
  kernels.add_scaled = AddScaled;
  kernels.dot = Dot;
  kernels.softmax = Softmax;
  kernels.rope_angles = RopeAngles;
  kernels.rotate = Rotate;
  kernels.rotate_pairs = RotatePairs;
  kernels.store_key_value = StoreKeyValue;
  kernels.store_latent = StoreLatent;
  kernels.attend = Attend;
  return kernels;
}
