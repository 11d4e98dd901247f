// config.json of V-MoE: what is read, and that everything wrong is refused with field, value and limit.

#include "engine/vision/vision_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kConfig[] = R"({"model_type": "vmoe", "image_size": 224, "patch_size": 32, "num_classes": 1000,
  "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 2048,
  "moe_layers": [5, 7], "num_experts": 8, "num_experts_per_tok": 2, "representation_size": 512,
  "capacity_factor": 1.05, "batch_prioritized_routing": true})";

std::string With(const std::string& key_and_value, const std::string& replacement) {
  const std::string text = absl::StrReplaceAll(kConfig, {{key_and_value, replacement}});
  EXPECT_NE(text, kConfig) << key_and_value;
  return text;
}

TEST(VisionConfigTest, ReadsTheSmallestPublishedModel) {
  const auto config = ParseVisionConfig(kConfig);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->tokens_per_image(), 50);
  EXPECT_EQ(config->patch_pixels(), 3072);
  EXPECT_EQ(config->head_dim(), 64);
  EXPECT_EQ(config->representation_size, 512);
  EXPECT_EQ(config->layer_norm_eps, 1e-6f);
  EXPECT_EQ(config->dtype, DType::kF32);
  EXPECT_THAT(config->moe_layers, ElementsAre(5, 7));
  EXPECT_EQ(config->router.num_experts, 8);
  EXPECT_EQ(config->router.top_k, 2);
  EXPECT_FALSE(config->router.normalize);
  EXPECT_EQ(config->router.capacity_order, CapacityOrder::kBestGateFirst);
}

TEST(VisionConfigTest, CapacityIsACeilingRoundedUpToFours) {
  const auto capacity = [](const std::string& factor) {
    const auto config = ParseVisionConfig(With("\"capacity_factor\": 1.05", "\"capacity_factor\": " + factor));
    EXPECT_TRUE(config.ok()) << config.status();
    return config.ok() ? config->router.capacity : -1;
  };
  EXPECT_EQ(capacity("1.050"), 16);  // 50 tokens to 2 of 8 experts: 100 * 1.05 / 8 = 13.1
  EXPECT_EQ(capacity("0.96"), 12);  // 12 exactly
  EXPECT_EQ(capacity("0.961"), 16);
  EXPECT_EQ(capacity("0.001"), 4);
  EXPECT_EQ(capacity("1000"), 52);  // all 50
  EXPECT_EQ(capacity("null"), 0);
}

TEST(VisionConfigTest, WithoutTheOptionalKeysNothingIsLimited) {
  const std::string tail =
      ", \"representation_size\": 512,\n  \"capacity_factor\": 1.05, \"batch_prioritized_routing\": true";
  const auto config = ParseVisionConfig(With(tail, ""));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->representation_size, 0);
  EXPECT_EQ(config->router.capacity, 0);
  EXPECT_EQ(config->router.capacity_order, CapacityOrder::kFirstCome);
}

TEST(VisionConfigTest, MissingFolderIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(ReadVisionConfig("/nowhere/at/all").status()));
  const testing::TempFolder folder;
  EXPECT_TRUE(absl::IsNotFound(ReadVisionConfig(folder.path()).status()));
}

struct Hostile {
  std::string name;
  std::string text;
  std::string message;
  bool unimplemented = false;
};

void PrintTo(const Hostile& hostile, std::ostream* out) { *out << hostile.name; }

