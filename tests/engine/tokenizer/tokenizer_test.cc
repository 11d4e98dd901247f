#include "engine/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/tokenizer/tokenizer_samples.h"

namespace switchyard {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

constexpr EncodeOptions kPlain{.add_special_tokens = false, .allow_special_tokens = false};
constexpr EncodeOptions kSpecial{.add_special_tokens = false, .allow_special_tokens = true};

TEST(TokenizerTest, TemplateAddsBosOnRequest) {
  const auto tokenizer = ParseSample(ByteLevelSample());
  const int32_t hello = *tokenizer->TokenToId("hello");
  EXPECT_EQ(*tokenizer->Encode("hello", {}), (Ids{300, hello}));
  EXPECT_EQ(*tokenizer->Encode("hello", kPlain), (Ids{hello}));
  EXPECT_EQ(*tokenizer->Encode("", {}), (Ids{300}));
  EXPECT_TRUE(tokenizer->Encode("", kPlain)->empty());
}

TEST(TokenizerTest, SpecialTokensInTextNeedPermission) {
  const auto tokenizer = ParseSample(ByteLevelSample());
  EXPECT_EQ(*tokenizer->Encode("x<|im_end|>y", kSpecial), (Ids{'x', 301, 'y'}));
  const auto plain = tokenizer->Encode("x<|im_end|>y", kPlain);
  EXPECT_THAT(*plain, ::testing::Each(::testing::Lt(300)));
  EXPECT_EQ(tokenizer->Decode(*plain, /*skip_special_tokens=*/true), "x<|im_end|>y");
}

TEST(TokenizerTest, OtherAddedTokensAlwaysMatch) {
  const auto tokenizer = ParseSample(ByteLevelSample());
  EXPECT_EQ(*tokenizer->Encode("<think>a", kPlain), (Ids{302, 'a'}));
  EXPECT_EQ(tokenizer->Decode(Ids{302, 'a'}, true), "<think>a");
}

TEST(TokenizerTest, DecodeSkipsSpecialTokensOnly) {
  const auto tokenizer = ParseSample(ByteLevelSample());
  EXPECT_EQ(tokenizer->Decode(Ids{300, 'a', 302, 301}, true), "a<think>");
  EXPECT_EQ(tokenizer->Decode(Ids{300, 'a', 302, 301}, false), "<|bos|>a<think><|im_end|>");
  EXPECT_TRUE(tokenizer->IsSpecial(300));
  EXPECT_FALSE(tokenizer->IsSpecial(302));
  EXPECT_FALSE(tokenizer->IsSpecial(-1));
  EXPECT_EQ(tokenizer->vocab_size(), 303);
}

TEST(TokenizerTest, StrippingTokensSwallowSpaces) {
  json sample = ByteLevelSample();
  sample["added_tokens"].push_back(AddedTokenJson(303, "<l>", false));
  sample["added_tokens"].back()["lstrip"] = true;
  sample["added_tokens"].push_back(AddedTokenJson(304, "<r>", false));
  sample["added_tokens"].back()["rstrip"] = true;
  const auto tokenizer = ParseSample(sample);
  EXPECT_EQ(*tokenizer->Encode("a \u3000<l> b", kPlain), (Ids{'a', 303, ' ', 'b'}));
  EXPECT_EQ(*tokenizer->Encode("a <r> \n b", kPlain), (Ids{'a', ' ', 304, 'b'}));
}

TEST(TokenizerTest, SingleWordTokensStandAlone) {
  json sample = ByteLevelSample();
  sample["added_tokens"].push_back(AddedTokenJson(303, "cat", false));
  sample["added_tokens"].back()["single_word"] = true;
  const auto tokenizer = ParseSample(sample);
  EXPECT_EQ(*tokenizer->Encode("(cat)", kPlain), (Ids{'(', 303, ')'}));
  EXPECT_EQ(*tokenizer->Encode("cats", kPlain), (Ids{'c', 'a', 't', 's'}));
  EXPECT_EQ(tokenizer->Encode("écat", kPlain)->back(), 't');
}

TEST(TokenizerTest, LongestOfOverlappingTokensWins) {
  json sample = ByteLevelSample();
  sample["added_tokens"].push_back(AddedTokenJson(303, "<|", false));
  sample["added_tokens"].push_back(AddedTokenJson(304, "<|im", false));
  const auto tokenizer = ParseSample(sample);
  EXPECT_EQ(*tokenizer->Encode("<|i<|im<|im_end|>", kSpecial), (Ids{303, 'i', 304, 301}));
}

TEST(TokenizerTest, InvalidUtf8IsRefusedWithItsOffset) {
  const auto tokenizer = ParseSample(ByteLevelSample());
  const auto ids = tokenizer->Encode("0123456789abcdefg\xFF", {});
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(ids.status().message()), "text is not valid UTF-8 (byte 17)");
}

