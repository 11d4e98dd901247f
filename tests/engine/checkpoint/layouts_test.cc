// The families' own ways to store weights: each element of each weight is where the format says, in their fixtures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/base/model_folder.h"
#include "engine/checkpoint/weight_table.h"
#include "tests/engine/checkpoint/tiny_model.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;
using testing::LoadedModel;
using testing::LoadModel;
using testing::RawTensor;
using testing::ReadAll;

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> values;  // of F32 tensors
};

class LayoutsTest : public ::testing::Test {
 protected:
  void Load(const std::string& fixture) {
    folder_ = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/" + fixture;
    auto model = LoadModel(folder_);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    stored_.clear();
    for (const RawTensor& raw : testing::ReadRawTensors(folder_ + "/model.safetensors")) {
      Tensor tensor{raw.shape, {}};
      if (raw.dtype == "F32") {
        tensor.values.resize(raw.bytes.size() / sizeof(float));
        std::memcpy(tensor.values.data(), raw.bytes.data(), raw.bytes.size());
      }
      stored_[raw.name] = tensor;
    }
  }

  // Element (r, c) of the weight is element at(r, c) of the tensor; whole, and by ranges of rows in any order.
  void ExpectPlaced(WeightName name, int layer, int expert, const std::string& tensor,
                    const std::function<int64_t(int64_t r, int64_t c)>& at) {
    const TensorReader* const reader = model_.weights->Find(name, layer, expert);
    ASSERT_NE(reader, nullptr);
    ASSERT_TRUE(stored_.contains(tensor)) << tensor;
    const std::vector<float>& values = stored_[tensor].values;
    const int64_t rows = reader->rows(), cols = reader->cols();
    for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{
             {0, rows}, {rows / 2, rows - rows / 2}, {0, rows / 2}, {rows - 1, 1}}) {
      std::vector<float> part(static_cast<size_t>(count * cols));
      ASSERT_TRUE(reader->ReadRows(first, count, DType::kF32, part.data()).ok());
      for (int64_t i = 0; i < count * cols; ++i) {
        ASSERT_EQ(part[static_cast<size_t>(i)], values.at(static_cast<size_t>(at(first + i / cols, i % cols))))
            << tensor << " row " << first + i / cols << ", column " << i % cols;
      }
    }
  }

  std::string folder_;
  LoadedModel model_;
  std::map<std::string, Tensor> stored_;
};

constexpr int64_t kHidden = 32;

TEST_F(LayoutsTest, FusedColumnsAreTransposed) {
  Load("llama4_scout_like");
  constexpr int64_t kWidth = 24, kRow = 2 * kWidth;
  for (const int64_t e : {0, 5}) {
    const std::string block = "model.layers.2.feed_forward.experts.";
    const int64_t gate_up = e * kHidden * kRow, down = e * kHidden * kWidth;
    const int expert = static_cast<int>(e);
    ExpectPlaced(WeightName::kExpertGate, 2, expert, block + "gate_up_proj",
                 [&](int64_t r, int64_t c) { return gate_up + c * kRow + r; });
    ExpectPlaced(WeightName::kExpertUp, 2, expert, block + "gate_up_proj",
                 [&](int64_t r, int64_t c) { return gate_up + c * kRow + kWidth + r; });
    ExpectPlaced(WeightName::kExpertDown, 2, expert, block + "down_proj",
                 [&](int64_t r, int64_t c) { return down + c * kHidden + r; });
  }
}

TEST_F(LayoutsTest, InterleavedColumnsAndBiasesTakeTurns) {
  Load("gpt_oss_bf16");
  constexpr int64_t kWidth = 32, kRow = 2 * kWidth;
  const int64_t e = 4;
  const std::string block = "model.layers.1.mlp.experts.";
  const int64_t gate_up = e * kHidden * kRow;
  ExpectPlaced(WeightName::kExpertGate, 1, 4, block + "gate_up_proj",
               [&](int64_t r, int64_t c) { return gate_up + c * kRow + 2 * r; });
  ExpectPlaced(WeightName::kExpertUp, 1, 4, block + "gate_up_proj",
               [&](int64_t r, int64_t c) { return gate_up + c * kRow + 2 * r + 1; });
  ExpectPlaced(WeightName::kExpertGateBias, 1, 4, block + "gate_up_proj_bias",
               [&](int64_t, int64_t c) { return e * kRow + 2 * c; });
  ExpectPlaced(WeightName::kExpertUpBias, 1, 4, block + "gate_up_proj_bias",
               [&](int64_t, int64_t c) { return e * kRow + 2 * c + 1; });
  ExpectPlaced(WeightName::kExpertDownBias, 1, 4, block + "down_proj_bias",
               [&](int64_t, int64_t c) { return e * kHidden + c; });
}

