#include "engine/checkpoint/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/base/bf16.h"
#include "engine/checkpoint/weight_table.h"
#include "tests/engine/checkpoint/tiny_model.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;
using testing::LoadedModel;
using testing::LoadModel;
using testing::RawTensor;
using testing::ReadAll;
using testing::TempFolder;
using testing::TinyConfig;
using testing::TinyTensors;

std::vector<float> FloatsOf(const RawTensor& tensor) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

LoadedModel MustLoad(const TempFolder& folder) {
  auto model = LoadModel(folder.path());
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

// Every weight that the config calls for, read through both models, is the same.
void ExpectSameWeights(const LoadedModel& expected, const LoadedModel& actual) {
  ForEachWeight(expected.config, [&](const WeightSpec& spec) {
    const TensorReader* a = expected.weights->Find(spec.name, spec.layer, spec.expert);
    const TensorReader* b = actual.weights->Find(spec.name, spec.layer, spec.expert);
    ASSERT_NE(a, nullptr);
    ASSERT_NE(b, nullptr);
    ASSERT_EQ(a->rows(), spec.rows);
    ASSERT_EQ(b->cols(), spec.cols);
    EXPECT_EQ(*ReadAll(*a), *ReadAll(*b)) << static_cast<int>(spec.name) << " " << spec.layer << " " << spec.expert;
  });
  EXPECT_EQ(expected.weights->num_parameters(), actual.weights->num_parameters());
}

// ------------------------------------------------------------------------------------------------- fixtures

// Fixture, and how its family spells some of its tensors.
struct Fixture {
  const char* name;
  std::map<std::string, std::tuple<WeightName, int, int>> weights;
};

class FixtureWeightsTest : public ::testing::TestWithParam<Fixture> {};

TEST_P(FixtureWeightsTest, EveryTensorIsFoundAndRead) {
  const std::string folder = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/fixtures/" + GetParam().name;
  const auto model = LoadModel(folder);
  ASSERT_TRUE(model.ok()) << model.status();

  std::map<std::string, RawTensor> stored;
  int64_t num_stored = 0;
  for (RawTensor& tensor : testing::ReadRawTensors(folder + "/model.safetensors")) {
    num_stored += static_cast<int64_t>(tensor.bytes.size() / sizeof(float));
    stored[tensor.name] = std::move(tensor);
  }
  EXPECT_EQ(model->weights->num_parameters(), num_stored);

  for (const auto& [name, place] : GetParam().weights) {
    const auto& [weight, layer, expert] = place;
    const TensorReader* reader = model->weights->Find(weight, layer, expert);
    ASSERT_NE(reader, nullptr) << name;
    ASSERT_TRUE(stored.contains(name)) << name;
    EXPECT_EQ(*ReadAll(*reader), FloatsOf(stored[name])) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, FixtureWeightsTest,
    ::testing::Values(
        Fixture{"mixtral",
                {{"model.embed_tokens.weight", {WeightName::kEmbedding, -1, -1}},
                 {"lm_head.weight", {WeightName::kLmHead, -1, -1}},
                 {"model.layers.1.block_sparse_moe.gate.weight", {WeightName::kRouter, 1, -1}},
                 {"model.layers.2.block_sparse_moe.experts.5.w1.weight", {WeightName::kExpertGate, 2, 5}},
                 {"model.layers.2.block_sparse_moe.experts.5.w3.weight", {WeightName::kExpertUp, 2, 5}},
                 {"model.layers.2.block_sparse_moe.experts.5.w2.weight", {WeightName::kExpertDown, 2, 5}}}},
        Fixture{"olmoe",
                {{"model.norm.weight", {WeightName::kFinalNorm, -1, -1}},
                 {"model.layers.2.self_attn.q_norm.weight", {WeightName::kQNorm, 2, -1}},
                 {"model.layers.2.self_attn.k_norm.weight", {WeightName::kKNorm, 2, -1}},
                 {"model.layers.0.mlp.experts.7.gate_proj.weight", {WeightName::kExpertGate, 0, 7}},
                 {"model.layers.0.mlp.experts.7.up_proj.weight", {WeightName::kExpertUp, 0, 7}},
                 {"model.layers.0.mlp.experts.7.down_proj.weight", {WeightName::kExpertDown, 0, 7}}}},
        Fixture{"qwen2_moe",
                {{"model.layers.0.self_attn.q_proj.bias", {WeightName::kQBias, 0, -1}},
                 {"model.layers.0.self_attn.k_proj.bias", {WeightName::kKBias, 0, -1}},
                 {"model.layers.0.self_attn.v_proj.bias", {WeightName::kVBias, 0, -1}},
                 {"model.layers.1.mlp.gate_proj.weight", {WeightName::kMlpGate, 1, -1}},
                 {"model.layers.1.mlp.up_proj.weight", {WeightName::kMlpUp, 1, -1}},
                 {"model.layers.1.mlp.down_proj.weight", {WeightName::kMlpDown, 1, -1}},
                 {"model.layers.2.mlp.shared_expert.gate_proj.weight", {WeightName::kSharedGate, 2, -1}},
                 {"model.layers.2.mlp.shared_expert.up_proj.weight", {WeightName::kSharedUp, 2, -1}},
                 {"model.layers.2.mlp.shared_expert.down_proj.weight", {WeightName::kSharedDown, 2, -1}},
                 {"model.layers.2.mlp.shared_expert_gate.weight", {WeightName::kSharedExpertGate, 2, -1}}}},
        Fixture{"qwen3_moe",
                {{"model.layers.0.self_attn.q_proj.weight", {WeightName::kQ, 0, -1}},
                 {"model.layers.0.self_attn.o_proj.weight", {WeightName::kO, 0, -1}},
                 {"model.layers.0.self_attn.q_norm.weight", {WeightName::kQNorm, 0, -1}},
                 {"model.layers.1.input_layernorm.weight", {WeightName::kInputNorm, 1, -1}},
                 {"model.layers.1.post_attention_layernorm.weight", {WeightName::kPostAttentionNorm, 1, -1}}}},
        Fixture{"deepseek_v1",
                {{"model.layers.0.mlp.up_proj.weight", {WeightName::kMlpUp, 0, -1}},
                 {"model.layers.1.mlp.gate.weight", {WeightName::kRouter, 1, -1}},
                 {"model.layers.1.mlp.shared_experts.up_proj.weight", {WeightName::kSharedUp, 1, -1}},
                 {"model.layers.2.mlp.experts.11.down_proj.weight", {WeightName::kExpertDown, 2, 11}},
                 {"model.layers.2.self_attn.k_proj.weight", {WeightName::kK, 2, -1}},
                 {"model.layers.2.self_attn.v_proj.weight", {WeightName::kV, 2, -1}}}}),
    [](const auto& info) { return info.param.name; });

// ------------------------------------------------------------------------------------------------- layouts

class WeightsTest : public ::testing::Test {
 protected:
  void WriteModel(const TempFolder& folder, const std::vector<RawTensor>& tensors, const std::string& more = "") {
    folder.Write("config.json", TinyConfig(more));
    folder.Write("model.safetensors", testing::SafetensorsBytes(tensors));
  }
  // The tiny model, as it is.
  LoadedModel LoadTiny() {
    WriteModel(tiny_, TinyTensors());
    return MustLoad(tiny_);
  }

  TempFolder tiny_;
  TempFolder folder_;
};

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

RawTensor& Get(std::vector<RawTensor>& tensors, const std::string& ending) {
  return *std::find_if(tensors.begin(), tensors.end(), [&](const RawTensor& tensor) {
    return tensor.name.size() >= ending.size() && tensor.name.ends_with(ending);
  });
}

void Remove(std::vector<RawTensor>& tensors, const std::string& fragment) {
  std::erase_if(tensors, [&](const RawTensor& tensor) { return tensor.name.find(fragment) != std::string::npos; });
}

TEST_F(WeightsTest, ExpertsMayBeSpelledLikeTheOtherFamilies) {
  std::vector<RawTensor> tensors = TinyTensors();
  for (RawTensor& tensor : tensors) {
    tensor.name = Replaced(tensor.name, "block_sparse_moe", "mlp");
    tensor.name = Replaced(tensor.name, ".w1.", ".gate_proj.");
    tensor.name = Replaced(tensor.name, ".w3.", ".up_proj.");
    tensor.name = Replaced(tensor.name, ".w2.", ".down_proj.");
  }
  WriteModel(folder_, tensors);
  ExpectSameWeights(LoadTiny(), MustLoad(folder_));
}

// As transformers 5 saves: [E, 2I, H] with the gate rows first, and [E, H, I].
std::vector<RawTensor> Fused(const std::string& block) {
  std::vector<RawTensor> tensors = TinyTensors();
  const auto bytes = [&](const std::string& name) { return Get(tensors, name + ".weight").bytes; };
  const std::string prefix = "model.layers.0." + block + ".experts.";
  const RawTensor gate_up = {
      prefix + "gate_up_proj", "F32", {2, 12, 8}, bytes("0.w1") + bytes("0.w3") + bytes("1.w1") + bytes("1.w3")};
  const RawTensor down = {prefix + "down_proj", "F32", {2, 8, 6}, bytes("0.w2") + bytes("1.w2")};
  Remove(tensors, ".experts.");
  Get(tensors, "gate.weight").name = "model.layers.0." + block + ".gate.weight";
  tensors.push_back(gate_up);
  tensors.push_back(down);
  return tensors;
}

TEST_F(WeightsTest, ExpertsMayBeFused) {
  for (const std::string block : {"mlp", "block_sparse_moe"}) {
    WriteModel(folder_, Fused(block));
    ExpectSameWeights(LoadTiny(), MustLoad(folder_));
  }
}

TEST_F(WeightsTest, AFusedTensorIsReportedOnce) {
  std::vector<RawTensor> tensors = Fused("mlp");
  Get(tensors, "gate_up_proj").shape = {2, 8, 12};
  WriteModel(folder_, tensors);
  const absl::Status status = LoadModel(folder_.path()).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("experts.gate_up_proj\" at byte "));
  EXPECT_THAT(std::string(status.message()), HasSubstr(": shape is [2, 8, 12], but config.json calls for [2, 12, 8]"));
  EXPECT_EQ(std::count(status.message().begin(), status.message().end(), '\n'), 0) << status;
}

TEST_F(WeightsTest, TiedModelsUseTheEmbedding) {
  std::vector<RawTensor> tensors = TinyTensors();
  const RawTensor head = Get(tensors, "lm_head.weight");
  Remove(tensors, "lm_head");
  WriteModel(folder_, tensors, R"(, "tie_word_embeddings": true)");
  const LoadedModel tied = MustLoad(folder_);
  EXPECT_EQ(tied.weights->Find(WeightName::kLmHead), tied.weights->Find(WeightName::kEmbedding));
  EXPECT_EQ(tied.weights->num_parameters(), LoadTiny().weights->num_parameters() - 64);
  tensors.push_back(head);  // some exports write it all the same
  WriteModel(folder_, tensors, R"(, "tie_word_embeddings": true)");
  const LoadedModel with_head = MustLoad(folder_);
  EXPECT_EQ(with_head.weights->Find(WeightName::kLmHead), with_head.weights->Find(WeightName::kEmbedding));
}

TEST_F(WeightsTest, RotaryBuffersAreIgnored) {
  std::vector<RawTensor> tensors = TinyTensors();
  tensors.push_back(testing::F32Tensor("model.layers.0.self_attn.rotary_emb.inv_freq", {2}, {1, 2}));
  WriteModel(folder_, tensors);
  ExpectSameWeights(LoadTiny(), MustLoad(folder_));
}

TEST_F(WeightsTest, FindsNothingWhereThereIsNothing) {
  const LoadedModel tiny = LoadTiny();
  const Weights& weights = *tiny.weights;
  EXPECT_EQ(weights.Find(WeightName::kQBias, 0), nullptr);
  EXPECT_EQ(weights.Find(WeightName::kMlpGate, 0), nullptr);
  EXPECT_EQ(weights.Find(WeightName::kQ, 1), nullptr);
  EXPECT_EQ(weights.Find(WeightName::kQ), nullptr);
  EXPECT_EQ(weights.Find(WeightName::kExpertUp, 0, 2), nullptr);
  EXPECT_EQ(weights.Find(WeightName::kExpertUp, 0), nullptr);
  EXPECT_EQ(weights.Find(WeightName::kEmbedding, 0), nullptr);
}

TEST_F(WeightsTest, VectorsReadAsOneRow) {
  const LoadedModel tiny = LoadTiny();
  const TensorReader* norm = tiny.weights->Find(WeightName::kFinalNorm);
  EXPECT_EQ(norm->rows(), 1);
  EXPECT_EQ(norm->cols(), 8);
}

// ------------------------------------------------------------------------------------------------- types and ranges

TEST_F(WeightsTest, EveryRangeOfRowsReadsTheSame) {
  WriteModel(folder_, Fused("mlp"));
  const LoadedModel fused = MustLoad(folder_);
  const TensorReader* up = fused.weights->Find(WeightName::kExpertUp, 0, 1);
  const std::vector<float> whole = *ReadAll(*up);
  for (int64_t first = 0; first <= 6; ++first) {
    for (int64_t count = 0; first + count <= 6; ++count) {
      std::vector<float> part(static_cast<size_t>(count * 8));
      ASSERT_TRUE(up->ReadRows(first, count, DType::kF32, part.data()).ok());
      EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first * 8));
    }
  }
}

