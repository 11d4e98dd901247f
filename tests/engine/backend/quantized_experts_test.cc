// Experts that stay quantized in memory: the results of the dequantized ones, bit for bit, on every instruction set of
// this machine; and which experts stay so.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/isa.h"
#include "tests/support/quantized_reader.h"

namespace switchyard {
namespace {

using testing::QuantizedReader;

constexpr QuantizedForm kMxfp4 = {QuantizedFormat::kMxfp4, kMxfp4Block};
constexpr QuantizedForm kFp8 = {QuantizedFormat::kFp8, 128};
constexpr int32_t kMaxTokens = 300;

struct Layer {
  QuantizedForm form;
  int64_t hidden = 0;
  int64_t width = 0;
  int32_t num_experts = 3;
  Activation activation = Activation::kSilu;
};

// A layer's experts in memory.
struct Experts {
  explicit Experts(const Layer& layer) {
    for (uint64_t e = 0; e < static_cast<uint64_t>(layer.num_experts); ++e) {
      Add(layer.width, layer.hidden, layer.form, 3 * e);
      Add(layer.width, layer.hidden, layer.form, 3 * e + 1);
      Add(layer.hidden, layer.width, layer.form, 3 * e + 2);
      const auto* const last = &matrices.back();
      ExpertReaders expert;
      expert.gate = IsGated(layer.activation) ? last[-2].get() : nullptr;
      expert.up = last[-1].get();
      expert.down = last[0].get();
      expert.form.activation = layer.activation;
      readers.push_back(expert);
    }
  }
  void Add(int64_t rows, int64_t cols, const QuantizedForm& form, uint64_t seed) {
    matrices.push_back(std::make_unique<QuantizedReader>(rows, cols, form, seed));
  }

  std::vector<std::unique_ptr<QuantizedReader>> matrices;  // gate, up, down of each
  std::vector<ExpertReaders> readers;
};

// One backend with the experts loaded, which every token goes to in turn.
class LoadedExperts {
 public:
  LoadedExperts(cpu::Isa isa, const Layer& layer, const Experts& experts, bool keep) : layer_(layer) {
    BackendOptions options;
    options.device = "cpu";
    options.cpu_isa = cpu::IsaName(isa);
    options.num_threads = 2;
    options.keep_quantized = keep;
    backend_ = std::move(CreateBackend(options)->backend);
    plan_ = backend_->PlanExperts(experts.readers, DType::kBF16);
    weights_ = *backend_->LoadExperts(experts.readers, DType::kBF16);
    RouterConfig router;
    router.num_experts = layer.num_experts;
    router.top_k = 2;
    routing_ = *backend_->AllocateRouting(kMaxTokens, router);
    batches_ = *backend_->AllocateExpertBatches(kMaxTokens, router);
    in_ = *backend_->AllocateMatrix(kMaxTokens, layer.hidden);
    rows_ = *backend_->AllocateMatrix(kMaxTokens * 2, layer.hidden);
    EXPECT_TRUE(backend_->PrepareScratch(kMaxTokens).ok());
  }

  const ExpertMemory& plan() const { return plan_; }
  const ExpertWeights& weights() const { return *weights_; }

  // The outputs of tokens [first, first + count) of an endless random row of them, from each of two experts.
  std::vector<float> Run(int32_t first, int32_t count) {
    routing_.num_tokens = count;
    for (int32_t t = 0; t < count; ++t) {
      std::mt19937 random(static_cast<uint32_t>(first + t));
      std::normal_distribution<float> normal;
      float* const row = static_cast<float*>(in_.data) + t * layer_.hidden;
      for (int64_t i = 0; i < layer_.hidden; ++i) row[i] = normal(random);
      for (int32_t j = 0; j < 2; ++j) routing_.expert_ids[2 * t + j] = (first + t + j) % layer_.num_experts;
    }
    backend_->GroupByExpert(routing_, &batches_);
    backend_->ExpertMlp(in_.Front(count, layer_.hidden), *weights_, batches_, rows_.Front(2 * count, layer_.hidden));
    std::vector<float> out;
    for (int32_t choice = 0; choice < 2 * count; ++choice) {
      const float* const row = static_cast<float*>(rows_.data) + batches_.choice_to_row[choice] * layer_.hidden;
      out.insert(out.end(), row, row + layer_.hidden);
    }
    return out;
  }