TEST_F(LayoutsTest, StackedDownIsTransposedAndQkvIsOne) {
  Load("dbrx");
  constexpr int64_t kWidth = 24;
  const int64_t e = 3;
  const std::string block = "transformer.blocks.0.ffn.experts.mlp.";
  const auto row_major = [&](int64_t r, int64_t c) { return (e * kWidth + r) * kHidden + c; };
  ExpectPlaced(WeightName::kExpertGate, 0, 3, block + "w1", row_major);
  ExpectPlaced(WeightName::kExpertUp, 0, 3, block + "v1", row_major);
  ExpectPlaced(WeightName::kExpertDown, 0, 3, block + "w2",
               [&](int64_t r, int64_t c) { return (e * kWidth + c) * kHidden + r; });
  const std::string qkv = "transformer.blocks.0.norm_attn_norm.attn.Wqkv.weight";
  ExpectPlaced(WeightName::kQ, 0, -1, qkv, [](int64_t r, int64_t c) { return r * kHidden + c; });
  ExpectPlaced(WeightName::kK, 0, -1, qkv, [](int64_t r, int64_t c) { return (32 + r) * kHidden + c; });
  ExpectPlaced(WeightName::kV, 0, -1, qkv, [](int64_t r, int64_t c) { return (48 + r) * kHidden + c; });
}

TEST_F(LayoutsTest, GraniteStacksGateOverUp) {
  Load("granitemoeshared");
  const std::string layer = "model.layers.1.";
  ExpectPlaced(WeightName::kExpertUp, 1, 7, layer + "block_sparse_moe.input_linear.weight",
               [](int64_t r, int64_t c) { return (7 * 48 + 24 + r) * kHidden + c; });
  ExpectPlaced(WeightName::kSharedGate, 1, -1, layer + "shared_mlp.input_linear.weight",
               [](int64_t r, int64_t c) { return r * kHidden + c; });
  ExpectPlaced(WeightName::kSharedUp, 1, -1, layer + "shared_mlp.input_linear.weight",
               [](int64_t r, int64_t c) { return (40 + r) * kHidden + c; });
}

TEST_F(LayoutsTest, JetmoeStacksKeysOverValuesAndAttentionExperts) {
  Load("jetmoe");
  const std::string layer = "model.layers.2.self_attention.";
  ExpectPlaced(WeightName::kV, 2, -1, layer + "kv_proj.weight",
               [](int64_t r, int64_t c) { return (24 + r) * kHidden + c; });
  ExpectPlaced(WeightName::kAttentionIn, 2, 4, layer + "experts.input_linear.weight",
               [](int64_t r, int64_t c) { return (4 * 24 + r) * kHidden + c; });
  ExpectPlaced(WeightName::kAttentionOut, 2, 4, layer + "experts.output_linear.weight",
               [](int64_t r, int64_t c) { return (4 * kHidden + r) * 24 + c; });
}

// Rows of MXFP4 take turns as the columns of the other form do.
TEST_F(LayoutsTest, Mxfp4RowsTakeTurns) {
  Load("gpt_oss_mxfp4");
  const std::string tensor = "model.layers.1.mlp.experts.gate_up_proj";
  std::string codes, scales;
  for (const RawTensor& raw : testing::ReadRawTensors(folder_ + "/model.safetensors")) {
    if (raw.name == tensor + "_blocks") codes = raw.bytes;
    if (raw.name == tensor + "_scales") scales = raw.bytes;
  }
  constexpr float kCodes[] = {0, .5, 1, 1.5, 2, 3, 4, 6, 0, -.5, -1, -1.5, -2, -3, -4, -6};
  for (const WeightName name : {WeightName::kExpertGate, WeightName::kExpertUp}) {
    const std::vector<float> actual = *ReadAll(*model_.weights->Find(name, 1, 5));
    for (int64_t i = 0; i < 32 * kHidden; ++i) {
      const int64_t row = 5 * 64 + 2 * (i / kHidden) + (name == WeightName::kExpertUp ? 1 : 0), col = i % kHidden;
      const uint8_t byte = static_cast<uint8_t>(codes[static_cast<size_t>(row * 16 + col / 2)]);
      const float scale = std::ldexp(1.0f, static_cast<uint8_t>(scales[static_cast<size_t>(row)]) - 127);
      ASSERT_EQ(actual[static_cast<size_t>(i)], kCodes[col % 2 == 0 ? byte & 15 : byte >> 4] * scale) << i;
    }
  }
}

// ------------------------------------------------------------------------------------------------- changed checkpoints