TEST_F(WeightsTest, EveryStoredTypeReadsAsBothOthers) {
  const LoadedModel tiny = LoadTiny();
  std::vector<RawTensor> tensors = TinyTensors();
  for (RawTensor& tensor : tensors) tensor = testing::Bf16Tensor(tensor.name, tensor.shape, FloatsOf(tensor));
  WriteModel(folder_, tensors);
  const LoadedModel rounded = MustLoad(folder_);
  ForEachWeight(tiny.config, [&](const WeightSpec& spec) {
    const size_t size = static_cast<size_t>(spec.rows * spec.cols);
    std::vector<uint16_t> from_f32(size), from_bf16(size);
    std::vector<float> widened(size);
    const TensorReader* full = tiny.weights->Find(spec.name, spec.layer, spec.expert);
    const TensorReader* half = rounded.weights->Find(spec.name, spec.layer, spec.expert);
    ASSERT_TRUE(full->ReadRows(0, spec.rows, DType::kBF16, from_f32.data()).ok());
    ASSERT_TRUE(half->ReadRows(0, spec.rows, DType::kBF16, from_bf16.data()).ok());
    ASSERT_TRUE(half->ReadRows(0, spec.rows, DType::kF32, widened.data()).ok());
    EXPECT_EQ(from_f32, from_bf16);
    for (size_t i = 0; i < size; ++i) EXPECT_EQ(widened[i], Bf16ToFloat(from_bf16[i]));
  });
}

