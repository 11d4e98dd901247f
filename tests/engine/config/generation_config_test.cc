#include "engine/config/generation_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/temp_folder.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(GenerationConfigTest, ReadsWhatIsThere) {
  const auto config = ParseGenerationConfig(R"({"bos_token_id": 1, "eos_token_id": [2, 5], "do_sample": true,
      "temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05, "transformers_version": "4.57.1"})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2, 5));
  EXPECT_EQ(config->do_sample, true);
  EXPECT_FLOAT_EQ(*config->temperature, 0.6f);
  EXPECT_FLOAT_EQ(*config->top_p, 0.95f);
  EXPECT_EQ(config->top_k, 20);
  EXPECT_FLOAT_EQ(*config->repetition_penalty, 1.05f);
}

TEST(GenerationConfigTest, LeavesOutWhatIsNot) {
  const auto config = ParseGenerationConfig(R"({"eos_token_id": 3, "temperature": null, "top_k": -1})");
  ASSERT_TRUE(config.ok());
  EXPECT_THAT(config->eos_token_ids, ElementsAre(3));
  EXPECT_FALSE(config->temperature.has_value());
  EXPECT_FALSE(config->do_sample.has_value());
  EXPECT_EQ(config->top_k, 0);
}

TEST(GenerationConfigTest, ReportsEveryProblem) {
  const auto config = ParseGenerationConfig(
      R"({"eos_token_id": "2", "temperature": -1, "top_p": 2, "top_k": 1.5, "do_sample": 1, "repetition_penalty": 0})");
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(config.status().message());
  for (const char* fragment :
       {"generation_config.json: eos_token_id is \"2\"; it must be an integer",
        "temperature is -1; it must be a number", "top_p is 2; it must be a number from 0 to 1",
        "top_k is 1.5; it must be an integer", "do_sample is 1; it must be true or false", "repetition_penalty is 0"}) {
    EXPECT_THAT(message, HasSubstr(fragment));
  }
}

TEST(GenerationConfigTest, TakesTheRepetitionPenaltiesThatRequestsMayUse) {
  EXPECT_TRUE(ParseGenerationConfig(R"({"repetition_penalty": 0.01})").ok());
  EXPECT_TRUE(ParseGenerationConfig(R"({"repetition_penalty": 10})").ok());
  for (const char* bad : {R"({"repetition_penalty": 0.0099})", R"({"repetition_penalty": 10.1})"}) {
    EXPECT_THAT(std::string(ParseGenerationConfig(bad).status().message()), HasSubstr("a number from 0.01 to 10"));
  }
}

TEST(GenerationConfigTest, RefusesWhatIsNoObject) {
  EXPECT_THAT(std::string(ParseGenerationConfig("[]").status().message()), HasSubstr("is not a JSON object"));
  EXPECT_THAT(std::string(ParseGenerationConfig("{").status().message()), HasSubstr("not valid JSON"));
}

TEST(GenerationConfigTest, AFolderWithoutOneHasAnEmptyConfig) {
  testing::TempFolder folder;
  const auto config = ReadGenerationConfig(folder.path());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->eos_token_ids.empty());
  folder.Write("generation_config.json", R"({"eos_token_id": 9})");
  EXPECT_THAT(ReadGenerationConfig(folder.path())->eos_token_ids, ElementsAre(9));
  EXPECT_FALSE(ReadGenerationConfig(folder.PathOf("none")).ok());
}

}  // namespace
}  // namespace switchyard