class ChangedTest : public ::testing::Test {
 protected:
  // The fixture after `change`, with the text `from` of its config replaced by `to`.
  absl::StatusOr<LoadedModel> LoadChanged(const std::string& fixture,
                                          const std::function<void(std::vector<RawTensor>&)>& change,
                                          const std::string& from = "", const std::string& to = "") {
    const std::string source = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/" + fixture;
    auto folder = ModelFolder::Open(source);
    CHECK(folder.ok());
    std::string config = *folder->ReadSmallFile("config.json", 1 << 20);
    if (!from.empty()) {
      const size_t at = config.find(from);
      CHECK(at != std::string::npos);
      config.replace(at, from.size(), to);
    }
    std::vector<RawTensor> tensors = testing::ReadRawTensors(source + "/model.safetensors");
    change(tensors);
    folder_.Write("config.json", config);
    folder_.Write("model.safetensors", testing::SafetensorsBytes(tensors));
    return LoadModel(folder_.path());
  }
  std::string RefusalOf(const std::string& fixture, const std::function<void(std::vector<RawTensor>&)>& change) {
    return std::string(LoadChanged(fixture, change).status().message());
  }
  static RawTensor& Get(std::vector<RawTensor>& tensors, const std::string& name) {
    for (RawTensor& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    CHECK(false);
  }

  testing::TempFolder folder_;
};

TEST_F(ChangedTest, LayersForSpeculationAreSkippedIfTheConfigHasThem) {
  const auto add = [](std::vector<RawTensor>& tensors) {
    tensors.push_back(testing::F32Tensor("model.layers.3.enorm.weight", {32}, std::vector<float>(32)));
    tensors.push_back(testing::F32Tensor("model.layers.3.mlp.experts.0.up_proj.weight", {1}, {1}));
  };
  EXPECT_THAT(RefusalOf("deepseek_v3", add), HasSubstr("model.layers.3.enorm.weight\" at byte "));
  const auto model = LoadChanged("deepseek_v3", add, "\"n_group\"", "\"num_nextn_predict_layers\": 1, \"n_group\"");
  EXPECT_TRUE(model.ok()) << model.status();
}

TEST_F(ChangedTest, ATextModelMayBeOneOfSeveral) {
  const auto prefix = [](std::vector<RawTensor>& tensors) {
    for (RawTensor& tensor : tensors) tensor.name = "language_model." + tensor.name;
    tensors.push_back(testing::F32Tensor("vision_model.class_embedding", {1}, {1}));
    tensors.push_back(testing::F32Tensor("multi_modal_projector.linear_1.weight", {1, 1}, {1}));
  };
  const auto model = LoadChanged("llama4_scout_like", prefix);
  EXPECT_TRUE(model.ok()) << model.status();
  const auto unknown = [&](std::vector<RawTensor>& tensors) {
    prefix(tensors);
    tensors.push_back(testing::F32Tensor("audio_model.weight", {1}, {1}));
  };
  EXPECT_THAT(RefusalOf("llama4_scout_like", unknown), HasSubstr("audio_model.weight\" at byte "));
  EXPECT_THAT(RefusalOf("llama4_scout_like",
                        [](std::vector<RawTensor>& tensors) {
                          tensors.push_back(testing::F32Tensor("vision_model.class_embedding", {1}, {1}));
                        }),
              HasSubstr("vision_model.class_embedding\" at byte "));
}

// Which of two halves would be the one that counts?
TEST_F(ChangedTest, ExpertsWithoutAGateAreNotTakenFromAFusedTensor) {
  const std::string message = RefusalOf("switchyard_moe_dense_mixture", [](std::vector<RawTensor>& tensors) {
    std::vector<RawTensor> kept;
    for (RawTensor& tensor : tensors) {
      if (tensor.name.find(".experts.") == std::string::npos) kept.push_back(tensor);
    }
    for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
      const std::string block = std::string(layer) + "mlp.experts.";
      kept.push_back({block + "gate_up_proj", "F32", {5, 48, 32}, std::string(5 * 48 * 32 * 4, '\0')});
      kept.push_back({block + "down_proj", "F32", {5, 32, 24}, std::string(5 * 32 * 24 * 4, '\0')});
    }
    tensors = kept;
  });
  EXPECT_THAT(message, HasSubstr("tensor \"model.layers.0.mlp.experts.0.up_proj.weight\" is missing"));
  EXPECT_THAT(message, HasSubstr("tensor \"model.layers.0.mlp.experts.gate_up_proj\" at byte "));
  EXPECT_THAT(message, HasSubstr("is no tensor of this model"));
}

TEST_F(ChangedTest, AGateThatNobodyAsksForIsNamed) {
  const std::string gate = "model.layers.1.mlp.experts.0.gate_proj.weight";
  EXPECT_THAT(RefusalOf("switchyard_moe_top_k",
                        [&](std::vector<RawTensor>& tensors) {
                          tensors.push_back({gate, "F32", {24, 32}, std::string(24 * 32 * 4, '\0')});
                        }),
              HasSubstr("tensor \"" + gate + "\" at byte "));
  EXPECT_THAT(RefusalOf("switchyard_moe_noisy_top_k",
                        [](std::vector<RawTensor>& tensors) {
                          std::erase_if(tensors, [](const RawTensor& tensor) {
                            return tensor.name == "model.layers.0.mlp.experts.7.gate_proj.weight";
                          });
                        }),
              HasSubstr("tensor \"model.layers.0.mlp.experts.7.gate_proj.weight\" is missing"));
}