TEST(TokenizerTest, NulAndControlsAndNoncharactersComeBackIntact) {
  const std::string text = std::string("\0\x01\x7F", 3) + "\u200F\uFFFE\uFEFF\r\n";
  for (const json& sample : {ByteLevelSample(), SentencePieceSample()}) {
    const auto tokenizer = ParseSample(sample);
    EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode(text, {}), true), text);
  }
}

TEST(TokenizerTest, TokenTextIsTheBytesOfTheTokenAlone) {
  const auto byte_level = ParseSample(ByteLevelSample());
  EXPECT_EQ(byte_level->TokenText(0xC3), "\xC3");
  EXPECT_EQ(byte_level->TokenText(*byte_level->TokenToId("Ġw")), " w");
  EXPECT_EQ(byte_level->TokenText(302), "<think>");
  EXPECT_EQ(byte_level->TokenText(299), "");
  EXPECT_EQ(byte_level->TokenText(-5), "");
  const auto sentence_piece = ParseSample(SentencePieceSample());
  EXPECT_EQ(sentence_piece->TokenText(3 + 0xE4), "\xE4");
  EXPECT_EQ(sentence_piece->TokenText(*sentence_piece->TokenToId("▁hello")), " hello");
}

TEST(TokenizerTest, SentencePieceWritesSpacesAndFallsBackToBytes) {
  const auto tokenizer = ParseSample(SentencePieceSample());
  const int32_t hello = *tokenizer->TokenToId("▁hello");
  EXPECT_EQ(*tokenizer->Encode("hello hello", kPlain), (Ids{hello, hello}));
  EXPECT_EQ(*tokenizer->Encode("é", kPlain), (Ids{*tokenizer->TokenToId("▁"), 3 + 0xC3, 3 + 0xA9}));
}

TEST(TokenizerTest, MetaspaceFirstMarksOnlyTheBeginningOfTheText) {
  json sample = SentencePieceSample();
  sample["normalizer"] = nullptr;
  sample["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", false}};
  const auto tokenizer = ParseSample(sample);
  const int32_t hello = *tokenizer->TokenToId("hello");
  const int32_t space_hello = *tokenizer->TokenToId("▁hello");
  EXPECT_EQ(*tokenizer->Encode("hello</s>hello</s> hello", kSpecial), (Ids{space_hello, 2, hello, 2, space_hello}));
}

TEST(TokenizerTest, AllTextSurvivesTheRoundTrip) {
  std::mt19937 random(5);
  const std::vector<std::string> parts = {"hello", " ", "  ", "é",  "😀",      "中",
                                          "\n",    "a", "1",  "'s", "\u0301", "<|im_end|>"};
  for (const json& sample : {ByteLevelSample(), SentencePieceSample()}) {
    const auto tokenizer = ParseSample(sample);
    for (int round = 0; round < 500; ++round) {
      std::string text;
      for (uint32_t i = random() % 12; i > 0; --i) text += parts[random() % parts.size()];
      EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode(text, {}), true), text);
    }
  }
}

TEST(TokenizerTest, ManyThreadsShareOne) {
  const auto tokenizer = ParseSample(SentencePieceSample());
  const std::string text = "hello world, wow — é 😀 hello";
  const Ids expected = *tokenizer->Encode(text, {});
  std::vector<std::thread> threads;
  std::vector<int> differences(4, 0);
  for (int& count : differences) {
    threads.emplace_back([&count, &tokenizer, &text, &expected] {
      for (int i = 0; i < 500; ++i)
        count += *tokenizer->Encode(text, {}) != expected || tokenizer->Decode(expected, true) != text;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(differences, ::testing::Each(0));
}

TEST(TokenizerTest, LoadSaysWhatIsWrongWithThePath) {
  EXPECT_EQ(Tokenizer::Load("/nonexistent/tokenizer.json").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Tokenizer::Load("/").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Tokenizer::Load("/dev/zero").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace switchyard
