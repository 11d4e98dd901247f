// The two merge algorithms, for short and for long pieces, against the definition.
#include "engine/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/engine/tokenizer/tokenizer_samples.h"

namespace switchyard {
namespace {

static_assert(!std::is_copy_constructible_v<Vocabulary> && !std::is_copy_constructible_v<Bpe>);

using nlohmann::json;
using Merges = std::vector<std::pair<std::string, std::string>>;

// A vocabulary over a few letters with random merges of what is there already.
json RandomModel(int num_merges, std::mt19937* random) {
  json vocab = {{"a", 0}, {"b", 1}, {"c", 2}};
  std::vector<std::string> tokens = {"a", "b", "c"};
  json merges = json::array();
  while (static_cast<int>(merges.size()) < num_merges) {
    const std::string left = tokens[(*random)() % tokens.size()];
    const std::string right = tokens[(*random)() % tokens.size()];
    const std::string joined = left + right;
    if (joined.size() > 12) continue;
    if (!vocab.contains(joined)) {
      vocab[joined] = tokens.size();
      tokens.push_back(joined);
    }
    merges.push_back({left, right});
  }
  return {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}};
}

// The definition: take the best-ranked pair that is there, leftmost first; of a merge given twice the last counts.
std::vector<int32_t> MergeByDefinition(const json& model, const std::string& text) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (size_t i = 0; i < model["merges"].size(); ++i) ranks[{model["merges"][i][0], model["merges"][i][1]}] = i;
  std::vector<std::string> parts;
  for (const char c : text) parts.emplace_back(1, c);
  while (true) {
    size_t best = parts.size();
    size_t best_rank = SIZE_MAX;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto rank = ranks.find({parts[i], parts[i + 1]});
      if (rank != ranks.end() && rank->second < best_rank) {
        best = i;
        best_rank = rank->second;
      }
    }
    if (best == parts.size()) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  std::vector<int32_t> ids;
  for (const std::string& part : parts) ids.push_back(model["vocab"][part]);
  return ids;
}

TEST(BpeTest, ShortAndLongPiecesMergeByTheDefinition) {
  std::mt19937 random(7);
  for (int round = 0; round < 60; ++round) {
    const json model = RandomModel(30, &random);
    const auto tokenizer = ParseSample({{"model", model}});
    for (const size_t size : {0, 1, 2, 3, 7, 20, 47, 48, 49, 50, 80, 200}) {
      std::string text;
      while (text.size() < size) text += static_cast<char>('a' + random() % 3);
      const auto ids = tokenizer->Encode(text, {});
      ASSERT_TRUE(ids.ok());
      ASSERT_EQ(*ids, MergeByDefinition(model, text)) << text;
    }
  }
}

TEST(BpeTest, UnknownCharactersFuseOnlyOnRequest) {
  json model = {{"type", "BPE"}, {"vocab", {{"a", 0}, {"?", 1}}}, {"merges", json::array()}, {"unk_token", "?"}};
  EXPECT_EQ(*ParseSample({{"model", model}})->Encode("axyaz", {}), (std::vector<int32_t>{0, 1, 1, 0, 1}));
  model["fuse_unk"] = true;
  EXPECT_EQ(*ParseSample({{"model", model}})->Encode("axyaz", {}), (std::vector<int32_t>{0, 1, 0, 1}));
  model["unk_token"] = nullptr;  // then they vanish
  EXPECT_EQ(*ParseSample({{"model", model}})->Encode("axyaz", {}), (std::vector<int32_t>{0, 0}));
}

TEST(BpeTest, AMissingUnkTokenIsAnErrorOfTheTextThatNeedsIt) {
  const json model = {{"type", "BPE"}, {"vocab", {{"a", 0}}}, {"merges", json::array()}, {"unk_token", "<unk>"}};
  const auto tokenizer = ParseSample({{"model", model}});
  EXPECT_TRUE(tokenizer->Encode("aaa", {}).ok());
  EXPECT_EQ(tokenizer->Encode("aba", {}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(BpeTest, PrefixAndSuffixMarkThePlaceInTheWord) {
  const json model = {{"type", "BPE"},
                      {"vocab", {{"a", 0}, {"##b", 1}, {"##c</w>", 2}, {"ab", 3}, {"abc</w>", 4}}},
                      {"merges", {"a ##b", "ab ##c</w>"}},
                      {"continuing_subword_prefix", "##"},
                      {"end_of_word_suffix", "</w>"}};
  EXPECT_EQ(*ParseSample({{"model", model}})->Encode("abc", {}), (std::vector<int32_t>{4}));
}

TEST(BpeTest, IgnoreMergesTakesAWholeWord) {
  json model = {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}}}, {"merges", json::array()}};
  EXPECT_EQ(*ParseSample({{"model", model}})->Encode("ab", {}), (std::vector<int32_t>{0, 1}));
  model["ignore_merges"] = true;
  EXPECT_EQ(*ParseSample({{"model", model}})->Encode("ab", {}), (std::vector<int32_t>{2}));
}

// Quadratic, each of these would take minutes. CPU time, with a margin for sanitizers; measured: at most 0.3 s.
TEST(BpeTest, HugeWordsAreNotQuadratic) {
  const auto byte_level = ParseSample(ByteLevelSample());
  const auto sentence_piece = ParseSample(SentencePieceSample());
  std::string emoji;
  for (int i = 0; i < 100'000; ++i) emoji += "😀";
  for (const std::string& text : {std::string(1'000'000, 'a'), emoji, std::string(400'000, ' ')}) {
    for (const auto* tokenizer : {byte_level.get(), sentence_piece.get()}) {
      const std::clock_t start = std::clock();
      const auto ids = tokenizer->Encode(text, {});
      ASSERT_TRUE(ids.ok());
      EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 10.0);
      EXPECT_EQ(tokenizer->Decode(*ids, /*skip_special_tokens=*/true), text);
    }
  }
}

// Pairs that multiplication by the golden ratio would put into one place: with a hash that a file can know in advance,
// each would walk past all the others, 10^10 steps.
TEST(MergeTableTest, ChosenIdsDoNotMakeItSlow) {
  uint64_t inverse = 1;  // of the multiplier modulo 2^64, by Newton's method
  for (int i = 0; i < 6; ++i) inverse *= 2 - 0x9E3779B97F4A7C15u * inverse;
  constexpr uint64_t kPairs = 200'000;
  MergeTable table(kPairs);
  const clock_t start = std::clock();
  for (uint64_t i = 0; i < kPairs; ++i) {
    const uint64_t pair = i * inverse;
    table.Set(static_cast<int32_t>(pair >> 32), static_cast<int32_t>(pair), {static_cast<uint32_t>(i), 0});
  }
  for (uint64_t i = 0; i < kPairs; ++i) {
    const uint64_t pair = i * inverse;
    ASSERT_EQ(table.Find(static_cast<int32_t>(pair >> 32), static_cast<int32_t>(pair)).rank, i);
  }
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 10.0);
}

}  // namespace
}  // namespace switchyard
