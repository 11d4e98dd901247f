// Unigram: the best path by its definition, unknown characters, and files that are wrong on purpose.
#include "engine/tokenizer/unigram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Scored = std::vector<std::pair<std::string, double>>;

json ToJson(const Scored& tokens) {
  json vocab = json::array();
  for (const auto& [token, score] : tokens) vocab.push_back(json::array({token, score}));
  return vocab;
}

json Document(const json& vocab, const json& options = json::object()) {
  json model = {{"type", "Unigram"}, {"vocab", vocab}, {"unk_id", 0}};
  model.update(options);
  return {{"version", "1.0"}, {"model", model}, {"added_tokens", json::array()}};
}

std::unique_ptr<Tokenizer> Make(const json& document) {
  auto tokenizer = Tokenizer::Parse(document.dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::vector<int32_t> Ids(const Tokenizer& tokenizer, const std::string& text) {
  const auto ids = tokenizer.Encode(text, {});
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.value_or(std::vector<int32_t>());
}

const json kVocab =
    ToJson({{"<unk>", 0.0}, {"a", -1.0}, {"b", -1.5}, {"ab", -2.0}, {"aba", -4.0}, {"ba", -2.9}});

TEST(UnigramTest, TheScoresDecide) {
  const auto tokenizer = Make(Document(kVocab));
  EXPECT_THAT(Ids(*tokenizer, "ab"), ElementsAre(3));       // -2.0 against -2.5
  EXPECT_THAT(Ids(*tokenizer, "aba"), ElementsAre(3, 1));   // -3.0; a ba -3.9, aba -4.0
  EXPECT_THAT(Ids(*tokenizer, "ba"), ElementsAre(2, 1));    // -2.5 against -2.9
  EXPECT_THAT(Ids(*tokenizer, ""), IsEmpty());
  EXPECT_EQ(tokenizer->vocab_size(), 6);
}

TEST(UnigramTest, UnknownCharactersInARowAreOneToken) {
  const auto tokenizer = Make(Document(kVocab));
  EXPECT_THAT(Ids(*tokenizer, "xyz"), ElementsAre(0));
  EXPECT_THAT(Ids(*tokenizer, "x\xC3\xA9" "a\xF0\x9F\x98\x80" "b"), ElementsAre(0, 1, 0, 2));
}

TEST(UnigramTest, UnknownCharactersBecomeBytesIfAllAreThere) {
  const json vocab = ToJson({{"<unk>", 0.0}, {"a", -1.0}, {"<0xC3>", 0.0}, {"<0xA9>", 0.0}, {"<0xF0>", 0.0}});
  const auto tokenizer = Make(Document(vocab, {{"byte_fallback", true}}));
  EXPECT_THAT(Ids(*tokenizer, "\xC3\xA9" "a\xF0\x9F\x98\x80"), ElementsAre(2, 3, 1, 0));
  // A run is taken as a whole: one byte that is missing makes all of it unknown.
  EXPECT_THAT(Ids(*tokenizer, "\xC3\xA9\xF0\x9F\x98\x80"), ElementsAre(0));
  EXPECT_THAT(Ids(*Make(Document(vocab)), "\xC3\xA9"), ElementsAre(0));
}

TEST(UnigramTest, WithoutUnkIdAnUnknownCharacterIsAnErrorOfTheText) {
  const auto tokenizer = Make(Document(kVocab, {{"unk_id", nullptr}}));
  EXPECT_THAT(Ids(*tokenizer, "ab"), ElementsAre(3));
  const auto ids = tokenizer->Encode("abx", {});
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(ids.status().message()), HasSubstr("unk_id"));
}

// Every way to cut short texts into tokens, against the best score.
TEST(UnigramTest, NoOtherCutScoresMore) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> score(-9.0, -1.0);
  Scored tokens = {{"<unk>", 0.0}};
  for (const char* token : {"a", "b", "c", "ab", "bc", "ca", "aa", "abc", "bca", "aab", "abca", "cabc", "aaaa"}) {
    tokens.emplace_back(token, score(random));
  }
  const auto tokenizer = Make(Document(ToJson(tokens)));
  for (int trial = 0; trial < 300; ++trial) {
    std::string text;
    for (int i = 0; i < 9; ++i) text += "abc"[random() % 3];
    std::vector<double> best(text.size() + 1, -std::numeric_limits<double>::infinity());
    best[0] = 0.0;
    for (size_t end = 1; end <= text.size(); ++end) {
      for (size_t t = 1; t < tokens.size(); ++t) {
        const auto& [token, value] = tokens[t];
        if (token.size() > end || text.compare(end - token.size(), token.size(), token) != 0) continue;
        best[end] = std::max(best[end], best[end - token.size()] + value);
      }
    }
    double sum = 0.0;
    std::string joined;
    for (const int32_t id : Ids(*tokenizer, text)) {
      sum += tokens[static_cast<size_t>(id)].second;
      joined += tokens[static_cast<size_t>(id)].first;
    }
    EXPECT_EQ(joined, text);
    EXPECT_NEAR(sum, best[text.size()], 1e-9) << text;
  }
}