// As transformers 5 saves what was block_sparse_moe.gate and split.
TEST_F(ChangedTest, AResavedPhiHasItsRouterInTheMlp) {
  const auto resave = [](std::vector<RawTensor>& tensors) {
    std::vector<RawTensor> kept;
    std::map<std::string, std::map<std::string, std::string>> matrices;  // by layer: w1, w2, w3 of all experts
    for (RawTensor& tensor : tensors) {
      const size_t experts = tensor.name.find("block_sparse_moe.experts.");
      const size_t gate = tensor.name.find("block_sparse_moe.gate.");
      if (gate != std::string::npos) tensor.name.replace(gate, 21, "mlp.router");
      if (experts == std::string::npos) {
        kept.push_back(tensor);
      } else {
        const std::string expert = tensor.name.substr(experts + 25, 1), w = tensor.name.substr(experts + 27, 2);
        matrices[tensor.name.substr(0, experts)][expert + w] = tensor.bytes;
      }
    }
    for (const auto& [layer, parts] : matrices) {
      std::string gate_up, down;
      for (const char* e : {"0", "1", "2", "3", "4", "5"}) {
        const std::string expert = e;
        gate_up += parts.at(expert + "w1") + parts.at(expert + "w3");
        down += parts.at(expert + "w2");
      }
      kept.push_back({layer + "mlp.experts.gate_up_proj", "F32", {6, 48, 32}, gate_up});
      kept.push_back({layer + "mlp.experts.down_proj", "F32", {6, 32, 24}, down});
    }
    tensors = kept;
  };
  const auto resaved = LoadChanged("phimoe_long", resave);
  ASSERT_TRUE(resaved.ok()) << resaved.status();
  testing::TempFolder other;
  const auto original = LoadModel(std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/phimoe_long");
  ASSERT_TRUE(original.ok());
  ForEachWeight(original->config, [&](const WeightSpec& spec) {
    EXPECT_EQ(*ReadAll(*original->weights->Find(spec.name, spec.layer, spec.expert)),
              *ReadAll(*resaved->weights->Find(spec.name, spec.layer, spec.expert)));
  });
}

TEST_F(ChangedTest, ScalesThatAreMissingMisshapenOrOfAnotherTypeAreNamed) {
  const std::string weight = "model.layers.0.mlp.up_proj.weight", scales = weight + "_scale_inv";
  const std::string message = RefusalOf("deepseek_v3_fp8", [&](std::vector<RawTensor>& tensors) {
    std::erase_if(tensors, [&](const RawTensor& tensor) { return tensor.name == scales; });
    Get(tensors, "model.layers.0.mlp.gate_proj.weight_scale_inv").shape = {4, 1};
    Get(tensors, "model.layers.0.mlp.down_proj.weight_scale_inv").dtype = "I32";
  });
  EXPECT_THAT(message, HasSubstr("tensor \"" + scales + "\" is missing"));
  EXPECT_THAT(message, HasSubstr("gate_proj.weight_scale_inv\" at byte "));
  EXPECT_THAT(message, HasSubstr(": shape is [4, 1], but config.json calls for [2, 2]"));
  EXPECT_THAT(message, HasSubstr(": type is I32; scales must be F32, F16 or BF16"));
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 2) << message;
}

TEST_F(ChangedTest, Fp8WithoutItsConfigIsRefused) {
  const auto model = LoadChanged(
      "deepseek_v3_fp8", [](std::vector<RawTensor>&) {}, "quantization_config", "other");
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("type is F8_E4M3; weights must be F32, F16 or BF16"));
}

TEST_F(ChangedTest, Mxfp4ThatIsIncompleteIsNamed) {
  const std::string experts = "model.layers.0.mlp.experts.";
  const std::string message = RefusalOf("gpt_oss_mxfp4", [&](std::vector<RawTensor>& tensors) {
    std::erase_if(tensors, [&](const RawTensor& tensor) { return tensor.name == experts + "down_proj_scales"; });
    Get(tensors, experts + "gate_up_proj_blocks").dtype = "I8";
  });
  EXPECT_THAT(message, HasSubstr("tensor \"" + experts + "down_proj_scales\" is missing"));
  EXPECT_THAT(message, HasSubstr("type is I8; blocks and scales of mxfp4 must be U8"));
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 1) << message;
}

}  // namespace
}  // namespace switchyard
