// Random weights without a file. Loading such a model should cost no more than reading one, so the values come from an
// integer hash that compilers vectorise, about 20 instructions for a vector of values.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>
#include <vector>

#include "engine/base/bf16.h"
#include "engine/base/status_macros.h"
#include "engine/checkpoint/convert.h"
#include "engine/checkpoint/dequantize.h"
#include "engine/checkpoint/tensor_map.h"
#include "engine/checkpoint/weight_table.h"
#include "engine/checkpoint/weights.h"

#if defined(__x86_64__) && !defined(__AVX2__)
#define SWITCHYARD_DUMMY_AVX2 1
#endif

namespace switchyard {
namespace {

constexpr double kBiasDeviation = 0.02;

// A bijection of 64 bits that mixes well (the finaliser of SplitMix64, Steele et al. 2014).
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// 32 well-mixed bits for each i below 2^32; the key enters twice so that no two keys give shifted sequences.
inline uint32_t HashIndex(uint32_t i, uint32_t key_low, uint32_t key_high) {
  uint32_t x = i ^ key_low;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) + key_high;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

// The sum of four uniform bytes less its mean: near normal, deviation sqrt(4 * (256^2 - 1) / 12), at most 3.5 of them.
inline float NormalFromBits(uint32_t bits) {
  const uint32_t pairs = (bits & 0x00ff00ffu) + ((bits >> 8) & 0x00ff00ffu);
  return static_cast<float>(static_cast<int32_t>((pairs & 0xffffu) + (pairs >> 16)) - 510);
}
const double kNormalDeviation = std::sqrt(65535.0 / 3.0);

struct Run {
  uint32_t key_low = 0;
  uint32_t key_high = 0;
  uint32_t first = 0;
  float scale = 0.0f;
};

inline void Store(float value, float* out) { *out = value; }
inline void Store(float value, uint16_t* out) { *out = FloatToBf16(value); }

template <typename To>
[[gnu::always_inline]] inline void FillBody(const Run& run, int64_t count, To* out) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = HashIndex(run.first + static_cast<uint32_t>(i), run.key_low, run.key_high);
    Store(NormalFromBits(bits) * run.scale, out + i);
  }
}

template <typename To>
void FillPortable(const Run& run, int64_t count, To* out) {
  FillBody(run, count, out);
}

#ifdef SWITCHYARD_DUMMY_AVX2
template <typename To>
[[gnu::target("avx2")]] void FillAvx2(const Run& run, int64_t count, To* out) {
  FillBody(run, count, out);
}
#endif

// Integers, one multiplication and one rounding: every version gives the same bits.
template <typename To>
void Fill(const Run& run, int64_t count, To* out) {
#ifdef SWITCHYARD_DUMMY_AVX2
  static const bool has_avx2 = __builtin_cpu_supports("avx2") > 0;
  if (has_avx2) return FillAvx2(run, count, out);
#endif
  FillPortable(run, count, out);
}

// Random codes with one scale for all, so that the numbers have about the deviation that is asked for.
class DummyCodes {
 public:
  // kNone: none.
  static QuantizedForm FormOf(const Quantization& quantization) {
    if (quantization.mxfp4) return {QuantizedFormat::kMxfp4, kMxfp4Block};
    if (quantization.fp8_blocks) return {QuantizedFormat::kFp8, quantization.block_cols};
    return {};
  }

  static void Fill(const QuantizedForm& form, const Run& run, int64_t count, double deviation, uint8_t* codes,
                   int64_t num_scales, void* scales) {
    const bool is_mxfp4 = form.format == QuantizedFormat::kMxfp4;
    for (int64_t i = 0; i < form.CodeBytes(count); ++i) {
      const uint32_t bits = HashIndex(run.first + static_cast<uint32_t>(i), run.key_low, run.key_high);
      // All 16 numbers of mxfp4; of fp8 those from 1/2 to 15/8, with either sign.
      codes[i] = static_cast<uint8_t>(is_mxfp4 ? bits : (bits & 0x8fu) | 0x30u);
    }
    if (is_mxfp4) {
      const int exponent = static_cast<int>(std::lround(std::log2(deviation / kMxfp4Deviation))) + 127;
      std::fill_n(static_cast<uint8_t*>(scales), num_scales, static_cast<uint8_t>(std::clamp(exponent, 2, 252)));
    } else {
      std::fill_n(static_cast<float*>(scales), num_scales, static_cast<float>(deviation / kF8Deviation));
    }
  }