class HostileVisionConfigTest : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileVisionConfigTest, IsRefusedWithAReason) {
  const absl::Status status = ParseVisionConfig(GetParam().text).status();
  EXPECT_EQ(status.code(), GetParam().unimplemented ? absl::StatusCode::kUnimplemented
                                                    : absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
  EXPECT_LT(status.message().size(), 10'000u);
}

std::string ManyLayers(int count) {
  std::string list = "0";
  for (int i = 1; i < count; ++i) absl::StrAppend(&list, ", ", i);
  return With("[5, 7]", "[" + list + "]");
}

INSTANTIATE_TEST_SUITE_P(
    Configs, HostileVisionConfigTest,
    ::testing::Values(
        Hostile{"NoObject", "[]", "config.json: is not a JSON object"},
        Hostile{"Text", "vmoe", "config.json: "},
        Hostile{"NoType", With("\"model_type\": \"vmoe\", ", ""), "model_type is missing; it must be \"vmoe\""},
        Hostile{"AnotherType", With("vmoe", "vit"), "model_type is \"vit\"", true},
        Hostile{"NoImageSize", With("\"image_size\": 224, ", ""), "image_size is missing"},
        Hostile{"HugeImage", With("224", "4128"), "image_size is 4128"},
        Hostile{"TextSize", With("224", "\"224\""), "image_size is \"224\""},
        Hostile{"RaggedPatches", With("\"patch_size\": 32", "\"patch_size\": 30"),
                "image_size is 224; it must be a multiple of patch_size, which is 30"},
        Hostile{"TinyPatches",
                With("\"image_size\": 224, \"patch_size\": 32", "\"image_size\": 4096, \"patch_size\": 1"),
                "make 16777216 patches; at most 16384"},
        Hostile{"PatchOfZero", With("\"patch_size\": 32", "\"patch_size\": 0"), "patch_size is 0"},
        Hostile{"Grey", With("\"patch_size\": 32", "\"patch_size\": 32, \"num_channels\": 1"),
                "num_channels is 1; images of 3 channels are served", true},
        Hostile{"NoClasses", With("1000", "0"), "num_classes is 0"},
        Hostile{"HeadsDoNotDivide", With("\"num_attention_heads\": 8", "\"num_attention_heads\": 7"),
                "hidden_size is 512; it must be a multiple of num_attention_heads, which is 7"},
        Hostile{"WideHeads", With("\"hidden_size\": 512", "\"hidden_size\": 16384"),
                "hidden_size / num_attention_heads is 2048; it must be even and at most 1024"},
        Hostile{"OddHeads", With("\"hidden_size\": 512", "\"hidden_size\": 520"),
                "hidden_size / num_attention_heads is 65; it must be even"},
        Hostile{"NegativeWidth", With("2048", "-1"), "intermediate_size is -1"},
        Hostile{"NoRepresentation", With("\"representation_size\": 512", "\"representation_size\": 0"),
                "representation_size is 0"},
        Hostile{"ManyChoices", With("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 9"),
                "num_experts_per_tok is 9, but num_experts is 8"},
        Hostile{"NoChoice", With("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 0"),
                "num_experts_per_tok is 0"},
        Hostile{"NoExperts", With("\"num_experts\": 8", "\"num_experts\": 0"), "num_experts is 0"},
        Hostile{"NoMoeLayers", With("[5, 7]", "[]"), "moe_layers lists no layer"},
        Hostile{"MoeLayersMissing", With("\"moe_layers\": [5, 7], ", ""), "moe_layers lists no layer"},
        Hostile{"MoeLayerTooHigh", With("[5, 7]", "[5, 8]"), "moe_layers"},
        Hostile{"MoeLayerTwice", With("[5, 7]", "[5, 5]"), "moe_layers has 5 after 5; it must ascend"},
        Hostile{"MoeLayersFall", With("[5, 7]", "[7, 5]"), "moe_layers has 5 after 7; it must ascend"},
        Hostile{"ThousandsOfMoeLayers", ManyLayers(20'000), "moe_layers"},
        Hostile{"CapacityOfZero", With("1.05", "0"), "capacity_factor is 0"},
        Hostile{"CapacityBelowZero", With("1.05", "-2"), "capacity_factor is -2"},
        Hostile{"CapacityText", With("1.05", "\"none\""), "capacity_factor is \"none\""},
        Hostile{"PriorityNumber", With("true", "1"), "batch_prioritized_routing is 1"},
        Hostile{"AnotherDType", With("\"patch_size\": 32", "\"patch_size\": 32, \"torch_dtype\": \"int8\""),
                "\"int8\" is not served", true}),
    [](const ::testing::TestParamInfo<Hostile>& info) { return info.param.name; });

TEST(HostileVisionConfigTest, AllProblemsAreInOneMessage) {
  const std::string text =
      absl::StrReplaceAll(kConfig, {{"224", "0"}, {"1000", "-5"}, {"2048", "0"}, {"\"num_experts\": 8", "\"x\": 8"}});
  const absl::Status status = ParseVisionConfig(text).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("image_size is 0"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("num_classes is -5"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("intermediate_size is 0"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("num_experts is missing"));
}

}  // namespace
}  // namespace switchyard