// A long text without a break, and a vocabulary made to keep every lookup going as long as it can.
TEST(UnigramTest, LongPiecesAreNotQuadratic) {
  Scored tokens = {{"<unk>", 0.0}};
  for (int length = 1; length <= 1024; ++length) tokens.emplace_back(std::string(length, 'a'), -2.0 * length);
  tokens[1].second = -1.0;
  const auto tokenizer = Make(Document(ToJson(tokens)));
  const std::clock_t start = std::clock();  // of the process: the machine may be busy with other tests
  EXPECT_EQ(Ids(*tokenizer, std::string(1 << 18, 'a')).size(), size_t{1} << 18);
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 60.0);
}

TEST(UnigramTest, RefusesBadFiles) {
  const std::pair<json, const char*> cases[] = {
      {Document(json::object()), "model.vocab must be a list"},
      {Document(json::parse(R"([["a"]])")), "model.vocab[0] must be a pair"},
      {Document(json::parse(R"([["a", -1.0, 2]])")), "model.vocab[0] must be a pair"},
      {Document(json::parse(R"(["a"])")), "model.vocab[0] must be a pair"},
      {Document(json::parse(R"([[1, -1.0]])")), "model.vocab[0][0] must be a string"},
      {Document(json::parse(R"([["a", "b"]])")), "model.vocab[0][1] must be a number"},
      {Document(ToJson({{"a", -1e10}})), "model.vocab[0][1] must be a number from -1e+09"},
      {Document(json::parse(R"([["a", null]])")), "model.vocab[0][1] must be a number"},
      {Document(ToJson({{"a", -1.0}, {"a", -2.0}})), "model.vocab has the key \"a\" twice"},
      {Document(kVocab, {{"unk_id", 6}}), "model.unk_id is 6; it must be an integer from 0 to 5"},
      {Document(kVocab, {{"unk_id", -1}}), "model.unk_id is -1"},
      {Document(kVocab, {{"unk_id", "a"}}), "model.unk_id must be an integer"},
      {Document(json::array()), "model.unk_id names a token of an empty vocabulary"},
      {Document(kVocab, {{"byte_fallback", 1}}), "model.byte_fallback must be true or false"},
      {Document(kVocab, {{"nbest_size", 64}}), "model.nbest_size must be null"},
      {Document(kVocab, {{"alpha", 0.1}}), "model.alpha must be null"},
      {Document(ToJson({{"a", -1.0}, {std::string(1025, 'x'), -2.0}})), "model.vocab[1] has 1025 bytes"}};
  for (const auto& [document, reason] : cases) {
    const auto tokenizer = Tokenizer::Parse(document.dump());
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument) << reason;
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(reason));
  }
}

TEST(UnigramTest, RefusesBadCharacterMaps) {
  const std::pair<json, const char*> cases[] = {
      {nullptr, "precompiled_charsmap must be a string"}, {7, "precompiled_charsmap must be a string"},
      {"", "precompiled_charsmap cannot be read"},        {"%%%", "precompiled_charsmap is not base64"},
      {"AAAAAAAAAAAA", "precompiled_charsmap cannot be read: the character map says that its array has 0 bytes"}};
  for (const auto& [charsmap, reason] : cases) {
    json document = Document(kVocab);
    document["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", charsmap}};
    const auto tokenizer = Tokenizer::Parse(document.dump());
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument) << reason;
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(reason));
  }
}

}  // namespace
}  // namespace switchyard