 private:
  static constexpr double kMxfp4Deviation = 2.926;  // root of the mean square of the 16 numbers
  static constexpr double kF8Deviation = 1.149;     // and of those 32
};

class DummyReader final : public TensorReader {
 public:
  DummyReader() = default;
  DummyReader(uint64_t key, int64_t rows, int64_t cols, double deviation, const QuantizedForm& form)
      : key_(key), rows_(rows), cols_(cols), scale_(static_cast<float>(deviation)), form_(form) {}
  DummyReader(uint64_t key, int64_t rows, int64_t cols, double mean, double deviation)
      : key_(key), rows_(rows), cols_(cols), mean_(mean), scale_(static_cast<float>(deviation / kNormalDeviation)) {}

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }

  absl::Status ReadRows(int64_t first, int64_t count, DType as, void* out) const override {
    CHECK(as == DType::kF32 || as == DType::kBF16);
    if (form_.format != QuantizedFormat::kNone) return ReadDequantized(first, count, as, static_cast<char*>(out));
    const int64_t begin = first * cols_, end = (first + count) * cols_;
    if (as == DType::kF32) {
      Write(begin, end, static_cast<float*>(out));
    } else {
      Write(begin, end, static_cast<uint16_t*>(out));
    }
    return absl::OkStatus();
  }

  QuantizedForm quantized() const override { return form_; }

  absl::Status ReadQuantized(int64_t first, int64_t count, uint8_t* codes, void* scales) const override {
    const Run run{static_cast<uint32_t>(key_), static_cast<uint32_t>(key_ >> 32),
                  static_cast<uint32_t>(form_.CodeBytes(first * cols_)), 0.0f};
    DummyCodes::Fill(form_, run, count * cols_, scale_, codes, count * form_.ScalesPerRow(cols_), scales);
    return absl::OkStatus();
  }

 private:
  absl::Status ReadDequantized(int64_t first, int64_t count, DType as, char* out) const {
    std::vector<uint8_t> codes(static_cast<size_t>(form_.CodeBytes(cols_)));
    std::vector<float> scales(static_cast<size_t>(form_.ScalesPerRow(cols_)));  // room for either type
    std::vector<float> values(static_cast<size_t>(cols_));
    for (int64_t r = first; r < first + count; ++r, out += cols_ * DTypeBytes(as)) {
      RETURN_IF_ERROR(ReadQuantized(r, 1, codes.data(), scales.data()));
      if (form_.format == QuantizedFormat::kMxfp4) {
        DequantizeMxfp4(codes.data(), reinterpret_cast<const uint8_t*>(scales.data()), cols_, values.data());
      } else {
        DequantizeFp8(codes.data(), scales.data(), 0, cols_, form_.block_cols, values.data());
      }
      ConvertElements(DType::kF32, values.data(), as, out, cols_);
    }
    return absl::OkStatus();
  }

  template <typename To>
  void Write(int64_t begin, int64_t end, To* out) const {
    if (scale_ == 0.0f) {
      for (int64_t i = begin; i < end; ++i) Store(mean_, out++);
      return;
    }
    // A key serves 2^32 values.
    constexpr int64_t kPerKey = int64_t{1} << 32;
    while (begin < end) {
      const int64_t stop = std::min(end, (begin / kPerKey + 1) * kPerKey);
      const uint64_t key = Mix(key_ + static_cast<uint64_t>(begin / kPerKey));
      const Run run{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32),
                    static_cast<uint32_t>(begin % kPerKey), scale_};
      Fill(run, stop - begin, out);
      out += stop - begin;
      begin = stop;
    }
  }

  uint64_t key_ = 0;
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  float mean_ = 0.0f;
  float scale_ = 0.0f;  // 0: every value is the mean
  QuantizedForm form_;  // kNone: normal numbers; else codes, and scale_ is the deviation
};