 private:
  const Layer layer_;
  std::unique_ptr<Backend> backend_;
  ExpertMemory plan_;
  std::unique_ptr<ExpertWeights> weights_;
  Routing routing_;
  ExpertBatches batches_;
  Matrix in_, rows_;
};

class QuantizedExpertsTest : public ::testing::TestWithParam<cpu::Isa> {
 protected:
  static void ExpectSameBits(const Layer& layer, const Experts& experts, const std::string& what) {
    LoadedExperts kept(GetParam(), layer, experts, true), dequantized(GetParam(), layer, experts, false);
    ASSERT_EQ(kept.plan().kept, layer.form.format) << what;
    ASSERT_EQ(dequantized.plan().kept, QuantizedFormat::kNone);
    EXPECT_EQ(kept.weights().bytes(), kept.plan().bytes);
    EXPECT_EQ(dequantized.weights().bytes(), dequantized.plan().bytes);
    EXPECT_EQ(kept.weights().num_nonfinite(), dequantized.weights().num_nonfinite()) << what;
    // Groups of 16 rows, pairs of them, chunks of 256 rows, and what is left over.
    for (const int32_t count : {1, 2, 7, 40, 130, kMaxTokens}) {
      const std::vector<float> actual = kept.Run(count, count), expected = dequantized.Run(count, count);
      ASSERT_EQ(std::memcmp(actual.data(), expected.data(), actual.size() * 4), 0) << what << ", " << count;
      EXPECT_NE(expected[0], 0.0f);
    }
    const std::vector<float> batch = kept.Run(0, 40), alone = kept.Run(39, 1);
    ASSERT_EQ(std::memcmp(&batch[batch.size() - alone.size()], alone.data(), alone.size() * 4), 0) << what;
  }
};

TEST_P(QuantizedExpertsTest, GiveTheBitsOfDequantizedOnes) {
  // Whole and partial tiles, panels, steps and chunks.
  for (const Layer& layer : {Layer{kMxfp4, 32, 32}, Layer{kMxfp4, 160, 96}, Layer{kMxfp4, 256, 544},
                             Layer{kMxfp4, 288, 64, 3, Activation::kRelu}, Layer{kFp8, 128, 128}, Layer{kFp8, 144, 136},
                             Layer{kFp8, 150, 9}, Layer{kFp8, 257, 515}, Layer{kFp8, 130, 300, 3, Activation::kRelu},
                             Layer{{QuantizedFormat::kFp8, 384}, 1000, 40}}) {
    const std::string what = std::string(QuantizedFormatName(layer.form.format)) + " " + std::to_string(layer.hidden) +
                             " x " + std::to_string(layer.width);
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(layer, Experts(layer), what));
  }
}

TEST_P(QuantizedExpertsTest, WithExtremeScales) {
  const Layer fours{kMxfp4, 160, 96}, eights{kFp8, 150, 136};
  Experts small(fours), large(fours), tiny(eights), mixed(eights);
  for (size_t i = 0; i < small.matrices.size(); ++i) {
    for (size_t s = 0; s < small.matrices[i]->exponents().size(); s += 3) {
      small.matrices[i]->exponents()[s] = static_cast<uint8_t>(s % 2);
      if (i % 3 != 2) large.matrices[i]->exponents()[s] = static_cast<uint8_t>(160 + s % 8);
    }
    for (size_t s = 0; s < tiny.matrices[i]->scales().size(); s += 2) {
      tiny.matrices[i]->scales()[s] = s % 4 == 0 ? 0x1p-130f : 0.0f;
      mixed.matrices[i]->scales()[s] *= s % 4 == 0 ? -1.0f : 0x1p-20f;
    }
  }
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(fours, small, "mxfp4 near 0"));
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(fours, large, "mxfp4 large"));
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(eights, tiny, "fp8 near 0"));
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(eights, mixed, "fp8 of both signs"));
}

TEST_P(QuantizedExpertsTest, CountWhatIsNotFinite) {
  for (const Layer& layer : {Layer{kMxfp4, 160, 96}, Layer{kFp8, 150, 136}}) {
    Experts experts(layer);
    experts.matrices[4]->codes()[7] = 0xff;     // NaN in fp8
    experts.matrices[0]->exponents()[3] = 255;  // NaN
    experts.matrices[2]->exponents()[5] = 254;  // overflows from 2 on
    LoadedExperts kept(GetParam(), layer, experts, true), dequantized(GetParam(), layer, experts, false);
    EXPECT_GT(kept.weights().num_nonfinite(), 0);
    EXPECT_EQ(kept.weights().num_nonfinite(), dequantized.weights().num_nonfinite());
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, QuantizedExpertsTest, ::testing::ValuesIn(cpu::AvailableIsas()),
                         [](const auto& info) { return std::string(cpu::IsaName(info.param)); });

std::unique_ptr<Backend> MakeCpu() {
  BackendOptions options;
  options.device = "cpu";
  options.num_threads = 1;
  return std::move(CreateBackend(options)->backend);
}

TEST(PlanExpertsTest, FourBitsAndAScaleTakeAQuarterAndAByteTakesHalf) {
  const Layer fours{kMxfp4, 1280, 640}, eights{kFp8, 1280, 640};
  const int64_t elements = 3 * 3 * 1280 * 640;
  EXPECT_EQ(MakeCpu()->PlanExperts(Experts(fours).readers, DType::kBF16).bytes, elements * 17 / 32);
  EXPECT_EQ(MakeCpu()->PlanExperts(Experts(eights).readers, DType::kBF16).bytes, elements * 33 / 32);
}

TEST(PlanExpertsTest, OthersAreDequantized) {
  const auto kept = [](const Experts& experts, DType dtype) {
    return MakeCpu()->PlanExperts(experts.readers, dtype).kept;
  };
  EXPECT_EQ(kept(Experts(Layer{kFp8, 256, 128}), DType::kF32), QuantizedFormat::kNone);
  EXPECT_EQ(kept(Experts(Layer{kMxfp4, 256, 128}), DType::kF32), QuantizedFormat::kNone);
  EXPECT_EQ(kept(Experts(Layer{{QuantizedFormat::kFp8, 64}, 256, 128}), DType::kBF16), QuantizedFormat::kNone);
  EXPECT_EQ(kept(Experts(Layer{{QuantizedFormat::kNone, 128}, 256, 128}), DType::kBF16), QuantizedFormat::kNone);
  Experts mixed(Layer{kFp8, 256, 128});
  const QuantizedReader other(128, 256, kMxfp4, 1);
  mixed.readers[1].up = &other;
  EXPECT_EQ(kept(mixed, DType::kBF16), QuantizedFormat::kNone);
}

}  // namespace
}  // namespace switchyard