TEST_F(WeightsTest, ReadsTensorsLargerThanItsBuffer) {
  std::vector<RawTensor> tensors = TinyTensors();
  std::vector<float> values(8 * 100'003);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 251) / 8;
  Get(tensors, "embed_tokens.weight") = testing::F32Tensor("model.embed_tokens.weight", {100'003, 8}, values);
  Get(tensors, "lm_head.weight") = testing::Bf16Tensor("lm_head.weight", {100'003, 8}, values);
  folder_.Write("config.json", Replaced(TinyConfig(), "\"vocab_size\": 8", "\"vocab_size\": 100003"));
  folder_.Write("model.safetensors", testing::SafetensorsBytes(tensors));
  const LoadedModel model = MustLoad(folder_);
  EXPECT_EQ(*ReadAll(*model.weights->Find(WeightName::kEmbedding)), values);
  EXPECT_EQ(*ReadAll(*model.weights->Find(WeightName::kLmHead)), values);
}

// ------------------------------------------------------------------------------------------------- shards

void WriteShards(const TempFolder& folder, size_t num_shards) {
  const std::vector<RawTensor> tensors = TinyTensors();
  nlohmann::json index;
  index["metadata"]["total_size"] = 4 * 700;
  for (size_t shard = 0; shard < num_shards; ++shard) {
    const std::string name = "model-0000" + std::to_string(shard + 1) + ".safetensors";
    std::vector<RawTensor> part;
    for (size_t i = shard; i < tensors.size(); i += num_shards) {
      part.push_back(tensors[i]);
      index["weight_map"][tensors[i].name] = name;
    }
    folder.Write(name, testing::SafetensorsBytes(part));
  }
  folder.Write("config.json", TinyConfig());
  folder.Write("model.safetensors.index.json", index.dump());
}

TEST_F(WeightsTest, ShardsTogetherAreTheModel) {
  WriteShards(folder_, 3);
  ExpectSameWeights(LoadTiny(), MustLoad(folder_));
}

TEST_F(WeightsTest, AFolderWithoutWeightsIsNotFound) {
  folder_.Write("config.json", TinyConfig());
  const absl::Status status = LoadModel(folder_.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("neither model.safetensors nor model.safetensors.index.json"));
}

// ------------------------------------------------------------------------------------------------- all problems

TEST_F(WeightsTest, ListsEveryProblemAtOnce) {
  std::vector<RawTensor> tensors = TinyTensors();
  Remove(tensors, "model.norm");
  Remove(tensors, "experts.1.w2");
  Get(tensors, "q_proj.weight").shape = {4, 16};
  Get(tensors, "v_proj.weight").dtype = "I32";
  tensors.push_back(testing::F32Tensor("extra", {1}, {1}));
  WriteModel(folder_, tensors);
  const absl::Status status = LoadModel(folder_.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("tensor \"model.norm.weight\" is missing"));
  EXPECT_THAT(message, HasSubstr("tensor \"model.layers.0.block_sparse_moe.experts.1.w2.weight\" is missing"));
  EXPECT_THAT(message, HasSubstr("q_proj.weight\" at byte "));
  EXPECT_THAT(message, HasSubstr(": shape is [4, 16], but config.json calls for [8, 8]"));
  EXPECT_THAT(message, HasSubstr(": type is I32; weights must be F32, F16 or BF16"));
  EXPECT_THAT(message, HasSubstr("model.safetensors: tensor \"extra\" at byte "));
  EXPECT_THAT(message, HasSubstr(": is no tensor of this model"));
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 4);
}

}  // namespace
}  // namespace switchyard