bool IsNorm(WeightName name) {
  return name == WeightName::kFinalNorm || name == WeightName::kInputNorm || name == WeightName::kPostAttentionNorm ||
         name == WeightName::kQNorm || name == WeightName::kKNorm || name == WeightName::kQANorm ||
         name == WeightName::kKvANorm || name == WeightName::kParallelNorm ||
         name == WeightName::kEncoderFinalNorm || name == WeightName::kCrossNorm;
}

// What a name adds to the keys of its tensors. Names that came later have numbers of their own, so that the values of
// all others stay what they were.
uint64_t KeyNumber(WeightName name) {
  constexpr WeightName kLater[] = {WeightName::kEncoderFinalNorm, WeightName::kRelativeBias, WeightName::kCrossNorm,
                                   WeightName::kCrossQ,           WeightName::kCrossK,       WeightName::kCrossV,
                                   WeightName::kCrossO};
  constexpr uint64_t kFirstLater = 1000;
  uint64_t number = static_cast<uint64_t>(name);
  for (size_t i = 0; i < std::size(kLater); ++i) {
    if (name == kLater[i]) return kFirstLater + i;
    if (kLater[i] < name) --number;
  }
  return number;
}

DummyReader MakeReader(const WeightSpec& spec, uint64_t seed, bool tied_embeddings, const QuantizedForm& experts) {
  uint64_t key = Mix(seed ^ KeyNumber(spec.name));
  key = Mix(key ^ static_cast<uint64_t>(spec.layer + 1));
  key = Mix(key ^ static_cast<uint64_t>(spec.expert + 1));
  if (IsNorm(spec.name)) return {key, spec.rows, spec.cols, 1.0, 0.0};
  if (spec.is_vector) return {key, spec.rows, spec.cols, 0.0, kBiasDeviation};
  // An embedding is looked up, not summed over: with deviation 1 it is not drowned by the mean over the context that
  // attention adds, which is nearly the same for all tokens and would send them all to the same experts.
  if (spec.name == WeightName::kEmbedding && !tied_embeddings) return {key, spec.rows, spec.cols, 0.0, 1.0};
  const double deviation = 1.0 / std::sqrt(static_cast<double>(spec.cols));
  if (IsExpertMatrix(spec.name) && experts.format != QuantizedFormat::kNone) {
    return {key, spec.rows, spec.cols, deviation, experts};
  }
  return {key, spec.rows, spec.cols, 0.0, deviation};
}

}  // namespace

std::unique_ptr<Weights> MakeDummyWeights(const ModelConfig& config, uint64_t seed) {
  auto table = std::make_unique<WeightTable<DummyReader>>(config);
  const QuantizedForm experts = DummyCodes::FormOf(config.quantization);
  ForEachWeight(config, [&](const WeightSpec& spec) {
    table->Add(spec, MakeReader(spec, seed, config.tie_word_embeddings, experts));
  });
  return table;
}

std::unique_ptr<NamedTensors> MakeDummyTensors(std::span<const TensorSpec> specs, uint64_t seed) {
  auto map = std::make_unique<TensorMap<DummyReader>>();
  for (const TensorSpec& spec : specs) {
    uint64_t key = Mix(seed);
    for (const char letter : spec.name) key = Mix(key ^ static_cast<uint64_t>(letter));
    map->Add(spec, {key, spec.rows(), spec.cols(), spec.dummy_deviation == 0.0 ? 1.0 : 0.0, spec.dummy_deviation});
  }
  return map;
}

}  // namespace switchyard
